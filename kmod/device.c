// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/pod: a file of it is one session that is dumped, or who makes one again
 * (processor-time.c). POD_IOC_DUMP stops
 * the session and learns all but its memory; read() and splice() then give
 * the stream. Whatever happens to whoever has it open: when the last
 * descriptor is closed, the session goes on.
 */
#include <linux/fs.h>
#include <linux/file.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pid_namespace.h>
#include <linux/poll.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include "compat.h"
#include "session.h"

#define EXIT_OTHER 1
#define EXIT_CANNOT_CHECKPOINT 11

int pod_refuse(struct pod_session *s, int error, const char *hint,
	       const char *format, ...)
{
	va_list arguments;

	if (s->why[0])
		return error;
	va_start(arguments, format);
	vscnprintf(s->why, sizeof(s->why), format, arguments);
	va_end(arguments);
	strscpy(s->hint, hint, sizeof(s->hint));
	return error;
}

int pod_refuse_task(struct pod_session *s, struct task_struct *t, int error,
		    const char *hint, const char *format, ...)
{
	char comm[TASK_COMM_LEN];
	va_list arguments;
	char *why;

	/* Reasons name paths, which may be long. */
	why = kmalloc(sizeof(s->why), GFP_KERNEL);
	if (!why)
		return error;
	va_start(arguments, format);
	vscnprintf(why, sizeof(s->why), format, arguments);
	va_end(arguments);
	get_task_comm(comm, t->group_leader);
	error = pod_refuse(s, error, hint, "%s (pid %d), %s", comm,
			   task_tgid_vnr(t), why);
	kfree(why);
	return error;
}

void pod_frame_to(struct pod_session *s, enum pod_section section, u8 kind,
		  struct pod_buf *meta, const void *data, size_t len)
{
	pod_frame(&s->sections[section], kind, POD_CRITICAL, meta, data, len);
	pod_buf_free(meta);
}

int pod_number_of(struct pod_shared *shared, void *thing, u32 *number,
		  bool *first)
{
	void **more;
	u32 i, room;

	*first = false;
	for (i = 0; i < shared->count; i++) {
		if (shared->at[i] == thing) {
			*number = i;
			return 0;
		}
	}
	if (shared->count == shared->room) {
		room = shared->room * 2 + 32;
		more = kvmalloc_array(room, sizeof(*more), GFP_KERNEL_ACCOUNT);
		if (!more)
			return -ENOMEM;
		if (shared->count)
			memcpy(more, shared->at, shared->count * sizeof(*more));
		kvfree(shared->at);
		shared->at = more;
		shared->room = room;
	}
	*first = true;
	*number = shared->count;
	shared->at[shared->count++] = thing;
	return 0;
}

static void drop_shared(struct pod_shared *shared)
{
	kvfree(shared->at);
	memset(shared, 0, sizeof(*shared));
}

/* All that was learned; the session may go on already. */
static void drop_collected(struct pod_session *s)
{
	u32 i;

	pod_drop_pages(s);
	pod_drop_sets(s);
	kvfree(s->places);
	s->places = NULL;
	s->place_count = 0;
	for (i = 0; i < s->segment_files.count; i++)
		fput(s->segment_files.at[i]);
	for (i = 0; i < s->mms.count; i++)
		mmput(s->mms.at[i]);
	drop_shared(&s->mms);
	drop_shared(&s->tables);
	drop_shared(&s->folders);
	drop_shared(&s->handlers);
	drop_shared(&s->files);
	drop_shared(&s->pipes);
	drop_shared(&s->terminals);
	drop_shared(&s->segments);
	drop_shared(&s->segment_files);
	for (i = 0; i < POD_SECTIONS; i++)
		pod_buf_free(&s->sections[i]);
	pod_buf_free(&s->head);
	kvfree(s->areas);
	s->areas = NULL;
	s->area_count = 0;
	s->area_room = 0;
	kvfree(s->copy);
	s->copy = NULL;
}

static void drop_processes(struct pod_session *s)
{
	while (s->count)
		put_task_struct(s->processes[--s->count].leader);
	kvfree(s->processes);
	s->processes = NULL;
}

