// SPDX-License-Identifier: GPL-2.0
/*
 * Restartable sequences (rseq(2)). A stop inside one is a preemption and ends
 * it: the thread goes on at the abort handler. The kernel does that on the way
 * to user mode, after the stop; an image has registers and memory of the stop
 * itself, in which the sequence would go on as if nothing had been between. So
 * the abort is done at the stop, for the thread and for its image alike.
 *
 * What the kernel would punish (a descriptor that cannot be) is left as it is:
 * it punishes it here as well as where the image goes on.
 */
#include <linux/mm.h>
#include <linux/rseq.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include "compat.h"
#include "session.h"

/* Before 6.0 a sequence may ask not to be aborted by what happens to it. */
#define STAYS (RSEQ_CS_FLAG_NO_RESTART_ON_PREEMPT | \
	       RSEQ_CS_FLAG_NO_RESTART_ON_MIGRATE)

#ifdef CONFIG_RSEQ
/* In the thread itself, which is on its way to user mode. */
void pod_abort_sequence(struct pt_regs *regs)
{
	struct rseq __user *area = pod_rseq(current);
	struct rseq_cs sequence;
	u64 address, none = 0;
	u32 flags, signature;

	/* A sequence makes no system calls. */
	if (!area || (long)regs->orig_ax >= 0)
		return;
	if (copy_from_user(&address, &area->rseq_cs, sizeof(address)) ||
	    !address || address >= TASK_SIZE ||
	    copy_from_user(&sequence, (void __user *)address,
			   sizeof(sequence)) ||
	    get_user(flags, &area->flags))
		return;
	if (sequence.version || sequence.start_ip >= TASK_SIZE ||
	    sequence.post_commit_offset > TASK_SIZE - sequence.start_ip ||
	    sequence.abort_ip >= TASK_SIZE ||
	    sequence.abort_ip < sizeof(signature) ||
	    sequence.abort_ip - sequence.start_ip < sequence.post_commit_offset)
		return;
	if (regs->ip - sequence.start_ip >= sequence.post_commit_offset)
		return;
	if (get_user(signature, (u32 __user *)(sequence.abort_ip -
					       sizeof(signature))) ||
	    signature != pod_rseq_signature(current))
		return;
	if (((sequence.flags | flags) & STAYS) == STAYS)
		return;
	if (copy_to_user(&area->rseq_cs, &none, sizeof(none)))
		return;
	regs->ip = sequence.abort_ip;
}
#else
void pod_abort_sequence(struct pt_regs *regs)
{
}
#endif
