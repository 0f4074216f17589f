// SPDX-License-Identifier: GPL-2.0
/* Open directories. */
#include <linux/fs.h>
#include "session.h"

int pod_dump_directory(struct pod_session *s, const struct pod_file *f)
{
	struct pod_buf meta = {};
	struct pod_open o;
	int error;

	if (pod_has_owner(f->file))
		return pod_refuse_file(s, f, "let the program use inotify",
				       "it may have asked for signals at changes (F_NOTIFY), which nobody can tell");
	o = pod_open(&meta);
	error = pod_put_place(s, &meta, &o, f);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	POD_U64(&meta, &o, "position", f->file->f_pos);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_DIRECTORY, &meta, NULL, 0);
	return 0;
}
