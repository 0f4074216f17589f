// SPDX-License-Identifier: GPL-2.0
/* Regular files that still have their name, and places that are open (O_PATH). */
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include "compat.h"
#include "session.h"

int pod_dump_regular(struct pod_session *s, const struct pod_file *f)
{
	struct file *file = f->file;
	struct pod_buf meta = {};
	struct pod_open o;
	struct kstat stat;
	int error;

	error = vfs_getattr(&file->f_path, &stat, STATX_BASIC_STATS,
			    AT_STATX_SYNC_AS_STAT);
	if (error)
		return pod_refuse_file(s, f, "", "it can't be asked (%d)",
				       error);
	if (file_inode(file)->i_sb->s_magic == HUGETLBFS_MAGIC)
		return pod_refuse_file(s, f,
				       "run the program without huge pages",
				       "memory from huge pages can't be saved yet");
	o = pod_open(&meta);
	error = pod_put_place(s, &meta, &o, f);
	POD_U64(&meta, &o, "position", file->f_pos);
	POD_U64(&meta, &o, "size", stat.size);
	POD_INT(&meta, &o, "mode", stat.mode);
	POD_S64(&meta, &o, "mtimeNs", pod_ns(&stat.mtime));
	if (!error && !(file->f_mode & FMODE_PATH))
		error = pod_put_owner(s, &meta, &o, f);
	pod_close_map(&meta, o);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_REGULAR, &meta, NULL, 0);
	return 0;
}
