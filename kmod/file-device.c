// SPDX-License-Identifier: GPL-2.0
/* Character devices without state of their own: null(4), full(4), random(4). */
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/major.h>
#include "session.h"

static bool is_stateless(dev_t device)
{
	if (MAJOR(device) != MEM_MAJOR)
		return false;
	switch (MINOR(device)) {
	case 3: /* null */
	case 5: /* zero */
	case 7: /* full */
	case 8: /* random */
	case 9: /* urandom */
		return true;
	}
	return false;
}

int pod_dump_device(struct pod_session *s, const struct pod_file *f)
{
	struct inode *inode = file_inode(f->file);
	struct pod_buf meta = {};
	struct pod_open o;
	int error;

	if (!S_ISCHR(inode->i_mode) || !is_stateless(inode->i_rdev))
		return pod_refuse_file(s, f, "use --engine user",
				       "the module does not handle this device (%u:%u)",
				       MAJOR(inode->i_rdev),
				       MINOR(inode->i_rdev));
	if (f->file->f_flags & FASYNC)
		return pod_refuse_file(s, f,
				       "let the program poll it instead",
				       "it sends signals at input (O_ASYNC), which a device can't take along");
	o = pod_open(&meta);
	error = pod_put_place(s, &meta, &o, f);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	POD_U64(&meta, &o, "rdev", new_encode_dev(inode->i_rdev));
	POD_U64(&meta, &o, "position", f->file->f_pos);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_DEVICE, &meta, NULL, 0);
	return 0;
}
