// SPDX-License-Identifier: GPL-2.0
/*
 * Registers of a thread, taken by itself when it stops, and how the system
 * call goes on that the stop has interrupted.
 *
 * An image cannot hold a restart block, so a call is put back to where it can
 * be made again. A relative sleep goes on with its rest, which the kernel has
 * written where the program asked for it. The rest of other relative time-outs
 * the kernel alone knows: it is told beside the registers.
 *
 * epoll_wait(2), sigtimedwait(2) and their kin end with EINTR after any stop
 * (signal(7)). A program that was only looked at must not see that: the
 * result is turned into the one that means "again, unless a handler runs".
 */
#include <linux/elf.h>
#include <linux/mm.h>
#include <linux/ptrace.h>
#include <linux/timekeeping.h>
#include <linux/regset.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include <asm/fpu/types.h>
#include <asm/fpu/xstate.h>
#include <asm/processor.h>
#include <asm/unistd.h>
#include "compat.h"
#include "session.h"

/* linux/errno.h, for calls inside the kernel only. */
static bool means_again(long result)
{
	return result == -ERESTARTSYS || result == -ERESTARTNOINTR ||
	       result == -ERESTARTNOHAND;
}

/* Calls that end with EINTR after a stop even when no handler ran. */
static bool ended_by_stop(long number)
{
	switch (number) {
	case __NR_epoll_wait:
	case __NR_epoll_pwait:
	case __NR_semop:
	case __NR_semtimedop:
	case __NR_rt_sigtimedwait:
	case __NR_io_getevents:
	case __NR_io_pgetevents:
	case __NR_msgrcv:
	case __NR_msgsnd:
	case __NR_pause:
#ifdef __NR_epoll_pwait2
	case __NR_epoll_pwait2:
#endif
		return true;
	}
	return false;
}

static bool has_restart_block(u32 number)
{
	return number == __NR_nanosleep || number == __NR_clock_nanosleep ||
	       number == __NR_poll || number == __NR_futex;
}

/* futex(word, FUTEX_WAIT or FUTEX_WAIT_BITSET, value, time-out) */
static bool looks_like_futex_wait(const struct user_regs_struct *r)
{
	u64 operation = r->si & ~0x180ul;	/* PRIVATE, CLOCK_REALTIME */

	return r->di >= PAGE_SIZE && (operation == 0 || operation == 9) &&
	       r->r10 >= PAGE_SIZE;
}

/*
 * A call with a restart block that was stopped before has become
 * restart_syscall(2). Its arguments are all there; its number is in the code
 * that made it, mov $number, %eax; syscall, as every libc inlines it.
 */
static void name_restarted(struct user_regs_struct *r)
{
	u8 code[7] = {};
	u32 number;

	if ((long)r->orig_ax != __NR_restart_syscall)
		return;
	if (copy_from_user(code, (void __user *)(r->ip - sizeof(code)),
			   sizeof(code)))
		code[0] = 0;
	memcpy(&number, code + 1, sizeof(number));
	if (code[0] == 0xb8) {
		if (has_restart_block(number))
			r->orig_ax = number;
	} else if (looks_like_futex_wait(r)) {
		r->orig_ax = __NR_futex;
	}
}

static bool is_relative_futex_wait(const struct user_regs_struct *r)
{
	return (r->si & ~0x180ul) == 0;
}

/* When a sleep ends, by a clock that goes on as that does. */
static bool clock_now(clockid_t clock, u64 *now)
{
	switch (clock) {
	case CLOCK_MONOTONIC:
		*now = ktime_get_ns();
		return true;
	case CLOCK_BOOTTIME:
		*now = ktime_get_boottime_ns();
		return true;
	case CLOCK_TAI:
		*now = ktime_get_clocktai_ns();
		return true;
	}
	return false;
}

/*
 * What is left of a relative time-out, for which the program gave no place. In
 * the thread itself. Its registers say which call it is: a program that has
 * them set otherwise gets a wrong time, and nothing else.
 */