/* Put an ERROR into b, as the next frame. */
static void put_error(struct pod_session *s, struct pod_buf *b, int error)
{
	struct pod_buf meta = {}, frame = {};
	struct pod_open o = pod_open(&meta);
	bool cannot = error != -ENOMEM && error != -EINTR && error != -EIO;

	if (!s->why[0])
		scnprintf(s->why, sizeof(s->why), "the dump failed (errno %d)",
			  -error);
	POD_STR(&meta, &o, "stage", "pod.ko");
	POD_INT(&meta, &o, "code",
		cannot ? EXIT_CANNOT_CHECKPOINT : EXIT_OTHER);
	POD_STR(&meta, &o, "message", s->why);
	POD_STR(&meta, &o, "hint", s->hint);
	pod_close_map(&meta, o);
	pod_frame(&frame, POD_FRAME_ERROR, POD_CRITICAL, &meta, NULL, 0);
	pod_number(&s->tally, &frame);
	if (!frame.error)
		pod_put(b, frame.at, frame.len);
	pod_buf_free(&meta);
	pod_buf_free(&frame);
}

/* Everything but memory, of the stopped session. */
static int collect(struct pod_session *s)
{
	u32 i;
	int error;

	error = pod_list_processes(s);
	if (!error)
		error = pod_check_tasks(s);
	if (error)
		return error;
	for (i = 0; i < s->count && !error; i++)
		if (!s->processes[i].zombie)
			error = pod_collect_folder(s, &s->processes[i]);
	if (!error)
		error = pod_collect_files(s);
	for (i = 0; i < s->count && !error; i++) {
		if (s->processes[i].zombie)
			continue;
		error = pod_collect_memory(s, &s->processes[i]);
		if (!error)
			error = pod_collect_handlers(s, &s->processes[i]);
	}
	if (!error)
		error = pod_collect_tasks(s);
	if (!error)
		error = pod_collect_tree(s);
	for (i = 0; i < POD_SECTIONS && !error; i++)
		error = s->sections[i].error;
	return error;
}

static int number_all(struct pod_session *s)
{
	struct pod_buf *first = &s->sections[POD_SECTION_FIRST];
	/* The preamble is no frame. */
	struct pod_buf frames = {
		.at = first->at + POD_HEADER,
		.len = first->len - POD_HEADER,
	};
	u32 i;

	pod_number(&s->tally, &frames);
	for (i = POD_SECTION_FIRST + 1; i < POD_SECTIONS; i++)
		pod_number(&s->tally, &s->sections[i]);
	return 0;
}

/* The stream is ready to be read. */
static void finish_records(struct pod_session *s)
{
	number_all(s);
	s->state = POD_READY;
	wake_up_interruptible(&s->ready);
}

/* The session goes on, and the stream is an ERROR. */
static int fail(struct pod_session *s, int error)
{
	pod_thaw(s);
	drop_collected(s);
	pod_preamble(&s->tally, &s->sections[POD_SECTION_FIRST]);
	put_error(s, &s->sections[POD_SECTION_FIRST], error);
	s->ended = true;
	s->failed = true;
	s->state = POD_FAILED;
	wake_up_interruptible(&s->ready);
	return error;
}

static int dump(struct pod_session *s)
{
	struct pod_stop *stop;
	int error;

	error = pod_find_root(s);
	if (!error)
		error = pod_freeze(s);
	if (!error)
		error = collect(s);
	if (error)
		return fail(s, error);
	s->ask.processes = s->count;
	s->ask.threads = 0;
	list_for_each_entry(stop, &s->stops, link)
		s->ask.threads++;
	/* What is still needed is held: from here on it may be killed. */
	pod_order_all(s, POD_WAIT);
	if (s->set_count)
		s->state = POD_ASKING;
	else
		finish_records(s);
	return 0;
}

static long compare(struct pod_session *s, struct pod_compare __user *to)
{
	struct pod_compare ask;
	bool first;
	int error;

	if (s->state == POD_NEW || s->state == POD_FAILED)
		return -EINVAL;
	if (copy_from_user(&ask, to, sizeof(ask)))
		return -EFAULT;
	if (ask.size != sizeof(ask) || ask.answer > POD_OTHER)
		return -EINVAL;
	if (s->state == POD_READY)
		return -ENODATA;
	/* Who asks for the first time has no answer yet, and who has one was asked. */
	first = ask.answer == POD_NO_ANSWER;
	if (first == s->asking)
		return -EINVAL;
	error = pod_next_question(s, &ask);
	s->asking = !error;
	if (error == -ENODATA)
		finish_records(s);
	else if (error)
		return fail(s, error);
	else if (copy_to_user(to, &ask, sizeof(ask)))
		return -EFAULT;
	return error;
}

