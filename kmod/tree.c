// SPDX-License-Identifier: GPL-2.0
/*
 * Which processes are the session, who may dump them, and the tree. What of a
 * task cannot go along is in refuse.c.
 *
 * ptrace_may_access() is not for modules, so its rule is applied here: the
 * same user with at least the same rights, or CAP_SYS_PTRACE over the user
 * namespace of the other. Security modules are not asked; that is why the
 * device is root's (README).
 */
#include <linux/cred.h>
#include <linux/nsproxy.h>
#include <linux/pid_namespace.h>
#include <linux/futex.h>
#include <linux/random.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/time_namespace.h>
#include <linux/timekeeping.h>
#include <linux/user_namespace.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include "compat.h"
#include "session.h"

#define TREE_ENTRIES 256

int pod_find_root(struct pod_session *s)
{
	struct pid *pid = find_get_pid(s->ask.pid);

	s->root = get_pid_task(pid, PIDTYPE_TGID);
	put_pid(pid);
	if (!s->root)
		return pod_refuse(s, -ESRCH, "", "there is no process %d",
				  s->ask.pid);
	if ((s->root->flags & PF_KTHREAD) || is_global_init(s->root))
		return pod_refuse(s, -EINVAL, "", "process %d can't be dumped",
				  s->ask.pid);
	rcu_read_lock();
	s->ns = task_active_pid_ns(s->root);
	if (s->ns)
		get_pid_ns(s->ns);
	rcu_read_unlock();
	if (!s->ns)
		return pod_refuse(s, -ESRCH, "", "process %d has ended",
				  s->ask.pid);
	if (s->ask.kind == POD_NAMESPACE && s->ns == &init_pid_ns)
		return pod_refuse(s, -EINVAL, "name a process of a pod",
				  "process %d is in the computer's own pid namespace",
				  s->ask.pid);
	return 0;
}

/* Under RCU. */
bool pod_in_session(struct pod_session *s, struct task_struct *leader)
{
	struct task_struct *p = leader;

	if (s->ask.kind == POD_NAMESPACE) {
		/* In it or below; those below are refused later. */
		return pid_nr_ns(task_pid(leader), s->ns) > 1;
	}
	while (p != s->root) {
		if (is_global_init(p) || !p->pid)
			return false;
		p = rcu_dereference(p->real_parent)->group_leader;
	}
	return true;
}

static struct pod_process *find_process(struct pod_session *s, pid_t parent)
{
	u32 i;

	for (i = 0; i < s->count; i++)
		if (s->processes[i].placed &&
		    task_tgid_nr(s->processes[i].leader) == parent)
			return &s->processes[i];
	return NULL;
}

static int list_all(struct pod_session *s, u32 room)
{
	struct task_struct *p;
	int error = 0;

	rcu_read_lock();
	for_each_process(p) {
		struct pod_process *entry;
		struct task_struct *parent;

		if ((p->flags & PF_KTHREAD) || p->exit_state == EXIT_DEAD ||
		    !pod_in_session(s, p))
			continue;
		if (s->count == room) {
			error = -EAGAIN;
			break;
		}
		entry = &s->processes[s->count];
		memset(entry, 0, sizeof(*entry));
		parent = rcu_dereference(p->real_parent)->group_leader;
		entry->parent = p != s->root && pod_in_session(s, parent) ?
				task_tgid_nr(parent) : 0;
		entry->pid = pid_nr_ns(task_pid(p), s->ns);
		entry->inner_parent = entry->parent ?
				      pid_nr_ns(task_pid(parent), s->ns) : 0;
		entry->zombie = p->exit_state;
		get_task_struct(p);
		entry->leader = p;
		s->count++;
	}
	rcu_read_unlock();
	return error;
}

static void drop_processes(struct pod_session *s)
{
	while (s->count)
		put_task_struct(s->processes[--s->count].leader);
	kvfree(s->processes);
	s->processes = NULL;
}

