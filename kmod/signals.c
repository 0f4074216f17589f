// SPDX-License-Identifier: GPL-2.0
/* Signals: handlers, masks, what is pending. */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/signal.h>
#include <linux/slab.h>
#include "compat.h"
#include "session.h"

/* Of a held task, which keeps it. */
static struct sighand_struct *sighand_of(struct task_struct *t)
{
	return rcu_dereference_protected(t->sighand, true);
}

static void put_action(struct pod_buf *b, struct pod_open *list, int number,
		       const struct k_sigaction *action)
{
	struct pod_open o = pod_open(b);

	list->count++;
	POD_INT(b, &o, "signal", number);
	POD_U64(b, &o, "handler", (__force u64)action->sa.sa_handler);
	POD_U64(b, &o, "flags", action->sa.sa_flags);
	POD_U64(b, &o, "restorer", (__force u64)action->sa.sa_restorer);
	POD_U64(b, &o, "mask", action->sa.sa_mask.sig[0]);
	pod_close_map(b, o);
}

int pod_collect_handlers(struct pod_session *s, struct pod_process *p)
{
	struct sighand_struct *sighand = sighand_of(p->leader);
	struct pod_buf meta = {};
	struct pod_open o, list;
	struct k_sigaction *actions;
	bool first;
	int i, error;

	error = pod_number_of(&s->handlers, sighand, &p->handlers, &first);
	if (error || !first)
		return error;
	actions = kmemdup(sighand->action, sizeof(sighand->action),
			  GFP_KERNEL_ACCOUNT);
	if (!actions)
		return -ENOMEM;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", p->handlers);
	pod_field(&meta, &o, "actions");
	list = pod_open(&meta);
	for (i = 0; i < _NSIG; i++)
		if (actions[i].sa.sa_handler != SIG_DFL)
			put_action(&meta, &list, i + 1, &actions[i]);
	/* Its flags count though nobody handles it (SA_NOCLDWAIT). */
	if (actions[SIGCHLD - 1].sa.sa_handler == SIG_DFL)
		put_action(&meta, &list, SIGCHLD, &actions[SIGCHLD - 1]);
	pod_close_array(&meta, list);
	pod_close_map(&meta, o);
	kfree(actions);
	pod_frame_to(s, POD_SECTION_SHARED, POD_FRAME_HANDLERS, &meta, NULL, 0);
	return 0;
}

#define MOST_PENDING 4096

/* Copied under the lock, put into the record outside of it. */
void pod_put_pending(struct pod_buf *b, struct pod_open *o,
		     struct sigpending *pending, struct task_struct *t)
{
	struct pod_open list;
	struct sigqueue *q;
	kernel_siginfo_t *infos;
	siginfo_t whole;
	u32 count = 0, i;
	sigset_t left;
	int number;

	infos = kvmalloc_array(MOST_PENDING, sizeof(*infos),
			       GFP_KERNEL_ACCOUNT);
	if (!infos) {
		b->error = -ENOMEM;
		return;
	}
	spin_lock_irq(&sighand_of(t)->siglock);
	left = pending->signal;
	list_for_each_entry(q, &pending->list, list) {
		if (count == MOST_PENDING)
			break;
		infos[count++] = q->info;
		sigdelset(&left, q->info.si_signo);
	}
	spin_unlock_irq(&sighand_of(t)->siglock);
	/* There was no room for what came with these: only their numbers are. */
	for (number = 1; number <= _NSIG && count < MOST_PENDING; number++) {
		if (!sigismember(&left, number))
			continue;
		clear_siginfo(&infos[count]);
		infos[count].si_signo = number;
		infos[count++].si_code = SI_USER;
	}
	if (count == MOST_PENDING)
		b->error = -EMSGSIZE;
	if (count) {
		pod_field(b, o, "pending");
		list = pod_open(b);
		for (i = 0; i < count; i++) {
			copy_siginfo_to_external(&whole, &infos[i]);
			pod_bin(b, &whole, sizeof(whole));
			list.count++;
		}
		pod_close_array(b, list);
	}
	kvfree(infos);
}

/* Of one thread: signalMask, pending, alternateStack */
void pod_put_signals(struct pod_buf *b, struct pod_open *o,
		     struct task_struct *t)
{
	struct pod_open stack;
	u64 mask;

	/* The mask of a call like sigsuspend(2) lasts as long as the call. */
	mask = test_tsk_restore_sigmask(t) ? t->saved_sigmask.sig[0] :
	       t->blocked.sig[0];
	POD_U64(b, o, "signalMask", mask);
	pod_put_pending(b, o, &t->pending, t);
	if (!t->sas_ss_size || (t->sas_ss_flags & SS_DISABLE))
		return;
	pod_field(b, o, "alternateStack");
	stack = pod_open(b);
	POD_U64(b, &stack, "address", t->sas_ss_sp);
	POD_U64(b, &stack, "size", t->sas_ss_size);
	POD_INT(b, &stack, "flags", (u32)(t->sas_ss_flags & SS_FLAG_BITS));
	pod_close_map(b, stack);
}