static int read_request(struct pod_session *s, struct pod_dump __user *from)
{
	struct pod_dump *ask = &s->ask;

	if (copy_from_user(ask, from, sizeof(*ask)))
		return -EFAULT;
	ask->name[POD_NAME_MAX] = 0;
	ask->producer[POD_NAME_MAX] = 0;
	if (ask->size != sizeof(*ask) || (ask->flags & ~POD_FLAGS) ||
	    ask->kind < POD_PROCESS || ask->kind > POD_NAMESPACE ||
	    ask->pid <= 0 || ask->reserved ||
	    !pod_is_utf8(ask->name, strlen(ask->name)) ||
	    strspn(ask->image_id, "0123456789abcdef") < POD_IMAGE_ID)
		return -EINVAL;
	ask->features[POD_FEATURES_MAX - 1] = 0;
	ask->memory = 0;
	return 0;
}

static long start(struct pod_session *s, struct pod_dump __user *ask)
{
	int error;

	if (s->state != POD_NEW)
		return -EBUSY;
	error = read_request(s, ask);
	s->room = (u64 __user *)ask;
	if (!error)
		error = dump(s);
	s->room = NULL;
	if (!error && copy_to_user(ask, &s->ask, sizeof(s->ask)))
		error = -EFAULT;
	return error;
}

/* Whether the stream was read to its END. */
static long check(struct pod_session *s)
{
	if (s->state == POD_NEW)
		return -EINVAL;
	if (s->failed)
		return -EIO;
	return s->ended && s->section == POD_SECTIONS &&
	       s->head_at == s->head.len ? 0 : -EAGAIN;
}

/* All get their signal before the first of them goes: nobody sees another's end. */
static long kill_all(struct pod_session *s)
{
	u32 i;

	if (s->state != POD_READY || s->released)
		return -EINVAL;
	/* What nobody has read would be lost. */
	if (check(s))
		return check(s);
	for (i = 0; i < s->count; i++)
		if (!s->processes[i].zombie)
			send_sig(SIGKILL, s->processes[i].leader, 1);
	return 0;
}

static long pod_ioctl(struct file *file, unsigned int command,
		      unsigned long argument)
{
	struct pod_session *s = file->private_data;
	long result;

	/* Of a task, not of a dump. */
	if (command == POD_IOC_SET_TIMES)
		return pod_set_times((const struct pod_times __user *)argument);
	if (mutex_lock_killable(&s->lock))
		return -EINTR;
	switch (command) {
	case POD_IOC_DUMP:
		result = start(s, (struct pod_dump __user *)argument);
		break;
	case POD_IOC_THAW:
		if (s->state == POD_NEW) {
			result = -EINVAL;
			break;
		}
		pod_thaw(s);
		s->released = true;
		result = 0;
		break;
	case POD_IOC_CHECK:
		result = check(s);
		break;
	case POD_IOC_KILL:
		result = kill_all(s);
		break;
	case POD_IOC_COMPARE:
		result = compare(s, (struct pod_compare __user *)argument);
		break;
	default:
		result = -ENOTTY;
	}
	mutex_unlock(&s->lock);
	return result;
}

/* How a stream ends: by END when nobody was lost meanwhile. */
static void finish(struct pod_session *s, int error)
{
	struct pod_stop *killed = pod_killed(s);

	if (!error && killed)
		error = pod_refuse_task(s, killed->task, -EOWNERDEAD, "",
					"it was killed while its image was written");
	if (!error && s->released)
		error = pod_refuse(s, -ECANCELED, "",
				   "the session was let go on while its image was written");
	s->head.len = 0;
	s->head_at = 0;
	if (!error)
		pod_end(&s->tally, &s->head);
	else
		put_error(s, &s->head, error);
	s->failed = error || s->head.error;
	s->body_count = 0;
	s->body_at = 0;
	s->trailer_at = POD_TRAILER;
	s->ended = true;
}

struct piece {
	const void *at;
	size_t len;
};

