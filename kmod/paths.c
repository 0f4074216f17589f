// SPDX-License-Identifier: GPL-2.0
/* Names of files as the session knows them, and what else a record says of one. */
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/kdev_t.h>
#include <linux/kernel.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/string.h>
#include <linux/string_helpers.h>
#include "compat.h"
#include "session.h"

#define LONGEST_LIST (4u << 20)

/* Whether a path leads to /proc/PID of somebody else. */
static bool is_foreign(struct pod_session *s, const char *path)
{
	unsigned int pid, i;

	if (sscanf(path, "/proc/%u", &pid) != 1)
		return strncmp(path, "/proc", 5);
	for (i = 0; i < s->count; i++)
		if (s->processes[i].pid == pid)
			return false;
	return true;
}

/* What lies at a path of the process, counted from its root. */
static int look_up(struct task_struct *t, const char *name, struct path *found)
{
	struct path root;
	int error;

	get_fs_root(t->fs, &root);
	error = vfs_path_lookup(root.dentry, root.mnt, name, 0, found);
	path_put(&root);
	return error;
}

/*
 * Whether a restart will find the same at this name: something may be mounted
 * over it, or another file may have taken its place. proc makes its inodes
 * anew whenever it likes, so there only the file system is compared.
 */
static int find_again(struct task_struct *t, const struct path *path,
		      const char *name)
{
	struct super_block *super = path->dentry->d_sb;
	struct path found;
	int error = look_up(t, name, &found);

	if (error)
		return error;
	if (found.dentry->d_sb != super ||
	    (super->s_magic != PROC_SUPER_MAGIC &&
	     d_inode(found.dentry) != d_inode(path->dentry)))
		error = -ESTALE;
	path_put(&found);
	return error;
}

/*
 * The path from the root of the session's mounts; pod_collect_folder() has
 * seen to it that this is the session's root. Valid until the next call.
 */
int pod_path(struct pod_session *s, const struct path *path,
	     struct task_struct *t, const char *what, const char **name)
{
	char *found = d_path(path, s->page, PAGE_SIZE);
	int error;

	if (IS_ERR(found))
		return pod_refuse_task(s, t, PTR_ERR(found), "",
				       "the path of %s is too long", what);
	if (found[0] != '/')
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "%s (%s) has no name in the file system, which the module does not handle yet",
				       what, found);
	/* What the kernel keeps for itself (memfd) counts as linked. */
	if (d_unlinked(path->dentry) ||
	    (path->mnt->mnt_flags & MNT_INTERNAL) ||
	    (path->dentry->d_op && path->dentry->d_op->d_dname))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "%s (%s) has no name any more, which the module does not handle yet",
				       what, found);
	if (path->dentry->d_sb->s_magic == PROC_SUPER_MAGIC &&
	    is_foreign(s, found))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "close it first",
				       "%s (%s) is of a process that is not in the session",
				       what, found);
	if (!pod_is_utf8(found, strlen(found)))
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "rename the file or folder (convmv), and let the program open it again",
				       "the path of %s is not UTF-8, and an image can hold no other",
				       what);
	error = find_again(t, path, found);
	if (error == -ESTALE)
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "let the program open it again",
				       "%s (%s) is hidden by a later mount, or another file lies at its path now",
				       what, found);
	if (error)
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "it lies outside the root of the session, or its folder was moved",
				       "nothing is found at the path of %s (%s) in the session (%d)",
				       what, found, error);
	*name = found;
	return 0;
}

