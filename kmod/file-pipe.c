// SPDX-License-Identifier: GPL-2.0
/*
 * Pipes and FIFOs with what is in them. The bytes are copied where they lie,
 * under the pipe's own lock; nobody of the session notices.
 */
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/pipe_fs_i.h>
#include <linux/slab.h>
#include "session.h"

static bool is_of(struct file *file, struct pipe_inode_info *pipe)
{
	return S_ISFIFO(file_inode(file)->i_mode) &&
	       !(file->f_mode & FMODE_PATH) && file->private_data == pipe;
}

/*
 * A pipe whose one end is held outside alone can't go along: its partner
 * stays behind. A FIFO has a name, by which the partner finds it again.
 */
static int check_ends(struct pod_session *s, const struct pod_file *f,
		      struct pipe_inode_info *pipe)
{
	bool reads = false, writes = false;
	u32 i;

	for (i = 0; i < s->files.count; i++) {
		struct file *file = s->files.at[i];

		if (!is_of(file, pipe))
			continue;
		if (file->f_mode & FMODE_READ)
			reads = true;
		if (file->f_mode & FMODE_WRITE)
			writes = true;
	}
	if ((reads || !pipe->readers) && (writes || !pipe->writers))
		return 0;
	return pod_refuse_file(s, f,
			       "start the session with pod-run, or redirect to a file",
			       "the other end of the pipe is held by a process outside the session");
}

static void put_content(struct pod_session *s, u32 id, const void *data,
			size_t len, bool message)
{
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);

	POD_INT(&meta, &o, "file", id);
	if (message)
		POD_BOOL(&meta, &o, "message", true);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_CONTENT, &meta, data, len);
}

/* Also when the end that wrote in packet mode is closed, or left that mode. */
static bool has_packets(const struct pipe_inode_info *pipe)
{
	unsigned int at, mask = pipe->ring_size - 1;

	for (at = pipe->tail; at != pipe->head; at++)
		if (pipe->bufs[at & mask].flags & PIPE_BUF_FLAG_PACKET)
			return true;
	return false;
}

/* The pipe is locked. */
static int put_buffers(struct pod_session *s, const struct pod_file *f, u32 id,
		       struct pipe_inode_info *pipe, bool packets)
{
	unsigned int at, mask = pipe->ring_size - 1;
	size_t len = 0;
	u8 *copy;
	int error = 0;

	copy = kvmalloc(POD_MAX_DATA, GFP_KERNEL_ACCOUNT);
	if (!copy)
		return -ENOMEM;
	for (at = pipe->tail; at != pipe->head; at++) {
		struct pipe_buffer *buffer = &pipe->bufs[at & mask];

		if (!buffer->len)
			continue;
		error = pipe_buf_confirm(pipe, buffer);
		if (error) {
			error = pod_refuse_file(s, f, "",
						"what is in the pipe can't be read (%d)",
						error);
			break;
		}
		/* A splice may have put more than a page into one buffer. */
		if (buffer->offset + buffer->len > PAGE_SIZE) {
			error = pod_refuse_file(s, f, "use --engine user",
						"a splice into the pipe is under way");
			break;
		}
		if (len && (packets || len + buffer->len > POD_MAX_DATA)) {
			put_content(s, id, copy, len, packets);
			len = 0;
		}
		memcpy(copy + len, page_address(buffer->page) + buffer->offset,
		       buffer->len);
		len += buffer->len;
	}
	if (len && !error)
		put_content(s, id, copy, len, packets);
	kvfree(copy);
	return error;
}

static int put_pipe(struct pod_session *s, const struct pod_file *f, u32 id,
		    struct pipe_inode_info *pipe)
{
	bool named = file_inode(f->file)->i_sb->s_magic != PIPEFS_MAGIC;
	struct pod_buf meta = {};
	struct pod_open o;
	const char *name;
	char what[32];
	int error;

	if (named) {
		snprintf(what, sizeof(what), "descriptor %u", f->fd);
		error = pod_path(s, &f->file->f_path, f->task, what, &name);
	} else {
		error = check_ends(s, f, pipe);
	}
	if (error)
		return error;
	if (mutex_lock_killable(&pipe->mutex))
		return -EINTR;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", id);
	POD_INT(&meta, &o, "capacity", pipe->max_usage << PAGE_SHIFT);
	if (named)
		POD_STR(&meta, &o, "path", name);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_PIPE, &meta, NULL, 0);
	error = put_buffers(s, f, id, pipe, has_packets(pipe));
	mutex_unlock(&pipe->mutex);
	return error;
}

int pod_dump_pipe(struct pod_session *s, const struct pod_file *f)
{
	struct pipe_inode_info *pipe = f->file->private_data;
	struct pod_buf meta = {};
	struct pod_open o;
	bool first;
	u32 number;
	int error;

#ifdef CONFIG_WATCH_QUEUE
	if (pipe->watch_queue)
		return pod_refuse_file(s, f, "",
				       "the kernel sends notifications through it, which can't be saved");
#endif
	error = pod_number_of(&s->pipes, pipe, &number, &first);
	if (error)
		return error;
	/* Behind the numbers of the files. */
	number += s->next_file;
	if (first) {
		error = put_pipe(s, f, number, pipe);
		if (error)
			return error;
	}
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "pipe", number);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	error = pod_put_owner(s, &meta, &o, f);
	pod_close_map(&meta, o);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_PIPE_END, &meta, NULL, 0);
	return 0;
}