/* Of the stopped session; parents before children. */
int pod_list_processes(struct pod_session *s)
{
	struct pod_process swap;
	u32 room = 64, placed, i;
	int error;

	do {
		drop_processes(s);
		room *= 2;
		s->processes = kvmalloc_array(room, sizeof(*s->processes),
					      GFP_KERNEL_ACCOUNT);
		if (!s->processes)
			return -ENOMEM;
		error = list_all(s, room);
	} while (error == -EAGAIN);
	for (placed = 0; placed < s->count;) {
		u32 before = placed;

		for (i = placed; i < s->count; i++) {
			struct pod_process *p = &s->processes[i];

			if (p->parent && !find_process(s, p->parent))
				continue;
			swap = *p;
			*p = s->processes[placed];
			s->processes[placed] = swap;
			s->processes[placed].placed = true;
			placed++;
		}
		/* A parent that is none of ours any more: an orphan. */
		if (placed == before) {
			s->processes[placed].parent = 0;
			s->processes[placed].inner_parent = 0;
		}
	}
	if (s->ask.kind == POD_PROCESS && s->count > 1)
		return pod_refuse_task(s, s->root, -ECHILD,
				       "dump the whole tree",
				       "it has children");
	return 0;
}

static bool same_ids(const struct cred *mine, const struct cred *theirs)
{
	return uid_eq(mine->fsuid, theirs->euid) &&
	       uid_eq(mine->fsuid, theirs->suid) &&
	       uid_eq(mine->fsuid, theirs->uid) &&
	       gid_eq(mine->fsgid, theirs->egid) &&
	       gid_eq(mine->fsgid, theirs->sgid) &&
	       gid_eq(mine->fsgid, theirs->gid);
}

/* As PTRACE_MODE_ATTACH_FSCREDS asks. */
static bool may_dump(struct task_struct *t)
{
	const struct cred *mine = current_cred();
	const struct cred *theirs = get_task_cred(t);
	bool over = ns_capable(theirs->user_ns, CAP_SYS_PTRACE);
	bool may = over;

	if (!may)
		may = same_ids(mine, theirs) &&
		      mine->user_ns == theirs->user_ns &&
		      cap_issubset(theirs->cap_permitted, mine->cap_effective);
	put_cred(theirs);
	if (!may)
		return false;
	/* Held, so it keeps its memory. */
	if (t->mm && pod_dumpable(t) != POD_DUMPABLE)
		return pod_may_trace_hidden(t);
	return true;
}

int pod_check_tasks(struct pod_session *s)
{
	struct pod_stop *stop;
	bool alive = false;
	u32 i;
	int error;

	for (i = 0; i < s->count; i++) {
		struct pod_process *p = &s->processes[i];

		if (p->zombie && !thread_group_empty(p->leader))
			return pod_refuse_task(s, p->leader, -EOPNOTSUPP, "",
					       "its first thread has ended while others run on");
		if (!p->zombie && !pod_stop_of(s, p->leader))
			return pod_refuse_task(s, p->leader, -EAGAIN,
					       "try again in a moment",
					       "it was just changing");
		alive |= !p->zombie;
	}
	if (!alive)
		return pod_refuse(s, -ESRCH, "", "%s has no running process",
				  s->ask.name);
	list_for_each_entry(stop, &s->stops, link) {
		if (!may_dump(stop->task))
			return pod_refuse_task(s, stop->task, -EPERM,
					       "a session is dumped by its own user or by root",
					       "no permission to dump it");
		error = pod_check_thread(s, stop);
		if (error)
			return error;
	}
	stop = list_first_entry(&s->stops, struct pod_stop, link);
	return pod_check_first(s, stop->task);
}

/* Whether a group or session belongs to a process that lives outside. */
bool pod_is_outside(struct pod_session *s, struct pid *id)
{
	struct task_struct *leader;
	bool outside;

	if (pid_nr_ns(id, s->ns) == 0)
		return true;
	if (s->ask.kind == POD_NAMESPACE)
		return pid_nr_ns(id, s->ns) <= 1;
	rcu_read_lock();
	leader = pid_task(id, PIDTYPE_PID);
	outside = leader && !pod_in_session(s, leader->group_leader);
	rcu_read_unlock();
	return outside;
}

