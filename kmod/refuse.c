// SPDX-License-Identifier: GPL-2.0
/*
 * What of a task cannot go along, or cannot yet. The user engine carries some
 * of it, and tells of some as lost; the module does neither, so it refuses.
 * Nothing here may be left out for being rare: what is not looked at is lost
 * without a word. What no module can see is looked at by user space
 * (lib/engine/kmod/unseen.ts).
 */
#include <linux/cred.h>
#include <linux/ipc_namespace.h>
#include <linux/key.h>
#include <linux/nsproxy.h>
#include <linux/pid_namespace.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/sem.h>
#include <linux/time_namespace.h>
#include <linux/utsname.h>
#include <asm/mmu_context.h>
#include <asm/processor.h>
#include "compat.h"
#include "session.h"

static int own_namespace(struct pod_session *s, struct task_struct *t,
			 const char *name)
{
	return pod_refuse_task(s, t, -EOPNOTSUPP, "",
			       "it has a %s namespace of its own, which is not handled yet",
			       name);
}

static int check_namespaces(struct pod_session *s, struct task_struct *t,
			    struct task_struct *first)
{
	struct nsproxy *its = t->nsproxy, *ours = first->nsproxy;
	struct user_namespace *user, *common;

	if (task_active_pid_ns(t) != s->ns ||
	    its->pid_ns_for_children != s->ns)
		return own_namespace(s, t, "pid");
	if (its->mnt_ns != ours->mnt_ns)
		return own_namespace(s, t, "mnt");
	if (its->ipc_ns != ours->ipc_ns)
		return own_namespace(s, t, "ipc");
	if (its->uts_ns != ours->uts_ns)
		return own_namespace(s, t, "uts");
	if (its->net_ns != ours->net_ns)
		return own_namespace(s, t, "net");
	if (its->cgroup_ns != ours->cgroup_ns)
		return own_namespace(s, t, "cgroup");
	if (its->time_ns != ours->time_ns ||
	    its->time_ns_for_children != its->time_ns)
		return own_namespace(s, t, "time");
	rcu_read_lock();
	user = __task_cred(t)->user_ns;
	common = __task_cred(first)->user_ns;
	rcu_read_unlock();
	if (user != common)
		return own_namespace(s, t, "user");
	return 0;
}

/*
 * A restart makes the namespaces of pid 1, and all others in these: what the
 * whole session has entered since would be lost.
 */
static int check_pod_namespaces(struct pod_session *s, struct task_struct *t)
{
	struct nsproxy *ours = t->nsproxy, *its;
	const char *name = NULL;
	struct user_namespace *user, *common;
	struct task_struct *init;

	rcu_read_lock();
	init = pid_task(find_pid_ns(1, s->ns), PIDTYPE_PID);
	if (init)
		get_task_struct(init);
	rcu_read_unlock();
	if (!init)
		return pod_refuse(s, -ESRCH, "", "the pod has ended");
	task_lock(init);
	its = init->nsproxy;
	if (!its)
		name = "pid";
	else if (its->mnt_ns != ours->mnt_ns)
		name = "mnt";
	else if (its->ipc_ns != ours->ipc_ns)
		name = "ipc";
	else if (its->uts_ns != ours->uts_ns)
		name = "uts";
	else if (its->net_ns != ours->net_ns)
		name = "net";
	else if (its->cgroup_ns != ours->cgroup_ns)
		name = "cgroup";
	else if (its->time_ns != ours->time_ns)
		name = "time";
	task_unlock(init);
	rcu_read_lock();
	user = __task_cred(t)->user_ns;
	common = __task_cred(init)->user_ns;
	rcu_read_unlock();
	if (!name && user != common)
		name = "user";
	put_task_struct(init);
	return name ? own_namespace(s, t, name) : 0;
}

static bool has_tls_entries(struct task_struct *t)
{
	int i;

	for (i = 0; i < GDT_ENTRY_TLS_ENTRIES; i++)
		if (t->thread.tls_array[i].limit0 || t->thread.tls_array[i].p)
			return true;
	return false;
}

static bool holds_keys(const struct key *ring)
{
#ifdef CONFIG_KEYS
	return ring && READ_ONCE(ring->keys.nr_leaves_on_tree);
#else
	return false;
#endif
}

