// SPDX-License-Identifier: GPL-2.0
/*
 * unix(7) sockets without a name: pairs with both ends in the session, what
 * is left of one whose other end is closed, and unconnected ones. What waits
 * in a queue is copied where it lies, message by message; nobody notices.
 * Names (bind, listen, accept) and open files on their way are refused; so is
 * all that waits, where the kernel does not tell what goes with it.
 *
 * The queue is walked under the lock that readers take (iolock), so that what
 * is in it stays, and each buffer is held besides.
 */
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/pid.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/uidgid.h>
#include <net/af_unix.h>
#include <net/sock.h>
#include "compat.h"
#include "session.h"

static struct sock *sock_of(struct file *file)
{
	struct inode *inode = file_inode(file);

	return S_ISSOCK(inode->i_mode) && inode->i_sb->s_magic == SOCKFS_MAGIC ?
	       SOCKET_I(inode)->sk : NULL;
}

bool pod_is_unix(struct file *file)
{
	struct sock *sk = sock_of(file);

	return sk && sk->sk_family == AF_UNIX;
}

static const char *type_name(const struct sock *sk)
{
	switch (sk->sk_type) {
	case SOCK_STREAM:
		return "stream";
	case SOCK_DGRAM:
		return "dgram";
	case SOCK_SEQPACKET:
		return "seqpacket";
	}
	return NULL;
}

static bool has_name(struct sock *sk)
{
	/* Set once, by bind(2) or accept(2), with a release (net/unix). */
	return smp_load_acquire(&unix_sk(sk)->addr);
}

static bool find_file(struct pod_session *s, const struct sock *sk, u32 *number)
{
	u32 i;

	for (i = 0; i < s->files.count; i++) {
		if (sock_of(s->files.at[i]) == sk) {
			*number = i;
			return true;
		}
	}
	return false;
}

/* [pid, uid, gid], as who dumps would be told them. */
static void put_ids(struct pod_session *s, struct pod_buf *b, struct pod_open *o,
		    const char *key, const struct pid *pid, kuid_t uid,
		    kgid_t gid)
{
	pod_field(b, o, key);
	pod_array(b, 3);
	pod_int(b, pod_inner_pid(s, pid));
	pod_int(b, from_kuid_munged(current_user_ns(), uid));
	pod_int(b, from_kgid_munged(current_user_ns(), gid));
}

/* SO_PEERCRED */
static void put_peer_ids(struct pod_session *s, struct pod_buf *b,
			 struct pod_open *o, struct sock *sk)
{
	kuid_t uid = INVALID_UID;
	kgid_t gid = INVALID_GID;
	struct pid *pid;

	spin_lock(&sk->sk_peer_lock);
	pid = get_pid(sk->sk_peer_pid);
	if (sk->sk_peer_cred) {
		uid = sk->sk_peer_cred->euid;
		gid = sk->sk_peer_cred->egid;
	}
	spin_unlock(&sk->sk_peer_lock);
	if (pid_vnr(pid))
		put_ids(s, b, o, "peerCredentials", pid, uid, gid);
	put_pid(pid);
}

static void put_timeout(struct pod_buf *b, struct pod_open *o, const char *key,
			long ticks)
{
	u64 us;

	if (ticks == MAX_SCHEDULE_TIMEOUT || !ticks)
		return;
	us = (u64)(ticks / HZ) * USEC_PER_SEC +
	     (u64)(ticks % HZ) * USEC_PER_SEC / HZ;
	if (us)
		POD_U64(b, o, key, us);
}

static void put_option(struct pod_buf *b, struct pod_open *list, int number,
		       const void *value, size_t len)
{
	struct pod_open o = pod_open(b);

	list->count++;
	POD_INT(b, &o, "level", SOL_SOCKET);
	POD_INT(b, &o, "option", number);
	POD_BIN(b, &o, "value", value, len);
	pod_close_map(b, o);
}

