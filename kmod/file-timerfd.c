// SPDX-License-Identifier: GPL-2.0
/*
 * timerfd_create(2). Its structure is the kernel's own, so it is told by
 * /proc/PID/fdinfo alone; and that is enough but for one state: a period that
 * has run out stands still until somebody reads, and only then counts what
 * was due meanwhile. timerfd_gettime(2), which would count without reading,
 * is not exported. So it is read, and what the read took is put back
 * (TFD_IOC_SET_TICKS); nobody of the session runs meanwhile. Both want memory
 * of a program: that of the request is used, which is written at the end of
 * the call in any case.
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/timerfd.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include "compat.h"
#include "session.h"

#define MOST_LOOKS 200

struct timer {
	int clock;
	unsigned int flags;
	u64 ticks, value, interval;
};

static int look(struct pod_session *s, struct file *file, struct timer *t)
{
	unsigned long long ticks, value[2], interval[2];
	int error, told;

	error = pod_short_fdinfo(file, s->page, PAGE_SIZE);
	if (error)
		return error;
	told = sscanf(s->page,
		      "clockid: %d ticks: %llu settime flags: 0%o it_value: (%llu, %llu) it_interval: (%llu, %llu)",
		      &t->clock, &ticks, &t->flags, &value[0], &value[1],
		      &interval[0], &interval[1]);
	if (told != 7)
		return -EOPNOTSUPP;
	t->ticks = ticks;
	t->value = value[0] * NSEC_PER_SEC + value[1];
	t->interval = interval[0] * NSEC_PER_SEC + interval[1];
	return 0;
}

/* It has run out and waits to be read. A disarmed one has no ticks. */
static bool stands(const struct timer *t)
{
	return t->ticks && t->interval && !t->value;
}

static int set_ticks(struct file *file, u64 __user *room, u64 ticks)
{
	if (put_user(ticks, room))
		return -EFAULT;
	return file->f_op->unlocked_ioctl(file, TFD_IOC_SET_TICKS,
					  (unsigned long)room);
}

static ssize_t read_ticks(struct file *file, u64 __user *room, u64 *ticks)
{
	struct kvec word = { .iov_base = ticks, .iov_len = sizeof(*ticks) };
	struct iov_iter to;
	struct kiocb kiocb;
	loff_t at = 0;
	ssize_t got;

	if (file->f_op->read) {
		got = file->f_op->read(file, (char __user *)room,
				       sizeof(*room), &at);
		return got == sizeof(*room) && get_user(*ticks, room) ?
		       -EFAULT : got;
	}
	init_sync_kiocb(&kiocb, file);
	kiocb.ki_flags |= IOCB_NOWAIT;
	iov_iter_kvec(&to, READ, &word, 1, sizeof(*ticks));
	return vfs_iocb_iter_read(file, &kiocb, &to);
}

/* Let the kernel count what was due, and set the next expiry: *now. */
static int count_up(struct pod_session *s, struct file *file,
		    struct timer *now)
{
	struct timer between;
	u64 ticks;
	int error;
	ssize_t got;

	/* Asked for none it says whether it can put them back at all. */
	if (!file->f_op->unlocked_ioctl ||
	    set_ticks(file, s->room, 0) != -EINVAL)
		return -EOPNOTSUPP;
	got = read_ticks(file, s->room, &ticks);
	if (got != sizeof(ticks))
		return got < 0 ? got : -EIO;
	error = look(s, file, &between);
	if (set_ticks(file, s->room, ticks))
		return -EIO;
	if (!error)
		error = look(s, file, now);
	/* It stands when it ran out again: did putting back undo that tick? */
	if (!error && stands(now) && now->ticks == ticks &&
	    (between.value || between.ticks))
		error = set_ticks(file, s->room, ticks + 1);
	return error;
}

/*
 * The timer at one moment, between two equal counts; *moment is the wall
 * clock's at its next expiry.
 */
static int read_timer(struct pod_session *s, struct file *file,
		      struct timer *t, u64 *moment)
{
	unsigned int looks;
	struct timer before;
	u64 start;
	int error;

	for (looks = 0; looks < MOST_LOOKS; looks++) {
		error = look(s, file, &before);
		if (error)
			return error;
		if (stands(&before)) {
			/* A read would take the news of a clock that was set. */
			if (before.flags & TFD_TIMER_CANCEL_ON_SET)
				return -ECANCELED;
			error = count_up(s, file, &before);
			if (error)
				return error;
		}
		start = ktime_get_real_ns();
		error = look(s, file, t);
		*moment = start + (ktime_get_real_ns() - start) / 2 + t->value;
		if (error || (t->ticks == before.ticks && !stands(t)))
			return error;
	}
	return -EAGAIN;
}

/* Absolute on a wall clock: the moment counts, not the rest of the time. */
static bool keeps_moment(const struct timer *t)
{
	return (t->clock == CLOCK_REALTIME ||
		t->clock == CLOCK_REALTIME_ALARM) &&
	       (t->flags & TFD_TIMER_ABSTIME);
}

int pod_dump_timerfd(struct pod_session *s, const struct pod_file *f)
{
	struct pod_buf meta = {};
	struct pod_open o;
	struct timer t;
	u64 moment;
	int error;

	error = read_timer(s, f->file, &t, &moment);
	if (error == -EAGAIN)
		return pod_refuse_file(s, f, "use --engine user",
				       "its period is too short for the module to see it at one moment");
	if (error)
		return pod_refuse_file(s, f, "use --engine user",
				       "its time can't be told (%d)", error);
	s->needs |= POD_NEEDS_TIMERFD;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", f->id);
	POD_INT(&meta, &o, "flags", pod_file_flags(f->file));
	POD_INT(&meta, &o, "clock", t.clock);
	POD_INT(&meta, &o, "settimeFlags", t.flags);
	POD_U64(&meta, &o, "ticks", t.ticks);
	POD_U64(&meta, &o, "valueNs", t.value);
	POD_U64(&meta, &o, "intervalNs", t.interval);
	if (keeps_moment(&t) && t.value)
		POD_U64(&meta, &o, "expiryNs", moment);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FILES, POD_FRAME_TIMERFD, &meta, NULL, 0);
	return 0;
}
