// SPDX-License-Identifier: GPL-2.0
/* Limits, credentials, scheduling, and what prctl(2) and its kin have set. */
#include <linux/cpumask.h>
#include <linux/cred.h>
#include <linux/iocontext.h>
#include <linux/ioprio.h>
#include <linux/membarrier.h>
#include <linux/mm.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include "compat.h"
#include "session.h"

void pod_put_limits(struct pod_buf *b, struct pod_open *o,
		    struct task_struct *t)
{
	struct pod_open list, limit;
	int i;

	pod_field(b, o, "limits");
	list = pod_open(b);
	for (i = 0; i < RLIM_NLIMITS; i++) {
		limit = pod_open(b);
		POD_U64(b, &limit, "soft", READ_ONCE(t->signal->rlim[i].rlim_cur));
		POD_U64(b, &limit, "hard", READ_ONCE(t->signal->rlim[i].rlim_max));
		pod_close_map(b, limit);
		list.count++;
	}
	pod_close_array(b, list);
}

static void put_uids(struct pod_buf *b, struct pod_open *o,
		     const struct cred *cred, struct user_namespace *ns)
{
	const kuid_t ids[] = { cred->uid, cred->euid, cred->suid, cred->fsuid };
	int i;

	pod_field(b, o, "uids");
	pod_array(b, ARRAY_SIZE(ids));
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		pod_int(b, from_kuid_munged(ns, ids[i]));
}

static void put_gids(struct pod_buf *b, struct pod_open *o,
		     const struct cred *cred, struct user_namespace *ns)
{
	const kgid_t ids[] = { cred->gid, cred->egid, cred->sgid, cred->fsgid };
	int i;

	pod_field(b, o, "gids");
	pod_array(b, ARRAY_SIZE(ids));
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		pod_int(b, from_kgid_munged(ns, ids[i]));
	pod_field(b, o, "groups");
	pod_array(b, cred->group_info->ngroups);
	for (i = 0; i < cred->group_info->ngroups; i++)
		pod_int(b, from_kgid_munged(ns, cred->group_info->gid[i]));
}

void pod_put_credentials(struct pod_buf *b, struct pod_open *o,
			 struct task_struct *t)
{
	struct user_namespace *ns = current_user_ns();
	const struct cred *cred = get_task_cred(t);
	struct pod_open c;

	pod_field(b, o, "credentials");
	c = pod_open(b);
	put_uids(b, &c, cred, ns);
	put_gids(b, &c, cred, ns);
	POD_U64(b, &c, "inheritable", pod_caps(&cred->cap_inheritable));
	POD_U64(b, &c, "permitted", pod_caps(&cred->cap_permitted));
	POD_U64(b, &c, "effective", pod_caps(&cred->cap_effective));
	POD_U64(b, &c, "bounding", pod_caps(&cred->cap_bset));
	POD_U64(b, &c, "ambient", pod_caps(&cred->cap_ambient));
	POD_INT(b, &c, "securebits", cred->securebits);
	POD_BOOL(b, &c, "noNewPrivs", task_no_new_privs(t));
	pod_close_map(b, c);
	put_cred(cred);
}

static int io_priority(struct task_struct *t)
{
	int priority = 0;

#ifdef CONFIG_BLOCK
	task_lock(t);
	if (t->io_context)
		priority = t->io_context->ioprio;
	task_unlock(t);
#endif
	/* A level without a class cannot be set: it is none. */
	return IOPRIO_PRIO_CLASS(priority) ? priority : 0;
}

/* Utilization clamps, when they are not the usual ones of the policy. */
static void put_clamp(struct pod_buf *b, struct pod_open *o,
		      struct task_struct *t)
{
#ifdef CONFIG_UCLAMP_TASK
	u32 least = t->uclamp_req[UCLAMP_MIN].value;
	u32 most = t->uclamp_req[UCLAMP_MAX].value;
	bool real_time = t->policy == SCHED_FIFO || t->policy == SCHED_RR;
	struct pod_open clamp;

	if (least == (real_time ? SCHED_CAPACITY_SCALE : 0) &&
	    most == SCHED_CAPACITY_SCALE)
		return;
	pod_field(b, o, "clamp");
	clamp = pod_open(b);
	POD_INT(b, &clamp, "min", least);
	POD_INT(b, &clamp, "max", most);
	pod_close_map(b, clamp);
#endif
}

void pod_put_scheduling(struct pod_buf *b, struct pod_open *o,
			struct task_struct *t)
{
	struct pod_open c;

