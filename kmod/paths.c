// SPDX-License-Identifier: GPL-2.0
/* Names of files as the session knows them, and what else a record says of one. */
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/kernel.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/stat.h>
#include "compat.h"
#include "session.h"

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

/*
 * Whether a restart will find the same at this name: something may be mounted
 * over it, or another file may have taken its place. proc makes its inodes
 * anew whenever it likes, so there only the file system is compared.
 */
static int find_again(struct task_struct *t, const struct path *path,
		      const char *name)
{
	struct super_block *super = path->dentry->d_sb;
	struct path root, found;
	int error;

	get_fs_root(t->fs, &root);
	error = vfs_path_lookup(root.dentry, root.mnt, name, 0, &found);
	path_put(&root);
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
