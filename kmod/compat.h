/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between the kernels from 5.10 on, in one place. */
#ifndef POD_COMPAT_H
#define POD_COMPAT_H

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/fsnotify_backend.h>
#include <linux/mm.h>
#include <linux/namei.h>
#include <linux/restart_block.h>
#include <linux/sched.h>
#include <linux/sched/coredump.h>
#include <linux/security.h>
#include <linux/splice.h>
#include <linux/time64.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif
#include <net/af_unix.h>
#include <net/sock.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#include <linux/filelock.h>
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
#include <linux/mm_inline.h>
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#include <asm/cpuid/api.h>
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
#include <linux/sched/exec_state.h>
#endif

#ifndef CONFIG_X86_64
#error "pod.ko is for x86_64"
#endif

static inline u64 pod_caps(const kernel_cap_t *set)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	return set->val;
#else
	return set->cap[0] | (u64)set->cap[1] << 32;
#endif
}

/* timespec64_to_ns() takes what is below zero for the end of time before 5.15. */
static inline s64 pod_ns(const struct timespec64 *time)
{
	return time->tv_sec * NSEC_PER_SEC + time->tv_nsec;
}

/*
 * When an interrupted poll(2) with a time-out ends, in ns of CLOCK_MONOTONIC.
 * The names of the two numbers at the end of its block change, not their places.
 */
static inline u64 pod_poll_end(const struct restart_block *block)
{
	const u8 *poll = (const u8 *)&block->poll;
	struct timespec64 end;
	size_t at = offsetofend(typeof(block->poll), has_timeout);

	BUILD_BUG_ON(offsetofend(typeof(block->poll), has_timeout) +
		     sizeof(end) != sizeof(block->poll));
	memcpy(&end, poll + at, sizeof(end));
	return pod_ns(&end);
}

/* The path as its users know it: overlayfs maps another file than was opened. */
static inline const struct path *pod_user_path(struct file *file)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	return file_user_path(file);
#else
	return &file->f_path;
#endif
}

/* Of a mark on an inode, in the list of its group, which is locked. */
static inline struct inode *pod_marked_inode(struct fsnotify_mark *mark)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
	return mark->connector->obj;
#else
	return container_of(mark->connector->obj, struct inode,
			    i_fsnotify_marks);
#endif
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
/* Exported, and in no header for modules. */
int vfs_path_lookup(struct dentry *dentry, struct vfsmount *mnt,
		    const char *name, unsigned int flags, struct path *path);
#endif

/*
 * Whether a task has another label of a security module (AppArmor, SELinux)
 * than who asks.
 */
static inline bool pod_has_other_label(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
	struct lsm_prop its = {}, ours = {};

	security_task_getlsmprop_obj(t, &its);
	security_task_getlsmprop_obj(current, &ours);
	return memcmp(&its, &ours, sizeof(its));
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
	u32 its = 0, ours = 0;

	security_task_getsecid_obj(t, &its);
	security_task_getsecid_obj(current, &ours);
	return its != ours;
#else
	u32 its = 0, ours = 0;

	security_task_getsecid(t, &its);
	security_task_getsecid(current, &ours);
	return its != ours;
#endif
}

static inline bool pod_has_dispatch(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
	return test_task_syscall_work(t, SYSCALL_USER_DISPATCH);
#else
	return false;
#endif
}

/* MMF_… of an address space */
static inline unsigned long pod_mm_flags(const struct mm_struct *mm)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
	return __mm_flags_get_word(mm);
#else
	return READ_ONCE(mm->flags);
#endif
}

/* PR_GET_MDWE */
static inline int pod_mdwe(const struct mm_struct *mm)
{
	int mdwe = 0;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	if (pod_mm_flags(mm) & BIT(MMF_HAS_MDWE))
		mdwe |= 1;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	if (pod_mm_flags(mm) & BIT(MMF_HAS_MDWE_NO_INHERIT))
		mdwe |= 2;
#endif
	return mdwe;
}

/* PR_GET_MEMORY_MERGE */
static inline bool pod_merges(const struct mm_struct *mm)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	return pod_mm_flags(mm) & BIT(MMF_VM_MERGE_ANY);
#else
	return false;
