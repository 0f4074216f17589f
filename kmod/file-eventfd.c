// SPDX-License-Identifier: GPL-2.0
/*
 * eventfd(2): a counter. Its structure is the kernel's own; the counter is
 * read where /proc/PID/fdinfo has it from. Whether it is a semaphore that
 * tells from Linux 6.5 on. Before, nothing but a read does, so what the read
 * took is put back at once: nobody of the session runs meanwhile.
 */
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/uio.h>
#include "compat.h"
#include "session.h"

bool pod_is_eventfd(struct file *file)
{
	struct eventfd_ctx *counter = eventfd_ctx_fileget(file);

	if (IS_ERR(counter))
		return false;
	eventfd_ctx_put(counter);
	return true;
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
static int read_now(struct file *file, u64 *taken)
{
	struct kvec word = { .iov_base = taken, .iov_len = sizeof(*taken) };
	struct iov_iter to;
	struct kiocb kiocb;
	ssize_t got;

	init_sync_kiocb(&kiocb, file);
	kiocb.ki_flags |= IOCB_NOWAIT;
	iov_iter_kvec(&to, READ, &word, 1, sizeof(*taken));
	got = vfs_iocb_iter_read(file, &kiocb, &to);
	return got < 0 ? got : 0;
}

static int ask_semaphore(struct file *file, u64 count, bool *semaphore)
{
	struct eventfd_ctx *counter = eventfd_ctx_fileget(file);
	/* One is taken from one either way. */
	u64 added = count < 2 ? 2 - count : 0, taken, missing;
	int error;

	if (IS_ERR(counter))
		return PTR_ERR(counter);
	if (added)
		eventfd_signal(counter, added);
	error = read_now(file, &taken);
	if (!error) {
		*semaphore = taken == 1;
		missing = *semaphore ? 1 : taken;
		if (missing > added)
			eventfd_signal(counter, missing - added);
		else if (missing < added)
			error = read_now(file, &taken);
	}
	eventfd_ctx_put(counter);
	return error;
}
#else
static int ask_semaphore(struct file *file, u64 count, bool *semaphore)
{
	return -EOPNOTSUPP;
}
#endif

int pod_dump_eventfd(struct pod_session *s, const struct pod_file *f)
{
	static const char key[] = "eventfd-semaphore:";
	char *text = pod_fdinfo(f->file);
	unsigned long long count;
	struct pod_buf meta = {};
	bool semaphore = false;
	struct pod_open o;
	const char *told;
	int error = 0;

	if (IS_ERR(text))
		return pod_refuse_file(s, f, "use --engine user",
				       "this kernel does not tell its counter");
	if (sscanf(text, "eventfd-count: %llx", &count) != 1)
		error = -EINVAL;
	told = strstr(text, key);
	if (told)
		semaphore = *skip_spaces(told + sizeof(key) - 1) == '1';
	else if (!error)
		error = ask_semaphore(f->file, count, &semaphore);
	kvfree(text);
	if (error)
		return pod_refuse_file(s, f, "use --engine user",
				       "its counter can't be read (%d)", error);
	s->needs |= POD_NEEDS_EVENTFD;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	POD_U64(&meta, &o, "count", count);
	POD_BOOL(&meta, &o, "semaphore", semaphore);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_EVENTFD, &meta, NULL, 0);
	return 0;
}
