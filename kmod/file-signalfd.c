// SPDX-License-Identifier: GPL-2.0
/* signalfd(2): the signals it waits for. What is pending is the processes'. */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include "session.h"

int pod_dump_signalfd(struct pod_session *s, const struct pod_file *f)
{
	char *text = pod_fdinfo(f->file);
	struct pod_buf meta = {};
	unsigned long long mask;
	struct pod_open o;
	bool told = false;

	if (!IS_ERR(text)) {
		told = sscanf(text, "sigmask: %llx", &mask) == 1;
		kvfree(text);
	}
	if (!told)
		return pod_refuse_file(s, f, "use --engine user",
				       "this kernel does not tell its signals");
	s->needs |= POD_NEEDS_SIGNALFD;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	POD_U64(&meta, &o, "mask", mask);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_SIGNALFD, &meta, NULL, 0);
	return 0;
}