static void find_rest(struct pod_stop *stop)
{
	const struct restart_block *block = &current->restart_block;
	const struct user_regs_struct *r = &stop->regs;
	u64 end, now = ktime_get_ns();

	if ((long)r->ax != -ERESTART_RESTARTBLOCK)
		return;
	switch (r->orig_ax) {
	case __NR_nanosleep:
		if (r->si || !clock_now(block->nanosleep.clockid, &now))
			return;
		end = block->nanosleep.expires;
		break;
	case __NR_clock_nanosleep:
		if (r->r10 || !clock_now(block->nanosleep.clockid, &now))
			return;
		end = block->nanosleep.expires;
		break;
	case __NR_poll:
		if (!block->poll.has_timeout)
			return;
		end = pod_poll_end(block);
		break;
	case __NR_futex:
		if (!is_relative_futex_wait(r))
			return;
		end = block->futex.time;
		break;
	default:
		return;
	}
	/* Else it has run out just now: what is left is nothing. */
	stop->rest_ns = (s64)(end - now) > 0 ? end - now : 0;
	stop->has_rest = true;
}

static int get_regset(int type, void **bytes)
{
	const struct user_regset_view *view = task_user_regset_view(current);
	const struct user_regset *set = NULL;
	void *room;
	int i, got;

	for (i = 0; i < view->n; i++)
		if (view->regsets[i].core_note_type == type)
			set = &view->regsets[i];
	if (!set || (set->active && set->active(current, set) <= 0))
		return -ENODEV;
	room = kvzalloc(set->n * set->size, GFP_KERNEL);
	if (!room)
		return -ENOMEM;
	got = regset_get(current, set, set->n * set->size, room);
	if (got < 0) {
		kvfree(room);
		return got;
	}
	*bytes = room;
	return got;
}

/* Where CPUID tells of the components of XSAVE; its name changes. */
#define XSTATE_LEAF 0xd

/* pkru: rights to protection keys, where the processor has them */
void pod_put_rights(struct pod_stop *stop, struct pod_buf *b,
		    struct pod_open *o)
{
	u32 size, at, ignored, rights;

	if (!boot_cpu_has(X86_FEATURE_OSPKE))
		return;
	/* A component of XSAVE; in its standard form each has its place. */
	cpuid_count(XSTATE_LEAF, XFEATURE_PKRU, &size, &at, &ignored,
		    &ignored);
	if (!at || at + sizeof(rights) > stop->extended_len)
		return;
	memcpy(&rights, stop->extended + at, sizeof(rights));
	POD_INT(b, o, "pkru", rights);
}

/* In the thread itself. */
int pod_capture(struct pod_stop *stop)
{
	struct pt_regs *live = current_pt_regs();
	void *general;
	int got;

	/* A 32-bit task is refused by its code segment, which must be known. */
	if (!user_64bit_mode(live)) {
		stop->regs.cs = live->cs;
		return 0;
	}
	if ((long)live->orig_ax >= 0 && (long)live->ax == -EINTR &&
	    ended_by_stop(live->orig_ax))
		live->ax = -ERESTARTNOHAND;
	pod_abort_sequence(live);
	got = get_regset(NT_PRSTATUS, &general);
	if (got < 0)
		return got;
	memcpy(&stop->regs, general,
	       min_t(size_t, got, sizeof(stop->regs)));
	kvfree(general);
	name_restarted(&stop->regs);
	find_rest(stop);
	got = get_regset(NT_X86_XSTATE, &stop->extended);
	if (got < 0)
		got = get_regset(NT_PRFPREG, &stop->extended);
	if (got < 0)
		return got;
	stop->extended_len = got;
	return 0;
}

/* The kernel writes the rest of a relative sleep to the caller's rem. */
static void use_rest(struct user_regs_struct *r, long number)
{
	if (number == __NR_nanosleep && r->si)
		r->di = r->si;
	if (number == __NR_clock_nanosleep && r->r10)
		r->dx = r->r10;
}

/* registers, with which the thread can be set going anywhere; systemCall */
void pod_put_registers(struct pod_stop *stop, struct pod_buf *b,
		       struct pod_open *o)
{
	struct user_regs_struct r = stop->regs;
	long number = r.orig_ax, result = r.ax;
	bool rest = result == -ERESTART_RESTARTBLOCK;
	bool again = number >= 0 && (means_again(result) || rest);
	struct pod_open call;

	if (again) {
		r.ip -= 2;
		r.ax = r.orig_ax;
		if (rest)
			use_rest(&r, number);
	}
	r.orig_ax = ~0ul;
	POD_BIN(b, o, "registers", &r, sizeof(r));
	if (!again)
		return;
	pod_field(b, o, "systemCall");
	call = pod_open(b);
	POD_INT(b, &call, "number", number);
	POD_STR(b, &call, "restart", rest ? "rest" : "again");
	if (stop->has_rest)
		POD_U64(b, &call, "restNs", stop->rest_ns);
	pod_close_map(b, call);
}