/* Of a process of the session; 0 for all others. */
pid_t pod_inner_pid(struct pod_session *s, const struct pid *pid)
{
	u32 i;

	for (i = 0; pid && i < s->count; i++)
		if (task_pid(s->processes[i].leader) == pid)
			return s->processes[i].pid;
	return 0;
}

static pid_t number_inside(struct pod_session *s, struct pid *id)
{
	return pod_is_outside(s, id) ? 0 : pid_nr_ns(id, s->ns);
}

static void put_tree_entry(struct pod_session *s, struct pod_buf *b,
			   struct pod_process *p)
{
	struct task_struct *t = p->leader;
	struct signal_struct *signal = t->signal;
	struct pod_open o = pod_open(b);

	POD_INT(b, &o, "pid", p->pid);
	POD_INT(b, &o, "ppid", p->inner_parent);
	POD_INT(b, &o, "pgid", number_inside(s, signal->pids[PIDTYPE_PGID]));
	POD_INT(b, &o, "sid", number_inside(s, signal->pids[PIDTYPE_SID]));
	POD_STR(b, &o, "state", p->zombie ? "zombie" : "alive");
	POD_STR(b, &o, "comm", t->comm);
	POD_INT(b, &o, "exitSignal", max(t->exit_signal, 0));
	if (p->zombie)
		POD_INT(b, &o, "status",
			signal->flags & SIGNAL_GROUP_EXIT ?
			signal->group_exit_code : t->exit_code);
	pod_close_map(b, o);
}

static void put_tree(struct pod_session *s)
{
	u32 at, i;

	for (at = 0; at < s->count; at += TREE_ENTRIES) {
		struct pod_buf meta = {};
		struct pod_open o = pod_open(&meta), list;

		pod_field(&meta, &o, "processes");
		list = pod_open(&meta);
		for (i = at; i < s->count && i < at + TREE_ENTRIES; i++) {
			put_tree_entry(s, &meta, &s->processes[i]);
			list.count++;
		}
		pod_close_array(&meta, list);
		pod_close_map(&meta, o);
		pod_frame_to(s, POD_SECTION_FIRST, POD_FRAME_TREE, &meta,
			     NULL, 0);
	}
}

/* So that no reader learns to reject what it does not know. */
static void put_grease(struct pod_session *s)
{
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);
	u8 dice[8];

	get_random_bytes(dice, sizeof(dice));
	POD_BIN(&meta, &o, "grease", dice + 1, sizeof(dice) - 1);
	pod_close_map(&meta, o);
	pod_frame(&s->sections[POD_SECTION_FIRST],
		  POD_FRAME_GREASE_FIRST +
		  dice[0] % (POD_FRAME_GREASE_LAST - POD_FRAME_GREASE_FIRST + 1),
		  0, &meta, NULL, 0);
	pod_buf_free(&meta);
}

static void put_clocks(struct pod_buf *b, struct pod_open *o,
		       struct task_struct *t)
{
	struct pod_open clocks;
	u64 mono = ktime_get_ns(), boot = ktime_get_boottime_ns();

#ifdef CONFIG_TIME_NS
	mono += pod_ns(&t->nsproxy->time_ns->offsets.monotonic);
	boot += pod_ns(&t->nsproxy->time_ns->offsets.boottime);
#endif
	pod_field(b, o, "clocks");
	clocks = pod_open(b);
	POD_U64(b, &clocks, "realtimeNs", ktime_get_real_ns());
	POD_U64(b, &clocks, "monotonicNs", mono);
	POD_U64(b, &clocks, "boottimeNs", boot);
	pod_close_map(b, clocks);
}

static void put_words(struct pod_buf *b, struct pod_open *o, const char *key,
		      const char *words)
{
	struct pod_open list;
	size_t len;

	pod_field(b, o, key);
	list = pod_open(b);
	while (*words) {
		len = strcspn(words, " ");
		if (len) {
			pod_strn(b, words, len);
			list.count++;
		}
		words += len + (words[len] == ' ');
	}
	pod_close_array(b, list);
}

