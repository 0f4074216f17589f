// SPDX-License-Identifier: GPL-2.0
/*
 * Terminals whose other side is outside: the console of a pod, or the
 * terminal a plain process was started from. A restart gives the session its
 * new console instead, set up as this one was. Pseudo-terminals with their
 * master in the session are refused (file-device.c: the master is).
 */
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/major.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/tty.h>
#include "compat.h"
#include "session.h"

#define DEV_TTY MKDEV(TTYAUX_MAJOR, 0)
#define DEV_CONSOLE MKDEV(TTYAUX_MAJOR, 1)

/* Their files are all the terminal layer's own. */
bool pod_is_terminal(struct file *file)
{
	struct inode *inode = file_inode(file);
	unsigned int major = MAJOR(inode->i_rdev);

	if (!S_ISCHR(inode->i_mode) || (file->f_mode & FMODE_PATH))
		return false;
	return inode->i_rdev == DEV_TTY || inode->i_rdev == DEV_CONSOLE ||
	       major == TTY_MAJOR ||
	       (major >= UNIX98_PTY_SLAVE_MAJOR &&
		major < UNIX98_PTY_SLAVE_MAJOR + UNIX98_PTY_MAJOR_COUNT);
}

static struct tty_struct *tty_of(struct file *file)
{
	return ((struct tty_file_private *)file->private_data)->tty;
}

static bool has_locks(struct tty_struct *tty)
{
	bool locks;

	down_read(&tty->termios_rwsem);
	locks = memchr_inv(&tty->termios_locked, 0,
			   offsetof(struct ktermios, c_ispeed));
	up_read(&tty->termios_rwsem);
	return locks;
}

static void put_settings(struct pod_buf *b, struct pod_open *o,
			 struct tty_struct *tty)
{
	struct ktermios settings;
	struct winsize size;

	/* What TCGETS2 copies out. */
	BUILD_BUG_ON(sizeof(settings) != 44);
	down_read(&tty->termios_rwsem);
	settings = tty->termios;
	up_read(&tty->termios_rwsem);
	mutex_lock(&tty->winsize_mutex);
	size = tty->winsize;
	mutex_unlock(&tty->winsize_mutex);
	POD_BIN(b, o, "termios", &settings, sizeof(settings));
	POD_INT(b, o, "rows", size.ws_row);
	POD_INT(b, o, "columns", size.ws_col);
}

/* The session it controls and the group in its foreground, if they are ours. */
static void put_control(struct pod_session *s, struct pod_buf *b,
			struct pod_open *o, struct tty_struct *tty)
{
	struct pid *session, *group;
	unsigned long flags;
	pid_t leader, number;

	spin_lock_irqsave(pod_tty_lock(tty), flags);
	session = get_pid(pod_tty_session(tty));
	group = get_pid(pod_tty_group(tty));
	spin_unlock_irqrestore(pod_tty_lock(tty), flags);
	leader = pod_inner_pid(s, session);
	if (leader) {
		POD_INT(b, o, "session", leader);
		number = group && !pod_is_outside(s, group) ?
			 pid_nr_ns(group, s->ns) : 0;
		if (number > 0)
			POD_INT(b, o, "foreground", number);
	}
	put_pid(session);
	put_pid(group);
}

int pod_dump_terminal(struct pod_session *s, const struct pod_file *f)
{
	bool controlling = file_inode(f->file)->i_rdev == DEV_TTY;
	struct tty_struct *tty = tty_of(f->file);
	__poll_t state = vfs_poll(f->file, NULL);
	struct pod_buf meta = {};
	struct pod_open o;
	char *path;
	bool first;
	u32 number;
	int error;

	if (state & EPOLLHUP)
		return pod_refuse_file(s, f,
				       "the program would be ended by its next read",
				       "its terminal was closed");
	if (state & EPOLLIN)
		return pod_refuse_file(s, f, "try again, or use --engine user",
				       "what was typed is not read yet");
	if (has_locks(tty))
		return pod_refuse_file(s, f, "use --engine user",
				       "its settings are locked (TIOCSLCKTRMIOS), which would be lost");
	error = pod_number_of(&s->terminals, tty, &number, &first);
	if (error)
		return error;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	POD_INT(&meta, &o, "tty", number);
	POD_STR(&meta, &o, "role", controlling ? "controlling" : "outside");
	put_settings(&meta, &o, tty);
	if (test_bit(TTY_EXCLUSIVE, &tty->flags))
		POD_BOOL(&meta, &o, "exclusive", true);
	path = d_path(&f->file->f_path, s->page, PAGE_SIZE);
	if (!IS_ERR(path))
		POD_STR(&meta, &o, "path", path);
	put_control(s, &meta, &o, tty);
	error = pod_put_owner(s, &meta, &o, f);
	pod_close_map(&meta, o);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_TERMINAL, &meta, NULL, 0);
	return 0;
}

/* A terminal that nobody has open, but that signals the session all the same. */
int pod_check_terminal(struct pod_session *s, struct task_struct *t)
{
	struct signal_struct *signal = t->signal;
	void *tty = READ_ONCE(signal->tty);
	u32 i;

	if (!tty || pod_is_outside(s, signal->pids[PIDTYPE_SID]))
		return 0;
	for (i = 0; i < s->terminals.count; i++)
		if (s->terminals.at[i] == tty)
			return 0;
	return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
			       "it has a controlling terminal that it has not open, which the module does not handle yet");
}