	pod_field(b, o, "scheduling");
	c = pod_open(b);
	POD_INT(b, &c, "policy", t->policy);
	POD_INT(b, &c, "nice", task_nice(t));
	POD_INT(b, &c, "priority", t->rt_priority);
	if (t->sched_reset_on_fork)
		POD_BOOL(b, &c, "resetOnFork", true);
	put_clamp(b, &c, t);
	if (cpumask_weight(&t->cpus_mask) < num_online_cpus())
		POD_BIN(b, &c, "affinity", cpumask_bits(&t->cpus_mask),
			cpumask_size());
	POD_INT(b, &c, "ioprio", io_priority(t));
	POD_U64(b, &c, "timerSlackNs", t->timer_slack_ns);
	pod_close_map(b, c);
}

static void put_feature(struct pod_buf *b, struct pod_open *list, int feature,
			int setting)
{
	struct pod_open o;

	if (!setting)
		return;
	o = pod_open(b);
	POD_INT(b, &o, "feature", feature);
	POD_INT(b, &o, "setting", setting);
	pod_close_map(b, o);
	list->count++;
}

/* PR_GET_SPECULATION_CTRL, what is not as usual. */
static void put_speculation(struct pod_buf *b, struct pod_open *o,
			    struct task_struct *t)
{
	int store = 0, branch = 0, cache = 0;
	struct pod_open list;

	if (task_spec_ssb_force_disable(t))
		store = PR_SPEC_FORCE_DISABLE;
	else if (task_spec_ssb_noexec(t))
		store = PR_SPEC_DISABLE_NOEXEC;
	else if (task_spec_ssb_disable(t))
		store = PR_SPEC_DISABLE;
	if (task_spec_ib_force_disable(t))
		branch = PR_SPEC_FORCE_DISABLE;
	else if (task_spec_ib_disable(t))
		branch = PR_SPEC_DISABLE;
#ifdef TIF_SPEC_L1D_FLUSH
	if (test_tsk_thread_flag(t, TIF_SPEC_L1D_FLUSH))
		cache = PR_SPEC_ENABLE;
#endif
	if (!store && !branch && !cache)
		return;
	pod_field(b, o, "speculation");
	list = pod_open(b);
	put_feature(b, &list, 0, store);
	put_feature(b, &list, 1, branch);
	put_feature(b, &list, 2, cache);
	pod_close_array(b, list);
}

#define FLUSHER (PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE)

/* What prctl(2) has set for a thread. */
void pod_put_thread_attributes(struct pod_buf *b, struct pod_open *o,
			       struct task_struct *t)
{
	if (t->flags & PF_MCE_PROCESS)
		POD_INT(b, o, "machineCheckKill", t->flags & PF_MCE_EARLY ?
			PR_MCE_KILL_EARLY : PR_MCE_KILL_LATE);
	if ((t->flags & FLUSHER) == FLUSHER)
		POD_BOOL(b, o, "ioFlusher", true);
	put_speculation(b, o, t);
	if (test_tsk_thread_flag(t, TIF_NOTSC))
		POD_BOOL(b, o, "noTimeStampCounter", true);
	if (test_tsk_thread_flag(t, TIF_NOCPUID))
		POD_BOOL(b, o, "noCpuid", true);
}

/* AMX: a component that a process must ask for. */
#define ON_DEMAND BIT_ULL(18)

void pod_put_processor_states(struct pod_buf *b, struct pod_open *o,
			      struct task_struct *t)
{
	u64 states = pod_processor_states(t) & ON_DEMAND;

	if (states)
		POD_U64(b, o, "processorStates", states);
}

/* What counts for all that an address space has and will map. */
void pod_put_memory_attributes(struct pod_buf *b, struct pod_open *o,
			       struct mm_struct *mm)
{
	int mdwe = pod_mdwe(mm);
#ifdef CONFIG_MEMBARRIER
	int state = atomic_read(&mm->membarrier_state), barriers = 0;

	if (state & MEMBARRIER_STATE_GLOBAL_EXPEDITED)
		barriers |= MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
	if (state & MEMBARRIER_STATE_PRIVATE_EXPEDITED)
		barriers |= MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
	if (state & MEMBARRIER_STATE_PRIVATE_EXPEDITED_SYNC_CORE)
		barriers |= MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
	if (state & MEMBARRIER_STATE_PRIVATE_EXPEDITED_RSEQ)
		barriers |= MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ;
#endif

	if (pod_lacks_huge_pages(mm))
		POD_BOOL(b, o, "thpDisable", true);
	if (pod_merges(mm))
		POD_BOOL(b, o, "mergeAll", true);
	if (mdwe)
		POD_INT(b, o, "refuseExecGain", mdwe);
#ifdef CONFIG_MEMBARRIER
	if (barriers)
		POD_INT(b, o, "membarrier", barriers);
#endif
	if (mm->def_flags & VM_LOCKED)
		POD_STR(b, o, "lockFuture", mm->def_flags & VM_LOCKONFAULT ?
			"onFault" : "populate");
}
