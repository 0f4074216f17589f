// SPDX-License-Identifier: GPL-2.0
/* Open directories. */
#include <linux/fs.h>
#include "session.h"

int pod_dump_directory(struct pod_session *s, const struct pod_file *f)
{
	struct pod_buf meta = {};
	struct pod_open o;
	const char *name;
	char what[32];
	int error;

	if (pod_has_owner(f->file))
		return pod_refuse_file(s, f, "let the program use inotify",
				       "it may have asked for signals at changes (F_NOTIFY), which nobody can tell");
	snprintf(what, sizeof(what), "descriptor %u", f->fd);
	error = pod_path(s, &f->file->f_path, f->task, what, &name);
	if (error)
		return error;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", f->id);
	POD_STR(&meta, &o, "path", name);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	POD_U64(&meta, &o, "position", f->file->f_pos);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_DIRECTORY, &meta, NULL, 0);
	return 0;
}
