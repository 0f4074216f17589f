// SPDX-License-Identifier: GPL-2.0
/*
 * Stopping a session, and letting it go.
 *
 * Each thread gets a work item that it does by itself on its way back to user
 * mode (task_work, TWA_SIGNAL, which interrupts what it waits for as a signal
 * would, and that no program can see). There it writes down its registers and
 * waits. While the session is being looked at it waits whatever comes, so that
 * nothing that belongs to it can go away; that takes milliseconds, and its
 * end is not left to anybody else: the ioctl ends it, or the exit of its
 * caller does. While the stream is read the wait is killable.
 *
 * A thread that has not been reached keeps its work item, which holds a
 * reference to the module, and does nothing when it comes to it.
 *
 * Locking: stops are listed, and orders given, by who holds pod_session.lock.
 * A stop belongs to the session and to the thread; the last of both frees it.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include "session.h"

/* The code of a vdso is left within microseconds. */
#define MOST_NUDGES 300
#define DEFAULT_TIMEOUT_MS 10000
/* How long a thread may take at the first attempt; each gives it more. */
#define FIRST_PATIENCE_MS 300
#define LONGEST_PATIENCE_MS 3000

static void put_stop(struct pod_stop *stop)
{
	if (!refcount_dec_and_test(&stop->refs))
		return;
	put_task_struct(stop->task);
	kvfree(stop->extended);
	kfree(stop);
}

/* In the thread itself, at the border to user mode. */
static void hold(struct callback_head *work)
{
	struct pod_stop *stop = container_of(work, struct pod_stop, work);

	if ((current->flags & PF_EXITING) || fatal_signal_pending(current)) {
		stop->gone = true;
		complete_all(&stop->arrived);
	} else if (READ_ONCE(stop->order) != POD_GO) {
		stop->error = pod_capture(stop);
		complete_all(&stop->arrived);
		wait_event(stop->order_changed,
			   READ_ONCE(stop->order) != POD_HOLD);
		if (wait_event_killable(stop->order_changed,
					READ_ONCE(stop->order) == POD_GO))
			WRITE_ONCE(stop->killed, true);
	}
	put_stop(stop);
	module_put(THIS_MODULE);
}

/*
 * When the module goes, the last instructions of hold() may still be under
 * way: what follows its last reference.
 */
void pod_wait_for_callbacks(void)
{
#ifdef CONFIG_PREEMPTION
	synchronize_rcu_tasks();
#else
	/* Nobody leaves a processor inside the kernel without a word. */
	synchronize_rcu();
#endif
}

struct pod_stop *pod_stop_of(struct pod_session *s, struct task_struct *t)
{
	struct pod_stop *stop;

	list_for_each_entry(stop, &s->stops, link)
		if (stop->task == t)
			return stop;
	return NULL;
}

/* A thread that a fatal signal took out of the stopped session. */
struct pod_stop *pod_killed(struct pod_session *s)
{
	struct pod_stop *stop;

	list_for_each_entry(stop, &s->stops, link)
		if (READ_ONCE(stop->killed))
			return stop;
	return NULL;
}

static void give_order(struct pod_stop *stop, enum pod_order order)
{
	WRITE_ONCE(stop->order, order);
	wake_up_all(&stop->order_changed);
}

void pod_order_all(struct pod_session *s, enum pod_order order)
{
	struct pod_stop *stop;

	list_for_each_entry(stop, &s->stops, link)
		give_order(stop, order);
}

static void let_go(struct pod_stop *stop)
{
	list_del(&stop->link);
	give_order(stop, POD_GO);
	put_stop(stop);
}

void pod_thaw(struct pod_session *s)
{
	struct pod_stop *stop, *next;

	/* Those who wait for others are there when these come to end. */
	list_for_each_entry_safe_reverse(stop, next, &s->stops, link)
		let_go(stop);
}

static struct pod_stop *make_stop(struct task_struct *t)
{
	struct pod_stop *stop = kzalloc(sizeof(*stop), GFP_ATOMIC);

	if (!stop)
		return NULL;
	init_completion(&stop->arrived);
	init_waitqueue_head(&stop->order_changed);
	refcount_set(&stop->refs, 1);
	init_task_work(&stop->work, hold);
	get_task_struct(t);
	stop->task = t;
	return stop;
}

static int send(struct pod_stop *stop)
{
	int error;

	__module_get(THIS_MODULE);
	refcount_inc(&stop->refs);
	error = task_work_add(stop->task, &stop->work, TWA_SIGNAL);
	if (error) {
		put_stop(stop);
		module_put(THIS_MODULE);
	}
	return error;
}

/* What a thread is in that does not let it come, or that cannot go along. */
static int check_reachable(struct pod_session *s, struct task_struct *t)
{
	if (t->flags & PF_IO_WORKER)
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "let the program close its io_uring first",
				       "it uses io_uring, which can't be saved");
	if (READ_ONCE(t->ptrace))
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "end the debugger first",
				       "it is being traced");
	if (t->signal->flags & SIGNAL_STOP_STOPPED)
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "let it go on (kill -CONT), or use --engine user",
				       "it is stopped by a signal, which the module does not handle yet");
	return 0;
}

/*
 * A look at all processes, under RCU: a stop for each thread of the session
 * that has none. Returns how many, or an error; those who cannot be dumped
 * are held in *odd, to be told of when it may sleep.
 */
static int look(struct pod_session *s, struct list_head *fresh,
		struct task_struct **odd)
{
	struct task_struct *p, *t;
	struct pod_stop *stop;
	int count = 0;