/* Of a process; to be freed by kvfree(). Its mounts are listed nowhere else. */
static char *read_mounts(struct task_struct *t)
{
	size_t room = 64 << 10, len = 0;
	char name[32], *text, *more;
	struct file *file;
	loff_t at = 0;
	ssize_t got;

	snprintf(name, sizeof(name), "/proc/%d/mountinfo", task_tgid_vnr(t));
	file = filp_open(name, O_RDONLY, 0);
	if (IS_ERR(file))
		return ERR_CAST(file);
	text = kvmalloc(room, GFP_KERNEL_ACCOUNT);
	for (got = text ? 1 : -ENOMEM; got > 0; len += max_t(ssize_t, got, 0)) {
		if (len + 1 == room) {
			more = room < LONGEST_LIST ?
			       kvmalloc(room * 2, GFP_KERNEL_ACCOUNT) : NULL;
			if (!more) {
				got = -ENOMEM;
				break;
			}
			memcpy(more, text, len);
			kvfree(text);
			text = more;
			room *= 2;
		}
		got = kernel_read(file, text + len, room - 1 - len, &at);
	}
	fput(file);
	if (got < 0) {
		kvfree(text);
		return ERR_PTR(got);
	}
	text[len] = 0;
	return text;
}

/* The mount at a path of the process, if the dentry lies in it. */
static struct vfsmount *mount_at(struct task_struct *t, const char *name,
				 struct dentry *dentry)
{
	struct vfsmount *mount = NULL;
	struct path found;

	if (look_up(t, name, &found))
		return NULL;
	if (found.dentry == found.mnt->mnt_root &&
	    found.dentry->d_sb == dentry->d_sb &&
	    is_subdir(dentry, found.dentry))
		mount = mntget(found.mnt);
	path_put(&found);
	return mount;
}

/* A mount of the process in which something lies. */
int pod_find_mount(struct pod_session *s, struct task_struct *t,
		   struct dentry *dentry, struct vfsmount **mount)
{
	dev_t device = dentry->d_sb->s_dev;
	char *text = read_mounts(t), *rest = text, *line, *word;
	unsigned int major, minor;
	int i;

	*mount = NULL;
	if (IS_ERR(text))
		return PTR_ERR(text);
	/* ID PARENT MAJOR:MINOR ROOT PLACE… */
	while (!*mount && (line = strsep(&rest, "\n"))) {
		if (sscanf(line, "%*u %*u %u:%u", &major, &minor) != 2 ||
		    device != MKDEV(major, minor))
			continue;
		for (i = 0, word = NULL; i < 5; i++)
			word = strsep(&line, " ");
		if (!word)
			continue;
		string_unescape_inplace(word, UNESCAPE_OCTAL);
		*mount = mount_at(t, word, dentry);
	}
	kvfree(text);
	return *mount ? 0 : -ENOENT;
}

/* id, path, flags: with what the record of every named file begins */
int pod_put_place(struct pod_session *s, struct pod_buf *b,
		  struct pod_open *o, const struct pod_file *f)
{
	const char *name;
	char what[32];
	int error;

	snprintf(what, sizeof(what), "descriptor %u", f->fd);
	error = pod_path(s, &f->file->f_path, f->task, what, &name);
	if (error)
		return error;
	POD_INT(b, o, "id", f->id);
	POD_STR(b, o, "path", name);
	POD_INT(b, o, "flags", pod_file_flags(f->file));
	return 0;
}

/* {path, size, mode, mtimeNs} */
int pod_put_file(struct pod_session *s, struct pod_buf *b,
		 const struct path *path, struct task_struct *t,
		 const char *what)
{
	struct pod_open o;
	struct kstat stat;
	const char *name;
	int error;

	error = vfs_getattr(path, &stat, STATX_BASIC_STATS,
			    AT_STATX_SYNC_AS_STAT);
	if (error)
		return pod_refuse_task(s, t, error, "",
				       "%s can't be asked (%d)", what, error);
	error = pod_path(s, path, t, what, &name);
	if (error)
		return error;
	o = pod_open(b);
	POD_STR(b, &o, "path", name);
	POD_U64(b, &o, "size", stat.size);
	POD_INT(b, &o, "mode", stat.mode);
	POD_S64(b, &o, "mtimeNs", pod_ns(&stat.mtime));
	pod_close_map(b, o);
	return 0;
}