/* keyrings(7): those of the thread and of its process. */
static bool has_keys(struct task_struct *t)
{
	bool found = false;
#ifdef CONFIG_KEYS
	const struct cred *cred = get_task_cred(t);

	found = holds_keys(cred->thread_keyring) ||
		holds_keys(cred->process_keyring);
	put_cred(cred);
#endif
	return found;
}

/* What is set for a thread that a record could hold, or that is lost. */
static int check_attributes(struct pod_session *s, struct task_struct *t)
{
	if (t->policy == SCHED_DEADLINE)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it is scheduled by deadlines, which the module does not handle yet");
#ifdef CONFIG_NUMA
	if (READ_ONCE(t->mempolicy))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it has a memory policy (set_mempolicy), which the module does not handle yet");
#endif
#ifdef CONFIG_SCHED_CORE
	if (READ_ONCE(t->core_cookie))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it shares cores with its group only (PR_SCHED_CORE), which would be lost");
#endif
	if (has_keys(t))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it has keys for itself (keyrings), which would be lost");
	if (pod_has_other_label(t))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it has a security label of its own, which would be lost");
	if (pod_has_dispatch(t))
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "run the program without it",
				       "it has its system calls dispatched to itself (PR_SET_SYSCALL_USER_DISPATCH), which is not handled");
	return 0;
}

static int check_segments(struct pod_session *s, struct task_struct *t)
{
#ifdef CONFIG_X86_IOPL_IOPERM
	if (t->thread.io_bitmap || t->thread.iopl_emul)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "",
				       "it may use the ports of this computer (ioperm, iopl)");
#endif
	if (has_tls_entries(t))
		return pod_refuse_task(s, t, -EOPNOTSUPP, "",
				       "it has segments of its own (set_thread_area), which are not handled");
#ifdef CONFIG_MODIFY_LDT_SYSCALL
	if (t->mm->context.ldt)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "",
				       "it has segments of its own (modify_ldt), which are not handled");
#endif
	return 0;
}

int pod_check_thread(struct pod_session *s, struct pod_stop *stop)
{
	struct task_struct *t = stop->task, *leader = t->group_leader;
	int error;

	error = check_namespaces(s, t, list_first_entry(&s->stops,
							struct pod_stop, link)->task);
	if (error)
		return error;
	if (stop->regs.cs != __USER_CS)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "",
				       "it runs 32-bit code, which this engine does not handle");
	if (t->files != leader->files || t->fs != leader->fs)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "one of its threads has a descriptor table or working directory of its own");
#ifdef CONFIG_SECCOMP
	if (t->seccomp.mode)
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "use --engine user as root",
				       "it has a seccomp filter, which the module does not handle yet");
#endif
#ifdef CONFIG_SYSVIPC
	/* Threads share an empty list from their beginning. */
	if (t->sysvsem.undo_list && t->nsproxy->ipc_ns->ids[0].in_use)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it may give semaphores back at its end (SEM_UNDO), which the module does not handle yet");
#endif
	if (READ_ONCE(t->signal->group_stop_count))
		return pod_refuse_task(s, t, -EAGAIN, "try again in a moment",
				       "it is just being stopped by a signal");
	if (READ_ONCE(t->io_uring))
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "let the program close its io_uring first",
				       "it uses io_uring, which can't be saved");
	if (!list_empty(&t->ptraced))
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "end the debugger first",
				       "it traces another process");
	error = check_attributes(s, t);
	return error ?: check_segments(s, t);
}

/* System V and POSIX objects that a pod has for itself and nobody may hold. */
static int check_ipc(struct pod_session *s, struct task_struct *t)
{
#ifdef CONFIG_SYSVIPC
	struct ipc_namespace *ns = t->nsproxy->ipc_ns;

	if (ns == current->nsproxy->ipc_ns)
		return 0;
	if (ns->ids[0].in_use || ns->ids[1].in_use || ns->ids[2].in_use)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "its pod has System V semaphores, queues or shared memory, which the module does not handle yet");
#ifdef CONFIG_POSIX_MQUEUE
	if (ns->mq_queues_count)
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "remove the queue first",
				       "its pod has POSIX message queues, which can't be saved");
#endif
#endif
	return 0;
}

/* What all have together, of the first of them. */
int pod_check_first(struct pod_session *s, struct task_struct *t)
{
	int error = 0;

	if (s->ask.kind == POD_NAMESPACE)
		error = check_pod_namespaces(s, t);
	return error ?: check_ipc(s, t);
}