static void put_hello(struct pod_session *s, struct task_struct *t)
{
	/* As enum pod_need has them. */
	static const char *const needs[] = {
		"epoll", "eventfd", "futex-lists", "inotify", "posix-timers", "rseq",
		"signalfd", "timerfd",
	};
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta), list;
	int i;

	POD_STR(&meta, &o, "producer", s->ask.producer);
	POD_STR(&meta, &o, "engine", "kmod");
	POD_STR(&meta, &o, "kernel", init_utsname()->release);
	POD_STR(&meta, &o, "semantics", "2.6");
	POD_STR(&meta, &o, "arch", "x86_64");
	POD_INT(&meta, &o, "pageSize", PAGE_SIZE);
	put_words(&meta, &o, "cpuFeatures", s->ask.features);
	put_clocks(&meta, &o, t);
	POD_STR(&meta, &o, "pod", s->ask.name);
	pod_field(&meta, &o, "imageId");
	pod_strn(&meta, s->ask.image_id, POD_IMAGE_ID);
	pod_field(&meta, &o, "requires");
	list = pod_open(&meta);
	for (i = 0; i < ARRAY_SIZE(needs); i++) {
		if (!(s->needs & BIT(i)))
			continue;
		pod_str(&meta, needs[i]);
		list.count++;
	}
	pod_close_array(&meta, list);
	pod_field(&meta, &o, "history");
	pod_array(&meta, 0);
	POD_U64(&meta, &o, "memory", s->ask.memory);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FIRST, POD_FRAME_HELLO, &meta, NULL, 0);
}

static void put_limits(struct pod_session *s, struct pod_buf *b,
		       struct pod_open *o)
{
	struct pod_open limits;

	pod_field(b, o, "limits");
	limits = pod_open(b);
	if (s->ask.memory_limit)
		POD_U64(b, &limits, "memory", s->ask.memory_limit);
	if (s->ask.milli_cpus)
		POD_INT(b, &limits, "milliCpus", s->ask.milli_cpus);
	if (s->ask.pids_limit)
		POD_INT(b, &limits, "pids", s->ask.pids_limit);
	pod_close_map(b, limits);
}

static void put_pod(struct pod_session *s, struct task_struct *t)
{
	struct new_utsname *uts = &t->nsproxy->uts_ns->name;
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);
	char name[sizeof(uts->nodename)];

	POD_STR(&meta, &o, "name", s->ask.name);
	/* Who changes it meanwhile changes it by the byte. */
	strscpy(name, uts->nodename, sizeof(name));
	POD_STR(&meta, &o, "hostname", name);
	strscpy(name, uts->domainname, sizeof(name));
	POD_STR(&meta, &o, "domainname", name);
	POD_STR(&meta, &o, "root", "/");
	/* A session with a root of its own is not asked for (unseen.ts). */
	POD_BOOL(&meta, &o, "rooted", false);
	POD_BOOL(&meta, &o, "init", s->ask.kind == POD_NAMESPACE);
	if (s->ask.flags & POD_CONFINED)
		POD_BOOL(&meta, &o, "confined", true);
	if (s->ask.flags & POD_NET_HOST)
		POD_STR(&meta, &o, "net", "host");
	if (s->ask.flags & POD_LIMITED)
		put_limits(s, &meta, &o);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_FIRST, POD_FRAME_POD, &meta, NULL, 0);
}

/* The last to be collected: HELLO says what all others need. */
int pod_collect_tree(struct pod_session *s)
{
	struct task_struct *t =
		list_first_entry(&s->stops, struct pod_stop, link)->task;

	pod_preamble(&s->tally, &s->sections[POD_SECTION_FIRST]);
	put_hello(s, t);
	put_pod(s, t);
	put_tree(s);
	put_grease(s);
	return s->sections[POD_SECTION_FIRST].error;
}