#endif
}

/* PR_GET_THP_DISABLE */
static inline bool pod_lacks_huge_pages(const struct mm_struct *mm)
{
#ifdef MMF_DISABLE_THP_COMPLETELY
	return pod_mm_flags(mm) & BIT(MMF_DISABLE_THP_COMPLETELY);
#else
	return pod_mm_flags(mm) & BIT(MMF_DISABLE_THP);
#endif
}

/* What PR_GET_DUMPABLE says of a program that hides nothing; its name changed. */
#define POD_DUMPABLE 1

/* PR_GET_DUMPABLE of a process that is held, and keeps its memory. */
static inline int pod_dumpable(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
	int dumpable;

	rcu_read_lock();
	dumpable = rcu_dereference(t->exec_state)->dumpable;
	rcu_read_unlock();
	return dumpable;
#else
	return pod_mm_flags(t->mm) & MMF_DUMPABLE_MASK;
#endif
}

/* Whether who asks may trace what a program of its user namespace hides. */
static inline bool pod_may_trace_hidden(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
	struct user_namespace *ns;
	bool may;

	rcu_read_lock();
	ns = get_user_ns(rcu_dereference(t->exec_state)->user_ns);
	rcu_read_unlock();
	may = ns_capable(ns, CAP_SYS_PTRACE);
	put_user_ns(ns);
	return may;
#else
	return ns_capable(t->mm->user_ns, CAP_SYS_PTRACE);
#endif
}

/* Pointers with data in their upper bits (LAM). */
static inline bool pod_has_tags(struct mm_struct *mm)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0) && \
	defined(CONFIG_ADDRESS_MASKING)
	return mm->context.lam_cr3_mask;
#else
	return false;
#endif
}

static inline struct fpu *pod_fpu(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	/* What x86_task_fpu() gives, which debugging makes a function that is not exported. */
	return (struct fpu *)(t + 1);
#else
	return &t->thread.fpu;
#endif
}

/* ARCH_GET_XCOMP_PERM of a process */
static inline u64 pod_processor_states(struct task_struct *leader)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
	return pod_fpu(leader)->perm.__state_perm;
#else
	return 0;
#endif
}

static inline struct fown_struct *pod_owner(struct file *file)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	return file_f_owner(file);
#else
	return &file->f_owner;
#endif
}

/* Options of a unix socket: SO_PASSCRED, SO_PASSPIDFD, not SO_PASSRIGHTS */
static inline bool pod_passes_ids(const struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	return sk->sk_scm_credentials;
#else
	return test_bit(SOCK_PASSCRED, &sk->sk_socket->flags);
#endif
}

static inline bool pod_passes_pidfd(const struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	return sk->sk_scm_pidfd;
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	return test_bit(SOCK_PASSPIDFD, &sk->sk_socket->flags);
#else
	return false;
#endif
}

static inline bool pod_refuses_files(const struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	return !sk->sk_scm_rights;
#else
	return false;
#endif
}

/* SO_RCVPRIORITY, SO_INQ, SO_RIGHTS_NOTRUNC */
static inline bool pod_tells_more(struct sock *sk)
{
#ifdef SO_RIGHTS_NOTRUNC
	if (READ_ONCE(unix_sk(sk)->scm_rights_notrunc))
		return true;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	if (READ_ONCE(unix_sk(sk)->recvmsg_inq))
		return true;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
	if (sock_flag(sk, SOCK_RCVPRIORITY))
		return true;
#endif
	return false;
}

static inline bool pod_passes_label(const struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	return sk->sk_scm_security;
#else
	return test_bit(SOCK_PASSSEC, &sk->sk_socket->flags);
#endif
}

/* A byte sent with MSG_OOB through a unix socket that nobody has read. */
static inline bool pod_has_urgent(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0) && \
	IS_ENABLED(CONFIG_AF_UNIX_OOB)
	return READ_ONCE(unix_sk(sk)->oob_skb);
#else
	return false;
#endif
}

