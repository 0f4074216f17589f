// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel itself tells of an open file in /proc/PID/fdinfo: of objects
 * whose structures are its own this is all there is to know.
 */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "session.h"

/* A watch of a file takes some hundred bytes. */
#define LONGEST (16u << 20)

/* What is known to be short, without a wait for memory. */
int pod_short_fdinfo(struct file *file, char *text, size_t room)
{
	struct seq_file to = { .buf = text, .size = room };

	if (!file->f_op->show_fdinfo)
		return -EOPNOTSUPP;
	file->f_op->show_fdinfo(&to, file);
	if (seq_has_overflowed(&to))
		return -E2BIG;
	text[to.count] = 0;
	return 0;
}

/* To be freed by kvfree(). */
char *pod_fdinfo(struct file *file)
{
	size_t room;
	char *text;
	int error;

	for (room = PAGE_SIZE; room <= LONGEST; room *= 4) {
		text = kvmalloc(room, GFP_KERNEL_ACCOUNT);
		if (!text)
			return ERR_PTR(-ENOMEM);
		error = pod_short_fdinfo(file, text, room);
		if (!error)
			return text;
		kvfree(text);
		if (error != -E2BIG)
			return ERR_PTR(error);
	}
	return ERR_PTR(-EFBIG);
}

/* Whether it is what anon_inode_getfile() made under this name. */
bool pod_is_anonymous(struct file *file, const char *name)
{
	struct dentry *dentry = file->f_path.dentry;

	return dentry->d_sb->s_magic == ANON_INODE_FS_MAGIC &&
	       !strcmp(dentry->d_name.name, name);
}
