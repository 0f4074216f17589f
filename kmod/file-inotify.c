// SPDX-License-Identifier: GPL-2.0
/*
 * inotify(7). Numbers and masks of the watches are told by /proc/PID/fdinfo,
 * in the order in which the group lists its marks; the mark leads to the
 * inode. What has no name that leads to it is refused; so are events that
 * nobody has read.
 */
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fsnotify_backend.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/poll.h>
#include <linux/sort.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "compat.h"
#include "session.h"

/* A record's meta ends at 64 KiB. */
#define MOST_WATCHES 8192

struct watch {
	struct inode *inode;
	u32 wd, mask;
};

struct watches {
	struct watch *at;
	u32 count;
};

static void drop_watches(struct watches *watches)
{
	while (watches->count)
		iput(watches->at[--watches->count].inode);
	kvfree(watches->at);
}

static u32 count_marks(struct fsnotify_group *group)
{
	struct fsnotify_mark *mark;
	u32 count = 0;

	mutex_lock(&group->mark_mutex);
	list_for_each_entry(mark, &group->marks_list, g_list)
		count++;
	mutex_unlock(&group->mark_mutex);
	return count;
}

/* Nothing is allocated under the lock, which reclaim may want. */
static int copy_inodes(struct fsnotify_group *group, struct watches *watches)
{
	u32 room = count_marks(group);
	struct fsnotify_mark *mark;
	int error = 0;

	if (room > MOST_WATCHES)
		return -EFBIG;
	watches->at = kvcalloc(room + 1, sizeof(*watches->at),
			       GFP_KERNEL_ACCOUNT);
	if (!watches->at)
		return -ENOMEM;
	mutex_lock(&group->mark_mutex);
	list_for_each_entry(mark, &group->marks_list, g_list) {
		struct inode *inode = igrab(pod_marked_inode(mark));

		if (!inode || watches->count == room) {
			iput(inode);
			error = -EAGAIN;
			break;
		}
		watches->at[watches->count++].inode = inode;
	}
	mutex_unlock(&group->mark_mutex);
	return error;
}

/* Numbers and masks; -EAGAIN when the list is another than that of the inodes. */
static int add_numbers(struct file *file, struct watches *watches)
{
	char *text = pod_fdinfo(file), *line = text;
	unsigned int wd, device, mask;
	unsigned long long number;
	int error = 0;
	u32 i;

	if (IS_ERR(text))
		return PTR_ERR(text);
	for (i = 0; i < watches->count && !error; i++) {
		struct watch *watch = &watches->at[i];

		if (!line || sscanf(line, "inotify wd:%x ino:%llx sdev:%x mask:%x",
				    &wd, &number, &device, &mask) != 4 ||
		    number != watch->inode->i_ino ||
		    device != watch->inode->i_sb->s_dev) {
			error = -EAGAIN;
			break;
		}
		watch->wd = wd;
		watch->mask = mask;
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	if (!error && line && *line)
		error = -EAGAIN;
	kvfree(text);
	return error;
}

static int by_number(const void *a, const void *b)
{
	const struct watch *left = a, *right = b;

	return left->wd < right->wd ? -1 : left->wd > right->wd;
}

static int put_watch(struct pod_session *s, const struct pod_file *f,
		     struct pod_buf *b, const struct watch *watch)
{
	struct dentry *dentry = d_find_alias(watch->inode);
	struct path path = { .dentry = dentry };
	struct pod_open o;
	const char *name;
	char what[48];
	int error;

	error = dentry ? pod_find_mount(s, f->task, dentry, &path.mnt) :
			 -ENOENT;
	if (error) {
		dput(dentry);
		return pod_refuse_file(s, f, "use --engine user",
				       "it watches a file (inode %llu) whose path can't be told (%d)",
				       (u64)watch->inode->i_ino, error);
	}
	snprintf(what, sizeof(what), "watch %u of descriptor %u", watch->wd,
		 f->fd);
	error = pod_path(s, &path, f->task, what, &name);
	if (!error) {
		o = pod_open(b);
		POD_INT(b, &o, "wd", watch->wd);
		POD_STR(b, &o, "path", name);
		POD_INT(b, &o, "mask", watch->mask);
		pod_close_map(b, o);
	}
	path_put(&path);
	return error;
}

static int put_watches(struct pod_session *s, const struct pod_file *f,
		       const struct watches *watches)
{
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta), list;
	int error = 0;
	u32 i;

	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	pod_field(&meta, &o, "watches");
	list = pod_open(&meta);
	for (i = 0; i < watches->count && !error; i++) {
		error = put_watch(s, f, &meta, &watches->at[i]);
		list.count++;
	}
	pod_close_array(&meta, list);
	if (!error)
		error = pod_put_owner(s, &meta, &o, f);
	pod_close_map(&meta, o);
	if (!error && meta.len > POD_MAX_META)
		error = pod_refuse_file(s, f, "",
					"its %u watches are more than an image can say",
					watches->count);
	if (error)
		pod_buf_free(&meta);
	else
		pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_INOTIFY, &meta,
			     NULL, 0);
	return error;
}

int pod_dump_inotify(struct pod_session *s, const struct pod_file *f)
{
	struct watches watches = {};
	int error;

	if (vfs_poll(f->file, NULL) & EPOLLIN)
		return pod_refuse_file(s, f, "let the program read them first",
				       "file changes that it has reported wait to be read, which would be lost");
	error = copy_inodes(f->file->private_data, &watches);
	if (!error)
		error = add_numbers(f->file, &watches);
	if (error) {
		error = pod_refuse_file(s, f, "use --engine user",
					"its watches can't be told (%d)",
					error);
	} else {
		sort(watches.at, watches.count, sizeof(*watches.at), by_number,
		     NULL);
		s->needs |= POD_NEEDS_INOTIFY;
		error = put_watches(s, f, &watches);
	}
	drop_watches(&watches);
	return error;
}
