// SPDX-License-Identifier: GPL-2.0
/*
 * Timers of a process: setitimer(2), timer_create(2). Their rest is told as
 * the program would be told it, and nothing of them is touched: a periodic
 * timer whose signal still waits is wound up by the one who takes it.
 */
#include <linux/hrtimer.h>
#include <linux/sched.h>
/* Before 5.11 it wants the former. */
#include <linux/posix-timers.h>
#include <linux/sched/cputime.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include "compat.h"
#include "session.h"

#ifdef CONFIG_POSIX_TIMERS

#define MOST_TIMERS 4096

/* Of a held task, which keeps it. */
static struct sighand_struct *sighand_of(struct task_struct *t)
{
	return rcu_dereference_protected(t->sighand, true);
}

static void put_interval(struct pod_buf *b, struct pod_open *list, int which,
			 u64 left, u64 every)
{
	struct pod_open timer;

	if (!left && !every)
		return;
	timer = pod_open(b);
	POD_INT(b, &timer, "which", which);
	POD_U64(b, &timer, "valueNs", left);
	POD_U64(b, &timer, "intervalNs", every);
	pod_close_map(b, timer);
	list->count++;
}

/* In whole microseconds, as getitimer(2) tells them. */
static u64 whole(s64 ns)
{
	return div_s64(ns, NSEC_PER_USEC) * NSEC_PER_USEC;
}

/* ITIMER_VIRTUAL and ITIMER_PROF; the time used is counted while one is armed. */
static u64 rest_of(const struct cpu_itimer *timer, u64 used)
{
	if (!timer->expires)
		return 0;
	return whole(timer->expires > used ? timer->expires - used : TICK_NSEC);
}

static void put_intervals(struct pod_buf *b, struct pod_open *o,
			  struct task_struct *t)
{
	struct signal_struct *signal = t->signal;
	struct task_cputime_atomic *used = &signal->cputimer.cputime_atomic;
	u64 left[3] = {}, every[3];
	struct pod_open list;
	u64 user, system;
	int i;

	user = atomic64_read(&used->utime);
	system = atomic64_read(&used->stime);
	spin_lock_irq(&sighand_of(t)->siglock);
	if (hrtimer_active(&signal->real_timer))
		left[0] = whole(max_t(s64, NSEC_PER_USEC,
				      hrtimer_get_remaining(&signal->real_timer)));
	left[1] = rest_of(&signal->it[CPUCLOCK_VIRT], user);
	left[2] = rest_of(&signal->it[CPUCLOCK_PROF], user + system);
	every[0] = whole(signal->it_real_incr);
	every[1] = whole(signal->it[CPUCLOCK_VIRT].incr);
	every[2] = whole(signal->it[CPUCLOCK_PROF].incr);
	spin_unlock_irq(&sighand_of(t)->siglock);
	if (!memchr_inv(left, 0, sizeof(left)) &&
	    !memchr_inv(every, 0, sizeof(every)))
		return;
	pod_field(b, o, "itimers");
	list = pod_open(b);
	for (i = 0; i < ARRAY_SIZE(left); i++)
		put_interval(b, &list, i, left[i], every[i]);
	pod_close_array(b, list);
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define for_each_timer(timer, signal) \
	hlist_for_each_entry(timer, &(signal)->posix_timers, list)
#else
#define for_each_timer(timer, signal) \
	list_for_each_entry(timer, &(signal)->posix_timers, list)
#endif

/*
 * The timers, by their ids: they are made again in this order. Nobody deletes
 * one while all threads of its process are held.
 */
static int list_timers(struct task_struct *t, struct k_itimer **timers)
{
	struct k_itimer *timer;
	int count = 0;

	spin_lock_irq(&sighand_of(t)->siglock);
	for_each_timer(timer, t->signal) {
		if (count == MOST_TIMERS) {
			count = -EMSGSIZE;
			break;
		}
		timers[count++] = timer;
	}
	spin_unlock_irq(&sighand_of(t)->siglock);
	return count;
}

static int by_id(const void *a, const void *b)
{
	const struct k_itimer *one = *(struct k_itimer *const *)a;
	const struct k_itimer *other = *(struct k_itimer *const *)b;

	return one->it_id < other->it_id ? -1 : one->it_id > other->it_id;
}

static bool is_of_wall(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC ||
	       clock == CLOCK_BOOTTIME || clock == CLOCK_TAI;
}

/* All of the process's processor time: of its timers the usual one. */
static bool is_of_process(clockid_t clock)
{
	return clock < 0 && !CPUCLOCK_PERTHREAD(clock) &&
	       CPUCLOCK_WHICH(clock) == CPUCLOCK_SCHED &&
	       !CPUCLOCK_PID(clock);
}

/* Rest of the time as timer_gettime(2) tells it; the timer's lock is held. */
static s64 rest_of_timer(const struct k_itimer *timer, struct task_struct *t)
{
	bool nobody = timer->it_sigev_notify == SIGEV_NONE;
	s64 every = timer->it_interval, left, late;

	if (is_of_wall(timer->it_clock)) {
		if (!every && !timer->it_active && !nobody)
			return 0;
		left = hrtimer_get_remaining(&timer->it.real.timer);
	} else {
		if (!timer->it.cpu.node.expires)
			return 0;
		left = timer->it.cpu.node.expires -
		       atomic64_read(&t->signal->cputimer.cputime_atomic.sum_exec_runtime);
	}
	if (left > 0)
		return left;
	if (nobody && !every)
		return 0;
	if (every && (nobody || (timer->it_requeue_pending & REQUEUE_PENDING))) {
		div64_u64_rem(-left, every, &late);
		return every - late;
	}
	return 1;
}

static int put_timer(struct pod_session *s, struct pod_buf *b,
		     struct pod_open *list, struct task_struct *t,
		     struct k_itimer *timer)
{
	struct kernel_siginfo info;
	s64 left, every, overrun;
	struct pod_open o;
	pid_t tid = 0;
	int notify;