/* What getsockopt(2) would say and of a new socket does not. */
static void put_other_options(struct pod_buf *b, struct pod_open *o,
			      struct sock *sk)
{
	const struct {
		int number, value, usual;
	} all[] = {
		{ SO_BROADCAST, sock_flag(sk, SOCK_BROADCAST) },
		{ SO_KEEPALIVE, sock_flag(sk, SOCK_KEEPOPEN) },
		{ SO_OOBINLINE, sock_flag(sk, SOCK_URGINLINE) },
		{ SO_PRIORITY, READ_ONCE(sk->sk_priority) },
		{ SO_RCVLOWAT, READ_ONCE(sk->sk_rcvlowat), 1 },
		{ SO_TIMESTAMP_OLD, sock_flag(sk, SOCK_RCVTSTAMP) &&
				    !sock_flag(sk, SOCK_RCVTSTAMPNS) },
		{ SO_PASSSEC, pod_passes_label(sk) },
		{ SO_TIMESTAMPNS_OLD, sock_flag(sk, SOCK_RCVTSTAMPNS) },
		{ SO_MARK, READ_ONCE(sk->sk_mark) },
		{ SO_RXQ_OVFL, sock_flag(sk, SOCK_RXQ_OVFL) },
	};
	struct linger linger = {
		.l_onoff = sock_flag(sk, SOCK_LINGER),
		.l_linger = READ_ONCE(sk->sk_lingertime) / HZ,
	};
	bool lingers = linger.l_onoff || linger.l_linger, any = lingers;
	struct pod_open list;
	int i;

	for (i = 0; i < ARRAY_SIZE(all); i++)
		any |= all[i].value != all[i].usual;
	if (!any)
		return;
	pod_field(b, o, "options");
	list = pod_open(b);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		/* In the order of their numbers. */
		if (all[i].number == SO_RCVLOWAT && lingers)
			put_option(b, &list, SO_LINGER, &linger,
				   sizeof(linger));
		if (all[i].value != all[i].usual)
			put_option(b, &list, all[i].number, &all[i].value,
				   sizeof(all[i].value));
	}
	pod_close_array(b, list);
}

static void put_options(struct pod_buf *b, struct pod_open *o, struct sock *sk)
{
	int offset = READ_ONCE(sk->sk_peek_off);

	put_other_options(b, o, sk);
	POD_INT(b, o, "sendBuffer", READ_ONCE(sk->sk_sndbuf));
	POD_INT(b, o, "receiveBuffer", READ_ONCE(sk->sk_rcvbuf));
	if (pod_passes_ids(sk))
		POD_BOOL(b, o, "passCredentials", true);
	if (pod_passes_pidfd(sk))
		POD_BOOL(b, o, "passPidfd", true);
	if (pod_refuses_files(sk))
		POD_BOOL(b, o, "refuseRights", true);
	if (sk->sk_reuse)
		POD_BOOL(b, o, "reuseAddress", true);
	put_timeout(b, o, "receiveTimeoutUs", READ_ONCE(sk->sk_rcvtimeo));
	put_timeout(b, o, "sendTimeoutUs", READ_ONCE(sk->sk_sndtimeo));
	if (offset >= 0)
		POD_INT(b, o, "peekOffset", offset);
}

/* What waits: all buffers of the queue, held. */
struct queue {
	struct sk_buff **at;
	u32 count;
};

static void drop_queue(struct queue *queue)
{
	while (queue->count)
		consume_skb(queue->at[--queue->count]);
	kvfree(queue->at);
}

/* The iolock is held: nobody takes anything out. */
static int copy_queue(struct sock *sk, struct queue *queue)
{
	struct sk_buff_head *list = &sk->sk_receive_queue;
	u32 room = skb_queue_len_lockless(list) + 16;
	struct sk_buff *skb;
	int error = 0;

	queue->at = kvmalloc_array(room, sizeof(*queue->at),
				   GFP_KERNEL_ACCOUNT);
	if (!queue->at)
		return -ENOMEM;
	spin_lock(&list->lock);
	skb_queue_walk(list, skb) {
		if (queue->count == room) {
			error = -EAGAIN;
			break;
		}
		queue->at[queue->count++] = skb_get(skb);
	}
	spin_unlock(&list->lock);
	return error;
}

static u32 begins_at(const struct sock *sk, const struct sk_buff *skb)
{
	return sk->sk_type == SOCK_STREAM ? pod_message_of(skb).consumed : 0;
}

static bool same_sender(const struct sk_buff *a, const struct sk_buff *b)
{
	const struct pod_message one = pod_message_of(a);
	const struct pod_message other = pod_message_of(b);

	return one.pid == other.pid && uid_eq(one.uid, other.uid) &&
	       gid_eq(one.gid, other.gid);
}

