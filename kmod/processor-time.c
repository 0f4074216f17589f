// SPDX-License-Identifier: GPL-2.0
/*
 * Processor time used: told by a dump, given back at restart, which the kernel
 * alone can do. All else of a restart user space does by itself, with
 * ptrace(2) and system calls of the tasks.
 *
 * Who asks is the tracer of the task, in person: the kernel itself, security
 * modules included, has judged when it became that. A task in a stop of
 * ptrace(2) goes on only by its tracer, who is here, or by SIGKILL; one that is
 * killed meanwhile changes the same numbers as we do, and nothing but these
 * numbers is at stake.
 *
 * Nothing that is given here belongs to the module: whatever becomes of the
 * caller or of the module, nothing is left to be taken back.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/seqlock.h>
#include <linux/uaccess.h>
#include "compat.h"
#include "session.h"

/* 36 years, in ns: sums of many stay far from their end. */
#define MOST_TIME BIT_ULL(60)

static void put_times(struct pod_buf *b, struct pod_open *o, u64 user,
		      u64 system, u64 run)
{
	POD_U64(b, o, "userNs", user);
	POD_U64(b, o, "systemNs", system);
	POD_U64(b, o, "runNs", run);
}

/* processorTime of a held thread */
void pod_put_thread_times(struct pod_buf *b, struct pod_open *o,
			  struct task_struct *t)
{
	struct pod_open times;

	pod_field(b, o, "processorTime");
	times = pod_open(b);
	put_times(b, &times, t->utime, t->stime, t->se.sum_exec_runtime);
	pod_close_map(b, times);
}

/* Of a held process: with threads that have ended, and of its children. */
void pod_put_process_times(struct pod_buf *b, struct pod_open *o,
			   struct task_struct *leader)
{
	struct signal_struct *process = leader->signal;
	u64 user = process->utime, system = process->stime;
	u64 run = process->sum_sched_runtime;
	struct pod_open times;
	struct task_struct *t;

	rcu_read_lock();
	for_each_thread(leader, t) {
		user += t->utime;
		system += t->stime;
		run += t->se.sum_exec_runtime;
	}
	rcu_read_unlock();
	pod_field(b, o, "processorTime");
	times = pod_open(b);
	put_times(b, &times, user, system, run);
	POD_U64(b, &times, "childrenUserNs", process->cutime);
	POD_U64(b, &times, "childrenSystemNs", process->cstime);
	pod_close_map(b, times);
}

/* A reference to the task, which the caller traces. */
static struct task_struct *find_traced(pid_t tid)
{
	struct pid *pid = find_get_pid(tid);
	struct task_struct *t = get_pid_task(pid, PIDTYPE_PID);

	put_pid(pid);
	if (!t)
		return ERR_PTR(-ESRCH);
	if (READ_ONCE(t->ptrace) && rcu_access_pointer(t->parent) == current)
		return t;
	put_task_struct(t);
	return ERR_PTR(-EPERM);
}

/* The stop is told before its task has left the processor. */
static int await_still(struct task_struct *t)
{
	unsigned long end = jiffies + HZ;

	for (;;) {
		if (!task_is_traced(t))
			return -EBUSY;
#ifdef CONFIG_SMP
		/* With all that it has counted until it left the processor. */
		if (smp_load_acquire(&t->on_cpu) == 0)
			return 0;
#else
		return 0;
#endif
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, end))
			return -EBUSY;
		usleep_range(10, 50);
	}
}

/* Never down: no limit is got round by this. Returns by how much. */
static u64 raise_to(u64 *time, u64 to)
{
	u64 by = to > *time ? to - *time : 0;

	*time += by;
	return by;
}

static void raise_times(struct task_struct *t, const struct pod_times *ask)
{
	struct signal_struct *process = t->signal;
	u64 user, system, run;

	write_seqlock_irq(&process->stats_lock);
	user = raise_to(&t->utime, ask->user);
	system = raise_to(&t->stime, ask->system);
	run = raise_to(&t->se.sum_exec_runtime, ask->run);
	user += raise_to(&process->utime, ask->ended_user);
	system += raise_to(&process->stime, ask->ended_system);
	run += raise_to(&process->sum_sched_runtime, ask->ended_run);
	raise_to(&process->cutime, ask->children_user);
	raise_to(&process->cstime, ask->children_system);
#ifdef CONFIG_POSIX_TIMERS
	/* While a limit or a timer wants to know it, the sum is kept apart. */
	if (READ_ONCE(process->posix_cputimers.timers_active)) {
		struct task_cputime_atomic *sum =
			&process->cputimer.cputime_atomic;

		atomic64_add(user, &sum->utime);
		atomic64_add(system, &sum->stime);
		atomic64_add(run, &sum->sum_exec_runtime);
	}
#endif
	write_sequnlock_irq(&process->stats_lock);
}

static int check_times(const struct pod_times *ask)
{
	if (ask->size != sizeof(*ask) || ask->tid <= 0 ||
	    ask->user > MOST_TIME || ask->system > MOST_TIME ||
	    ask->run > MOST_TIME || ask->ended_user > MOST_TIME ||
	    ask->ended_system > MOST_TIME || ask->ended_run > MOST_TIME ||
	    ask->children_user > MOST_TIME || ask->children_system > MOST_TIME)
		return -EINVAL;
	return 0;
}

static bool says_of_process(const struct pod_times *ask)
{
	return ask->ended_user || ask->ended_system || ask->ended_run ||
	       ask->children_user || ask->children_system;
}

long pod_set_times(const struct pod_times __user *from)
{
	struct task_struct *t;
	struct pod_times ask;
	int error;

	if (copy_from_user(&ask, from, sizeof(ask)))
		return -EFAULT;
	error = check_times(&ask);
	if (error)
		return error;
	t = find_traced(ask.tid);
	if (IS_ERR(t))
		return PTR_ERR(t);
	error = says_of_process(&ask) && !thread_group_leader(t) ?
		-EINVAL : await_still(t);
	if (!error)
		raise_times(t, &ask);
	put_task_struct(t);
	return error;
}