	if (!is_of_wall(timer->it_clock) && !is_of_process(timer->it_clock))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "timer %d is of clock %d, which the module does not handle",
				       timer->it_id, timer->it_clock);
	spin_lock_irq(&timer->it_lock);
	left = rest_of_timer(timer, t);
	every = timer->it_interval;
	overrun = clamp_t(s64, timer->it_overrun_last, 0, INT_MAX);
	notify = timer->it_sigev_notify;
	copy_siginfo(&info, &timer->sigq->info);
	if (notify & SIGEV_THREAD_ID)
		tid = pid_nr_ns(timer->it_pid, s->ns);
	spin_unlock_irq(&timer->it_lock);
	o = pod_open(b);
	POD_INT(b, &o, "id", timer->it_id);
	POD_INT(b, &o, "clock", timer->it_clock);
	POD_INT(b, &o, "notify", notify);
	POD_INT(b, &o, "signal", info.si_signo);
	POD_U64(b, &o, "value", (__force u64)info.si_value.sival_ptr);
	POD_U64(b, &o, "intervalNs", every);
	POD_U64(b, &o, "valueNs", left);
	POD_INT(b, &o, "overrun", overrun);
	if (tid)
		POD_INT(b, &o, "tid", tid);
	pod_close_map(b, o);
	list->count++;
	return 0;
}

static int put_posix(struct pod_session *s, struct pod_buf *b,
		     struct pod_open *o, struct task_struct *t)
{
	struct k_itimer **timers;
	struct pod_open list;
	int count, i, error = 0;

	timers = kvmalloc_array(MOST_TIMERS, sizeof(*timers),
				GFP_KERNEL_ACCOUNT);
	if (!timers)
		return -ENOMEM;
	count = list_timers(t, timers);
	if (count < 0)
		error = pod_refuse_task(s, t, -EOPNOTSUPP, "",
					"it has more than %d timers",
					MOST_TIMERS);
	if (count > 0) {
		sort(timers, count, sizeof(*timers), by_id, NULL);
		pod_field(b, o, "timers");
		list = pod_open(b);
		for (i = 0; i < count && !error; i++)
			error = put_timer(s, b, &list, t, timers[i]);
		pod_close_array(b, list);
		s->needs |= POD_NEEDS_TIMERS;
	}
	kvfree(timers);
	return error;
}

#else

/* What can be seen of a timer is different from Linux 6.13 on. */
static int put_posix(struct pod_session *s, struct pod_buf *b,
		     struct pod_open *o, struct task_struct *t)
{
	if (hlist_empty(&t->signal->posix_timers))
		return 0;
	return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
			       "it has timers (timer_create), which the module does not handle on this kernel yet");
}

#endif

int pod_put_timers(struct pod_session *s, struct pod_buf *b,
		   struct pod_open *o, struct task_struct *t)
{
	put_intervals(b, o, t);
	return put_posix(s, b, o, t);
}

#else

int pod_put_timers(struct pod_session *s, struct pod_buf *b,
		   struct pod_open *o, struct task_struct *t)
{
	return 0;
}

#endif
