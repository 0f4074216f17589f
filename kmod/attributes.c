// SPDX-License-Identifier: GPL-2.0
/* Limits, credentials and scheduling. */
#include <linux/cpumask.h>
#include <linux/cred.h>
#include <linux/iocontext.h>
#include <linux/ioprio.h>
#include <linux/resource.h>
#include <linux/sched.h>
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

int pod_put_credentials(struct pod_session *s, struct pod_buf *b,
			struct pod_open *o, struct task_struct *t)
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
	return 0;
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

int pod_put_scheduling(struct pod_session *s, struct pod_buf *b,
		       struct pod_open *o, struct task_struct *t)
{
	struct pod_open c;

	pod_field(b, o, "scheduling");
	c = pod_open(b);
	POD_INT(b, &c, "policy", t->policy);
	POD_INT(b, &c, "nice", task_nice(t));
	POD_INT(b, &c, "priority", t->rt_priority);
	if (cpumask_weight(&t->cpus_mask) < num_online_cpus())
		POD_BIN(b, &c, "affinity", cpumask_bits(&t->cpus_mask),
			cpumask_size());
	POD_INT(b, &c, "ioprio", io_priority(t));
	POD_U64(b, &c, "timerSlackNs", t->timer_slack_ns);
	pod_close_map(b, c);
	return 0;
}