static void put_process(struct pod_session *s, struct pod_process *p, int *error)
{
	struct task_struct *t = p->leader;
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);

	POD_INT(&meta, &o, "pid", p->pid);
	POD_INT(&meta, &o, "mm", p->mm);
	POD_INT(&meta, &o, "files", p->files);
	POD_INT(&meta, &o, "fs", p->fs);
	POD_INT(&meta, &o, "handlers", p->handlers);
	pod_put_limits(&meta, &o, t);
	POD_INT(&meta, &o, "personality", t->personality);
	pod_put_pending(&meta, &o, &t->signal->shared_pending, t);
	*error = pod_put_timers(s, &meta, &o, t);
	pod_put_processor_states(&meta, &o, t);
	pod_put_process_times(&meta, &o, t);
	if (t->signal->is_child_subreaper)
		POD_BOOL(&meta, &o, "childSubreaper", true);
	POD_INT(&meta, &o, "oomScoreAdjust", t->signal->oom_score_adj);
	POD_INT(&meta, &o, "coredumpFilter",
		(pod_mm_flags(t->mm) & MMF_DUMP_FILTER_MASK) >>
			MMF_DUMP_FILTER_SHIFT);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_TASKS, POD_FRAME_PROCESS, &meta, NULL, 0);
}

static void put_thread(struct pod_session *s, struct pod_process *p,
		       struct pod_stop *stop)
{
	struct task_struct *t = stop->task;
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta), inner;

	POD_INT(&meta, &o, "pid", p->pid);
	POD_INT(&meta, &o, "tid", pid_nr_ns(task_pid(t), s->ns));
	POD_STR(&meta, &o, "comm", t->comm);
	pod_put_registers(stop, &meta, &o);
	pod_put_signals(&meta, &o, t);
	pod_put_credentials(&meta, &o, t);
	pod_put_scheduling(&meta, &o, t);
	pod_put_thread_attributes(&meta, &o, t);
	pod_put_thread_times(&meta, &o, t);
	if (pod_robust_list(t)) {
		pod_field(&meta, &o, "robustList");
		inner = pod_open(&meta);
		POD_U64(&meta, &inner, "head", (__force u64)pod_robust_list(t));
		POD_U64(&meta, &inner, "length",
			sizeof(struct robust_list_head));
		pod_close_map(&meta, inner);
		s->needs |= POD_NEEDS_ROBUST;
	}
	if (t->clear_child_tid)
		POD_U64(&meta, &o, "clearChildTid",
			(__force u64)t->clear_child_tid);
#ifdef CONFIG_RSEQ
	if (pod_rseq(t)) {
		pod_field(&meta, &o, "rseq");
		inner = pod_open(&meta);
		POD_U64(&meta, &inner, "address", (__force u64)pod_rseq(t));
		POD_INT(&meta, &inner, "length", pod_rseq_length(t));
		POD_INT(&meta, &inner, "signature", pod_rseq_signature(t));
		POD_INT(&meta, &inner, "flags", 0);
		pod_close_map(&meta, inner);
		s->needs |= POD_NEEDS_RSEQ;
	}
#endif
	if (t->pdeath_signal)
		POD_INT(&meta, &o, "parentDeathSignal", t->pdeath_signal);
	pod_put_rights(stop, &meta, &o);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_TASKS, POD_FRAME_THREAD, &meta,
		     stop->extended, stop->extended_len);
}

int pod_collect_tasks(struct pod_session *s)
{
	struct pod_process *p;
	struct pod_stop *stop;
	int error = 0;
	u32 i;

	for (i = 0; i < s->count && !error; i++) {
		p = &s->processes[i];
		if (p->zombie)
			continue;
		put_process(s, p, &error);
		if (error)
			break;
		put_thread(s, p, pod_stop_of(s, p->leader));
		list_for_each_entry(stop, &s->stops, link)
			if (stop->task != p->leader &&
			    stop->task->group_leader == p->leader)
				put_thread(s, p, stop);
	}
	return error;
}