/* The other end of a unix socket, held: unix_peer_get() is the kernel's own by now. */
static inline struct sock *pod_unix_peer(struct sock *sk)
{
	struct sock *peer;

	unix_state_lock(sk);
	peer = unix_sk(sk)->peer;
	if (peer)
		sock_hold(peer);
	unix_state_unlock(sk);
	return peer;
}

/*
 * What goes with a message through a unix socket: who sent it, open files, and
 * how much of it was read. Newer kernels keep its layout to themselves; nothing
 * else tells, so there it is not known, and what waits can't be dumped.
 */
struct pod_message {
	const struct pid *pid;
	kuid_t uid;
	kgid_t gid;
	u32 consumed;
	bool files;
};

static inline bool pod_knows_messages(void)
{
#ifdef UNIXCB
	return true;
#else
	return false;
#endif
}

/* Only where pod_knows_messages() */
static inline struct pod_message pod_message_of(const struct sk_buff *skb)
{
#ifdef UNIXCB
	return (struct pod_message) {
		.pid = UNIXCB(skb).pid,
		.uid = UNIXCB(skb).uid,
		.gid = UNIXCB(skb).gid,
		.consumed = UNIXCB(skb).consumed,
		.files = UNIXCB(skb).fp,
	};
#else
	return (struct pod_message) {};
#endif
}

/* Who a terminal controls, and the lock over it */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
#define pod_tty_lock(tty) (&(tty)->ctrl.lock)
#define pod_tty_session(tty) ((tty)->ctrl.session)
#define pod_tty_group(tty) ((tty)->ctrl.pgrp)
#else
#define pod_tty_lock(tty) (&(tty)->ctrl_lock)
#define pod_tty_session(tty) ((tty)->session)
#define pod_tty_group(tty) ((tty)->pgrp)
#endif

/* Areas in the order of their addresses; mmap lock held. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
#define POD_AREAS(iterator, mm) VMA_ITERATOR(iterator, mm, 0)
#define pod_for_each_area(iterator, vma, mm) for_each_vma(iterator, vma)
#else
#define POD_AREAS(iterator, mm)
#define pod_for_each_area(iterator, vma, mm) \
	for ((vma) = (mm)->mmap; (vma); (vma) = (vma)->vm_next)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
#define __VM_UFFD_FLAGS (VM_UFFD_MISSING | VM_UFFD_WP)
#endif

static inline long pod_get_pages(struct mm_struct *mm, unsigned long start,
				 unsigned long count, struct page **pages)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	return get_user_pages_remote(mm, start, count, FOLL_FORCE, pages, NULL);
#else
	return get_user_pages_remote(mm, start, count, FOLL_FORCE, pages, NULL,
				     NULL);
#endif
}

/* Name by PR_SET_VMA_ANON_NAME; mmap lock held. */
static inline const char *pod_area_name(struct vm_area_struct *vma)
{
#ifdef CONFIG_ANON_VMA_NAME
	struct anon_vma_name *name = anon_vma_name(vma);

	return name ? name->name : NULL;
#else
	return NULL;
#endif
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#define pod_splice_read copy_splice_read
#else
#define pod_splice_read generic_file_splice_read
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
#define POD_LOCK_LINK c.flc_list
#define pod_lock_file(lock) ((lock)->c.flc_file)
#define pod_lock_owner(lock) ((lock)->c.flc_owner)
typedef struct file_lease pod_lease;
#else
#define POD_LOCK_LINK fl_list
#define pod_lock_file(lock) ((lock)->fl_file)
#define pod_lock_owner(lock) ((lock)->fl_owner)
typedef struct file_lock pod_lease;
#endif

#ifdef CONFIG_RSEQ
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
#define pod_rseq(t) ((t)->rseq.usrptr)
#define pod_rseq_length(t) ((t)->rseq.len)
#define pod_rseq_signature(t) ((t)->rseq.sig)
#else
#define pod_rseq(t) ((t)->rseq)
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define pod_rseq_length(t) ((t)->rseq_len)
#else
#define pod_rseq_length(t) 32
#endif
#define pod_rseq_signature(t) ((t)->rseq_sig)
#endif
#endif

static inline struct robust_list_head __user *
pod_robust_list(struct task_struct *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
	return t->futex.robust_list;
#else
	return t->robust_list;
#endif
}

#endif