static void put_content(struct pod_session *s, const struct pod_file *f,
			struct sock *sk, const struct sk_buff *skb,
			const void *data, size_t len)
{
	const struct pod_message message = pod_message_of(skb);
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);

	POD_INT(&meta, &o, "file", f->id);
	if (sk->sk_type != SOCK_STREAM)
		POD_BOOL(&meta, &o, "message", true);
	if (pod_passes_ids(sk))
		put_ids(s, &meta, &o, "credentials", message.pid, message.uid,
			message.gid);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_CONTENT, &meta, data, len);
}

static int check_queue(struct pod_session *s, const struct pod_file *f,
		       struct sock *sk, const struct queue *queue)
{
	u32 i;

	if (queue->count && !pod_knows_messages())
		return pod_refuse_file(s, f,
				       "let the program read it first, or use --engine user",
				       "something waits in it, and this kernel does not tell a module what goes with it");
	for (i = 0; i < queue->count; i++) {
		const struct sk_buff *skb = queue->at[i];

		if (pod_message_of(skb).files)
			return pod_refuse_file(s, f, "use --engine user",
					       "open files are on their way through it (SCM_RIGHTS), which the module does not handle yet");
		if (sk->sk_type == SOCK_STREAM)
			continue;
		if (skb->len > POD_MAX_DATA)
			return pod_refuse_file(s, f,
					       "let the program read it first",
					       "a message of more than %u bytes waits in it",
					       POD_MAX_DATA);
		if (skb->sk && has_name(skb->sk))
			return pod_refuse_file(s, f, "use --engine user",
					       "a message from a socket with a name waits in it, which the module does not handle yet");
	}
	if (queue->count && sk->sk_type != SOCK_STREAM && READ_ONCE(sk->sk_err))
		return pod_refuse_file(s, f,
				       "try again when the program has read it",
				       "an error waits in it before its messages");
	return 0;
}

/*
 * A stream is one, as far as its reader can tell: he is told of another
 * sender only when he asks for senders.
 */
static int put_queue(struct pod_session *s, const struct pod_file *f,
		     struct sock *sk, const struct queue *queue)
{
	bool stream = sk->sk_type == SOCK_STREAM;
	bool told = pod_passes_ids(sk) || pod_passes_pidfd(sk);
	const struct sk_buff *first = NULL;
	size_t len = 0;
	int error = 0;
	u8 *copy;
	u32 i;

	copy = kvmalloc(POD_MAX_DATA, GFP_KERNEL_ACCOUNT);
	if (!copy)
		return -ENOMEM;
	for (i = 0; i < queue->count && !error; i++) {
		const struct sk_buff *skb = queue->at[i];
		u32 at = begins_at(sk, skb), part;

		if (stream && at >= skb->len)
			continue;
		if (first && (!stream || (told && !same_sender(first, skb)))) {
			put_content(s, f, sk, first, copy, len);
			len = 0;
		}
		first = skb;
		for (; at < skb->len && !error; at += part) {
			if (len == POD_MAX_DATA) {
				put_content(s, f, sk, first, copy, len);
				len = 0;
			}
			part = min_t(u32, skb->len - at, POD_MAX_DATA - len);
			error = skb_copy_bits(skb, at, copy + len, part);
			len += part;
		}
	}
	if (first && !error)
		put_content(s, f, sk, first, copy, len);
	kvfree(copy);
	return error;
}

static int dump_queue(struct pod_session *s, const struct pod_file *f,
		      struct sock *sk)
{
	struct queue queue = {};
	int error;

	if (mutex_lock_killable(&unix_sk(sk)->iolock))
		return -EINTR;
	error = copy_queue(sk, &queue);
	if (!error)
		error = check_queue(s, f, sk, &queue);
	if (!error)
		error = put_queue(s, f, sk, &queue);
	drop_queue(&queue);
	mutex_unlock(&unix_sk(sk)->iolock);
	return error;
}

/* The other end, which was closed. */
static int put_closed(struct pod_session *s, const struct pod_file *f,
		      struct pod_buf *b, struct pod_open *o, struct sock *sk)
{
	int error = READ_ONCE(sk->sk_err);