	*odd = NULL;
	rcu_read_lock();
	for_each_process(p) {
		if ((p->flags & PF_KTHREAD) || !pod_in_session(s, p))
			continue;
		if (same_thread_group(p, current)) {
			rcu_read_unlock();
			return -EDEADLK;
		}
		for_each_thread(p, t) {
			if (t->exit_state || pod_stop_of(s, t))
				continue;
			if ((t->flags & PF_IO_WORKER) || READ_ONCE(t->ptrace) ||
			    (t->signal->flags & SIGNAL_STOP_STOPPED)) {
				get_task_struct(t);
				*odd = t;
				rcu_read_unlock();
				return -EOPNOTSUPP;
			}
			stop = make_stop(t);
			if (!stop) {
				rcu_read_unlock();
				return -ENOMEM;
			}
			list_add_tail(&stop->link, fresh);
			count++;
		}
	}
	rcu_read_unlock();
	return count;
}

static void forget(struct list_head *fresh)
{
	struct pod_stop *stop, *next;

	list_for_each_entry_safe(stop, next, fresh, link) {
		list_del(&stop->link);
		put_stop(stop);
	}
}

/* One look and the wait for whom it found. *late is who did not come. */
static int pass(struct pod_session *s, unsigned long patience,
		struct task_struct **late)
{
	struct pod_stop *stop, *next;
	struct task_struct *odd;
	LIST_HEAD(fresh);
	int count, error = 0;
	long left;

	count = look(s, &fresh, &odd);
	if (count < 0) {
		forget(&fresh);
		if (odd) {
			error = check_reachable(s, odd);
			put_task_struct(odd);
			/* It was passing: look again. */
			return error ?: 1;
		}
		if (count == -EDEADLK)
			return pod_refuse(s, count, "dump it from outside",
					  "who dumps is in the session itself");
		return count;
	}
	list_for_each_entry_safe(stop, next, &fresh, link) {
		list_del(&stop->link);
		/* It is just about to end: the next look tells. */
		if (send(stop)) {
			put_stop(stop);
			usleep_range(50, 200);
		} else {
			list_add_tail(&stop->link, &s->stops);
		}
	}
	list_for_each_entry_safe(stop, next, &s->stops, link) {
		left = wait_for_completion_killable_timeout(&stop->arrived,
							    patience);
		if (left < 0)
			return -EINTR;
		if (!left) {
			error = check_reachable(s, stop->task);
			if (error)
				return error;
			get_task_struct(stop->task);
			*late = stop->task;
			return -ETIMEDOUT;
		}
		if (stop->gone) {
			let_go(stop);
			usleep_range(50, 200);
			continue;
		}
		if (stop->error)
			return pod_refuse_task(s, stop->task, stop->error, "",
					       "its registers can't be read (%d)",
					       stop->error);
	}
	return count;
}

/*
 * Who stands in the vdso, whose code reads data of this very kernel, is let
 * go on for some microseconds. Returns how many were.
 */
static int nudge(struct pod_session *s, unsigned int *nudges)
{
	struct pod_stop *stop, *next;
	int count = 0;

	if (*nudges >= MOST_NUDGES)
		return 0;
	list_for_each_entry_safe(stop, next, &s->stops, link) {
		if (!pod_in_vdso(stop->task, stop->regs.ip))
			continue;
		let_go(stop);
		count++;
	}
	if (count) {
		*nudges += 1;
		usleep_range(10, 10 + *nudges * 4);
	}
	return count;
}

/*
 * Who was killed by another of the session before that was stopped: it comes
 * to its end first, as it would have. Returns how many there are.
 */
static int let_dying_go(struct pod_session *s)
{
	struct pod_stop *stop, *next;
	int count = 0;

	list_for_each_entry_safe(stop, next, &s->stops, link) {
		if (!fatal_signal_pending(stop->task))
			continue;
		let_go(stop);
		count++;
	}
	if (count)
		usleep_range(50, 200);
	return count;
}

static int attempt(struct pod_session *s, unsigned long patience,
		   unsigned long deadline, struct task_struct **late)
{
	unsigned int nudges = 0;
	int found;

	do {
		found = pass(s, patience, late);
		if (!found)
			found = let_dying_go(s);
		if (!found)
			found = nudge(s, &nudges);
		if (fatal_signal_pending(current))
			return -EINTR;
		/* Threads come and go, or one does not come to its end. */
		if (found > 0 && time_after(jiffies, deadline)) {
			get_task_struct(s->root);
			*late = s->root;
			return -ETIMEDOUT;
		}
	} while (found > 0);
	return found;
}

int pod_freeze(struct pod_session *s)
{
	u32 ms = s->ask.timeout_ms ?: DEFAULT_TIMEOUT_MS;
	unsigned long deadline = jiffies + msecs_to_jiffies(ms);
	unsigned int tried, patience;
	struct task_struct *late;
	int error;

	for (tried = 1;; tried++) {
		late = NULL;
		patience = min3(tried * FIRST_PATIENCE_MS,
				(unsigned int)LONGEST_PATIENCE_MS, ms);
		error = attempt(s, msecs_to_jiffies(patience),
				deadline, &late);
		if (error != -ETIMEDOUT)
			return error;
		pod_thaw(s);
		if (time_after(jiffies, deadline)) {
			error = pod_refuse_task(s, late, -ETIMEDOUT,
						"try again in a moment",
						"it does not stop: it waits in the kernel (vfork, or a device)");
			put_task_struct(late);
			return error;
		}
		put_task_struct(late);
		/* Let a vfork child come to its exec. */
		if (msleep_interruptible(5u << min(tried, 6u)))
			return -EINTR;
	}
}