/* What is to be read next; false at the end of the stream. */
static bool next_piece(struct pod_session *s, struct piece *piece)
{
	int got;

	for (;;) {
		for (; s->section < POD_SECTIONS; s->section++) {
			struct pod_buf *b = &s->sections[s->section];

			if (s->section_at < b->len) {
				piece->at = b->at + s->section_at;
				piece->len = b->len - s->section_at;
				return true;
			}
			s->section_at = 0;
			pod_buf_free(b);
		}
		if (s->head_at < s->head.len) {
			piece->at = s->head.at + s->head_at;
			piece->len = s->head.len - s->head_at;
			return true;
		}
		if (s->body_at < s->body_count) {
			piece->at = s->body[s->body_at] + s->body_off;
			piece->len = PAGE_SIZE - s->body_off;
			return true;
		}
		if (s->trailer_at < POD_TRAILER) {
			piece->at = s->trailer + s->trailer_at;
			piece->len = POD_TRAILER - s->trailer_at;
			return true;
		}
		if (s->ended)
			return false;
		/* Memory of a session that runs on is not that of its records. */
		got = s->released ? 0 : pod_read_pages(s);
		if (got <= 0)
			finish(s, got);
	}
}

static void advance(struct pod_session *s, size_t len)
{
	if (s->section < POD_SECTIONS) {
		s->section_at += len;
	} else if (s->head_at < s->head.len) {
		s->head_at += len;
	} else if (s->body_at < s->body_count) {
		s->body_off += len;
		if (s->body_off == PAGE_SIZE) {
			s->body_at++;
			s->body_off = 0;
		}
	} else {
		s->trailer_at += len;
	}
}

/*
 * Bytes are copied also into pipes (splice): their pages are the session's,
 * which may go on before they are read.
 */
static ssize_t pod_read_iter(struct kiocb *kiocb, struct iov_iter *to)
{
	struct pod_session *s = kiocb->ki_filp->private_data;
	struct piece piece;
	ssize_t total = 0;
	size_t len, done;

	if (mutex_lock_interruptible(&s->lock))
		return -ERESTARTSYS;
	if (s->state == POD_ASKING) {
		pod_refuse(s, -EOPNOTSUPP, "use pod-dump, or POD_IOC_COMPARE",
			   "which files its epoll sets watch was not told");
		fail(s, -EOPNOTSUPP);
	}
	if (s->state == POD_NEW)
		total = -EINVAL;
	while (total >= 0 && iov_iter_count(to)) {
		if (signal_pending(current)) {
			total = total ?: -ERESTARTSYS;
			break;
		}
		if (!next_piece(s, &piece))
			break;
		len = min(piece.len, iov_iter_count(to));
		done = copy_to_iter(piece.at, len, to);
		advance(s, done);
		total += done;
		if (done < len) {
			total = total ?: -EFAULT;
			break;
		}
		cond_resched();
	}
	mutex_unlock(&s->lock);
	return total;
}

static __poll_t pod_poll(struct file *file, poll_table *wait)
{
	struct pod_session *s = file->private_data;

	poll_wait(file, &s->ready, wait);
	return READ_ONCE(s->state) < POD_READY ? 0 : EPOLLIN | EPOLLRDNORM;
}

static int pod_open_device(struct inode *inode, struct file *file)
{
	struct pod_session *s = kvzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);

	if (!s)
		return -ENOMEM;
	s->page = (char *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!s->page) {
		kvfree(s);
		return -ENOMEM;
	}
	mutex_init(&s->lock);
	init_waitqueue_head(&s->ready);
	INIT_LIST_HEAD(&s->stops);
	s->trailer_at = POD_TRAILER;
	file->private_data = s;
	return stream_open(inode, file);
}

static int pod_release(struct inode *inode, struct file *file)
{
	struct pod_session *s = file->private_data;

	pod_thaw(s);
	drop_collected(s);
	drop_processes(s);
	if (s->root)
		put_task_struct(s->root);
	if (s->ns)
		put_pid_ns(s->ns);
	free_page((unsigned long)s->page);
	kvfree(s);
	return 0;
}

static const struct file_operations pod_operations = {
	.owner = THIS_MODULE,
	.open = pod_open_device,
	.release = pod_release,
	.read_iter = pod_read_iter,
	.splice_read = pod_splice_read,
	.poll = pod_poll,
	.unlocked_ioctl = pod_ioctl,
};

static struct miscdevice pod_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pod",
	.fops = &pod_operations,
	.mode = 0600,
};

static int __init pod_init(void)
{
	int error;

	pod_crc_begin();
	error = misc_register(&pod_device);
	if (error)
		pod_crc_end();
	return error;
}

static void __exit pod_exit(void)
{
	misc_deregister(&pod_device);
	pod_wait_for_callbacks();
	pod_crc_end();
}

module_init(pod_init);
module_exit(pod_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Sessions as streams: /dev/pod of podstream");
MODULE_VERSION("0.1.0");