	POD_STR(b, o, "state", "pair");
	POD_BOOL(b, o, "peerClosed", true);
	if (error == ECONNRESET)
		POD_BOOL(b, o, "resetPending", true);
	else if (error)
		return pod_refuse_file(s, f,
				       "try again when the program has used it",
				       "an error waits in it (%d)", error);
	return 0;
}

/* state, and what belongs to it; its peer is held, if it has one. */
static int put_state(struct pod_session *s, const struct pod_file *f,
		     struct pod_buf *b, struct pod_open *o, struct sock *sk,
		     struct sock *peer)
{
	struct sock *back;
	u32 number;

	if (!peer) {
		/* Who would have sent it? */
		if (skb_queue_len_lockless(&sk->sk_receive_queue) ||
		    READ_ONCE(sk->sk_err))
			return pod_refuse_file(s, f, "use --engine user",
					       "messages wait in it, and it is not connected");
		POD_STR(b, o, "state", "unconnected");
		return 0;
	}
	if (sock_flag(peer, SOCK_DEAD))
		return put_closed(s, f, b, o, sk);
	if (READ_ONCE(sk->sk_err))
		return pod_refuse_file(s, f,
				       "try again when the program has used it",
				       "an error waits in it (%d)",
				       READ_ONCE(sk->sk_err));
	if (!find_file(s, peer, &number))
		return pod_refuse_file(s, f,
				       "let the program disconnect first, or run its partner in the same session",
				       "its other end is held by a process outside the session, or not accepted yet, or on its way through another socket");
	back = pod_unix_peer(peer);
	if (back)
		sock_put(back);
	if (back != sk)
		return pod_refuse_file(s, f, "use --engine user",
				       "it sends to a socket that does not send back, which the module does not handle yet");
	POD_STR(b, o, "state", "pair");
	POD_INT(b, o, "peer", number);
	return 0;
}

/* Options whose values have more parts, or tell with which of two structures. */
static bool has_more_options(struct sock *sk)
{
	return READ_ONCE(sk->sk_tsflags) || sock_flag(sk, SOCK_TSTAMP_NEW) ||
	       pod_tells_more(sk);
}

static int check_socket(struct pod_session *s, const struct pod_file *f,
			struct sock *sk, struct sock *peer)
{
	if (!type_name(sk))
		return pod_refuse_file(s, f, "",
				       "it is a unix socket of an unknown type (%u)",
				       sk->sk_type);
	if (sk->sk_state == TCP_LISTEN || has_name(sk) ||
	    (peer && has_name(peer)))
		return pod_refuse_file(s, f, "use --engine user",
				       "it or its other end has a name (bind, listen, accept), which the module does not handle yet");
	if (has_more_options(sk))
		return pod_refuse_file(s, f, "use --engine user",
				       "it has an option (setsockopt) that the module does not handle yet");
	if (rcu_access_pointer(sk->sk_filter))
		return pod_refuse_file(s, f, "run the program without it",
				       "a packet filter (BPF) is attached to it");
	if (pod_has_urgent(sk))
		return pod_refuse_file(s, f,
				       "try again when the program has read it",
				       "an urgent byte (MSG_OOB) waits in it");
	return 0;
}

static int put_socket(struct pod_session *s, const struct pod_file *f,
		      struct sock *sk, struct sock *peer)
{
	u8 shut = READ_ONCE(sk->sk_shutdown);
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);
	int error;

	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	POD_STR(&meta, &o, "type", type_name(sk));
	error = put_state(s, f, &meta, &o, sk, peer);
	put_options(&meta, &o, sk);
	if (shut & RCV_SHUTDOWN)
		POD_BOOL(&meta, &o, "readShutdown", true);
	if (shut & SEND_SHUTDOWN)
		POD_BOOL(&meta, &o, "writeShutdown", true);
	put_peer_ids(s, &meta, &o, sk);
	if (!error)
		error = pod_put_owner(s, &meta, &o, f);
	pod_close_map(&meta, o);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_UNIX_SOCKET, &meta, NULL,
		     0);
	return dump_queue(s, f, sk);
}

int pod_dump_unix(struct pod_session *s, const struct pod_file *f)
{
	struct sock *sk = sock_of(f->file), *peer = pod_unix_peer(sk);
	int error;

	error = check_socket(s, f, sk, peer);
	if (!error)
		error = put_socket(s, f, sk, peer);
	if (peer)
		sock_put(peer);
	return error;
}
