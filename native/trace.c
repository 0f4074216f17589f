/*
 * ptrace(2) as primitives, and the one composite: a list of system calls run in a stopped task.
 *
 * In a task of a running session a remote call is two stops, system-call entry and exit (PTRACE_SYSCALL). Not a single
 * step: its SIGTRAP is forced on the task, and forcing a blocked or ignored signal resets the program's handler. A clone
 * in the list adds a PTRACE_EVENT stop between the two, whose message is the new task.
 *
 * A task that is ours alone has a loop that makes a whole table of calls and then sends itself SIGSTOP, which no task
 * can block or ignore and which we take away when it is delivered: one stop for all of them.
 */
#include "addon.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REGISTERS (sizeof(struct user_regs_struct))
#define MAX_REGSET (64 << 10)
#define SYSTEM_CALL_STOP (SIGTRAP | 0x80)
#define WORDS_A_CALL 7
#define CALL_LENGTH (WORDS_A_CALL * sizeof(uint64_t))

struct rseq_configuration {
	uint64_t address;
	uint32_t length;
	uint32_t signature;
	uint32_t flags;
	uint32_t pad;
};

/* libuv has a handler for the end of children, which each stop of a traced task would run too. */
static void ignore_stops(void)
{
	struct sigaction action;

	if (sigaction(SIGCHLD, NULL, &action) < 0 || action.sa_handler == SIG_DFL || (action.sa_flags & SA_NOCLDSTOP))
		return;
	action.sa_flags |= SA_NOCLDSTOP;
	sigaction(SIGCHLD, &action, NULL);
}

static napi_value seize(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	long options = integer_argument(&arguments, 1);

	ignore_stops();
	if (!is_throwing(env) && ptrace(PTRACE_SEIZE, tid, 0, options) < 0)
		return throw_errno(env, errno, "ptrace(SEIZE)");
	return NULL;
}

static napi_value interrupt(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);

	if (!is_throwing(env) && ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return throw_errno(env, errno, "ptrace(INTERRUPT)");
	return NULL;
}

static napi_value resume(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	int how = integer_argument(&arguments, 1);
	long signal = integer_argument(&arguments, 2);

	if (!is_throwing(env) && ptrace(how, tid, 0, signal) < 0)
		return throw_errno(env, errno, "ptrace(resume)");
	return NULL;
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/*
 * A first thread that was killed with its process is not reported before the tracer has taken note of the end of all
 * other threads: a wait for it alone would never end. So whoever waits without limit is woken now and then, by a
 * signal of this thread's own, to see whether the task is dead.
 */
#define WAKE_MS 100

static void ignore_wake(int signal)
{
	(void)signal;
}

static void set_wake(bool on)
{
	static _Thread_local timer_t timer;
	static _Thread_local bool made;
	long pause = on ? WAKE_MS * 1000000L : 0;

	if (!made) {
		struct sigaction action = { .sa_handler = ignore_wake };
		struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMAX - 1 };

		event._sigev_un._tid = gettid();
		if (sigaction(event.sigev_signo, &action, NULL) < 0 || timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
			return;
		made = true;
	}
	timer_settime(timer, 0, &(struct itimerspec){ { .tv_nsec = pause }, { .tv_nsec = pause } }, NULL);
}

static bool is_dead(pid_t tid)
{
	char path[32], text[256] = "";
	char *end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return true;
	(void)!fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	end = strrchr(text, ')');
	return end && end[1] && (end[2] == 'Z' || end[2] == 'X');
}

/* wait4 without limit, between set_wake(true) and set_wake(false). */
static pid_t wait_for(pid_t tid, int *status)
{
	for (;;) {
		pid_t found = waitpid(tid, status, __WALL);

		if (found >= 0 || errno != EINTR)
			return found;
		if (!is_dead(tid))
			continue;
		found = waitpid(tid, status, __WALL | WNOHANG);
		if (found != 0)
			return found;
		errno = ESRCH;
		return -1;
	}
}

/*
 * wait4 with a time limit. Tasks stop within microseconds, so the first looks are close together and the pause
 * grows only for those that do not.
 */
static pid_t wait_until(pid_t tid, int *status, double timeout)
{
	double until = now_ms() + timeout;
	long pause = 1000;

	for (;;) {
		pid_t found = waitpid(tid, status, __WALL | WNOHANG);

		if (found != 0 && !(found < 0 && errno == EINTR))
			return found;
		if (now_ms() >= until)
			return 0;
		if (found == 0) {
			nanosleep(&(struct timespec){ .tv_nsec = pause }, NULL);
			if (pause < 1000000)
				pause *= 2;
		}
	}
}

static napi_value wait_stop(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	double timeout = (double)integer_argument(&arguments, 1);
	int status = 0;
	napi_value object, state;
	pid_t found;

	if (is_throwing(env))
		return NULL;
	if (timeout < 0) {
		set_wake(true);
		found = wait_for(tid, &status);
		set_wake(false);
	} else {
		found = wait_until(tid, &status, timeout);
	}
	if (found == 0)
		return make_undefined(env);
	if (found < 0)
		return throw_errno(env, errno, "wait4");
	napi_create_object(env, &object);
	napi_create_string_utf8(env, WIFSTOPPED(status) ? "stopped" : "exited", NAPI_AUTO_LENGTH, &state);
	set_property(env, object, "state", state);
	set_property(env, object, "signal", make_number(env, WIFSTOPPED(status) ? WSTOPSIG(status) : status));
	set_property(env, object, "event", make_number(env, WIFSTOPPED(status) ? status >> 16 : 0));
	return object;
}

static napi_value get_registers(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	struct user_regs_struct registers;

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_GETREGS, tid, 0, &registers) < 0)
		return throw_errno(env, errno, "ptrace(GETREGS)");
	return make_bytes(env, &registers, sizeof(registers));
}

static napi_value set_registers(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	size_t length;
	uint8_t *bytes = bytes_argument(&arguments, 1, &length);

	if (is_throwing(env))
		return NULL;
	if (length != REGISTERS)
		return throw_errno(env, EINVAL, "ptrace(SETREGS)");
	if (ptrace(PTRACE_SETREGS, tid, 0, bytes) < 0)
		return throw_errno(env, errno, "ptrace(SETREGS)");
	return NULL;
}

static napi_value get_regset(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	unsigned long type = integer_argument(&arguments, 1);
	static _Alignas(64) uint8_t bytes[MAX_REGSET];
	struct iovec vector = { .iov_base = bytes, .iov_len = sizeof(bytes) };

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_GETREGSET, tid, type, &vector) < 0)
		return throw_errno(env, errno, "ptrace(GETREGSET)");
	return make_bytes(env, bytes, vector.iov_len);
}

static napi_value set_regset(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	unsigned long type = integer_argument(&arguments, 1);
	size_t length;
	uint8_t *bytes = bytes_argument(&arguments, 2, &length);
	struct iovec vector = { .iov_base = bytes, .iov_len = length };

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_SETREGSET, tid, type, &vector) < 0)
		return throw_errno(env, errno, "ptrace(SETREGSET)");
	return NULL;
}

static napi_value get_signal_mask(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	uint64_t mask;

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return throw_errno(env, errno, "ptrace(GETSIGMASK)");
	return make_word(env, mask);
}

static napi_value set_signal_mask(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	uint64_t mask = word_argument(&arguments, 1);

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return throw_errno(env, errno, "ptrace(SETSIGMASK)");
	return NULL;
}

#define SIGNALS_A_CALL 32

static napi_value peek_signals(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	bool shared = false;
	siginfo_t signals[SIGNALS_A_CALL];
	struct __ptrace_peeksiginfo_args request = { .nr = SIGNALS_A_CALL };
	napi_value list;
	uint32_t count = 0;

	napi_get_value_bool(env, arguments.value[1], &shared);
	if (is_throwing(env))
		return NULL;
	request.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0;
	napi_create_array(env, &list);
	for (;;) {
		long found;

		request.off = count;
		found = ptrace(PTRACE_PEEKSIGINFO, tid, &request, signals);
		if (found < 0)
			return throw_errno(env, errno, "ptrace(PEEKSIGINFO)");
		for (long i = 0; i < found; i++)
			napi_set_element(env, list, count++, make_bytes(env, &signals[i], sizeof(siginfo_t)));
		if (found < SIGNALS_A_CALL)
			return list;
	}
}

static napi_value get_event_message(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	unsigned long message;

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &message) < 0)
		return throw_errno(env, errno, "ptrace(GETEVENTMSG)");
	return make_word(env, message);
}

static napi_value get_siginfo(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	siginfo_t signal;

	if (is_throwing(env))
		return NULL;
	if (ptrace(PTRACE_GETSIGINFO, tid, 0, &signal) < 0)
		return throw_errno(env, errno, "ptrace(GETSIGINFO)");
	return make_bytes(env, &signal, sizeof(signal));
}

static napi_value get_rseq(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	struct rseq_configuration rseq = { 0 };
	napi_value object;

	if (is_throwing(env))
		return NULL;
	if (ptrace(0x420f /* PTRACE_GET_RSEQ_CONFIGURATION */, tid, sizeof(rseq), &rseq) < 0) {
		if (errno == EIO || errno == EINVAL)
			return make_null(env);
		return throw_errno(env, errno, "ptrace(GET_RSEQ_CONFIGURATION)");
	}
	if (rseq.address == 0)
		return make_undefined(env);
	napi_create_object(env, &object);
	set_property(env, object, "address", make_word(env, rseq.address));
	set_property(env, object, "length", make_number(env, rseq.length));
	set_property(env, object, "signature", make_number(env, rseq.signature));
	set_property(env, object, "flags", make_number(env, rseq.flags));
	return object;
}

static napi_value poke(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	uint64_t address = word_argument(&arguments, 1);
	uint64_t value = word_argument(&arguments, 2);

	if (!is_throwing(env) && ptrace(PTRACE_POKEDATA, tid, address, value) < 0)
		return throw_errno(env, errno, "ptrace(POKEDATA)");
	return NULL;
}

static napi_value peek(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	uint64_t address = word_argument(&arguments, 1);
	long value;

	if (is_throwing(env))
		return NULL;
	errno = 0;
	value = ptrace(PTRACE_PEEKDATA, tid, address, 0);
	if (errno)
		return throw_errno(env, errno, "ptrace(PEEKDATA)");
	return make_word(env, value);
}

/* The task's next stop after `how`; -errno when it died or ptrace failed. */
static int next_stop(pid_t tid, int how, int *status)
{
	if (ptrace(how, tid, 0, 0) < 0)
		return -errno;
	if (wait_for(tid, status) < 0)
		return -errno;
	return WIFSTOPPED(*status) ? 0 : -ESRCH;
}

/*
 * Run one call to its exit stop. Signal stops on the way (a caller that did not block signals) are held back:
 * the signal is queued again behind the call, by resuming without it only when it is the tracer's own SIGTRAP.
 */
static int run_call(pid_t tid, struct user_regs_struct registers, const uint64_t call[7], int64_t *result, pid_t *child)
{
	bool entered = false;
	int status, error;

	registers.orig_rax = -1;
	registers.rax = call[0];
	registers.rdi = call[1];
	registers.rsi = call[2];
	registers.rdx = call[3];
	registers.r10 = call[4];
	registers.r8 = call[5];
	registers.r9 = call[6];
	if (ptrace(PTRACE_SETREGS, tid, 0, &registers) < 0)
		return -errno;
	for (;;) {
		error = next_stop(tid, PTRACE_SYSCALL, &status);
		if (error)
			return error;
		if (status >> 16) {
			int event = status >> 16;
			unsigned long message;

			if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
				if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &message) < 0)
					return -errno;
				*child = message;
			}
			continue;
		}
		if (WSTOPSIG(status) != SYSTEM_CALL_STOP)
			return -EINTR;
		if (entered)
			break;
		entered = true;
	}
	if (ptrace(PTRACE_GETREGS, tid, 0, &registers) < 0)
		return -errno;
	*result = registers.rax;
	return 0;
}

/* The tasks that a list of calls makes. */
struct children {
	napi_env env;
	napi_value list;
	uint32_t count;
};

static void add_child(struct children *children, pid_t child)
{
	if (child)
		napi_set_element(children->env, children->list, children->count++, make_number(children->env, child));
}

static int run_singly(pid_t tid, const struct user_regs_struct *registers, const uint64_t *calls, size_t count,
		      int64_t *results, struct children *children)
{
	for (size_t i = 0; i < count; i++) {
		pid_t child = 0;
		int error = run_call(tid, *registers, calls + WORDS_A_CALL * i, &results[i], &child);

		if (error)
			return error;
		add_child(children, child);
	}
	return 0;
}

/* Where a task of ours has its loop (call-site.ts), and the table of calls that it makes. */
struct loop {
	uint64_t code, table;
	size_t room;
};

/* The loop, from its start to its SIGSTOP. */
static int run_loop(pid_t tid, struct user_regs_struct registers, const struct loop *loop, size_t count,
		    struct children *children)
{
	int status, error;

	registers.orig_rax = -1;
	registers.rip = loop->code;
	registers.rbx = loop->table;
	registers.rbp = count;
	if (ptrace(PTRACE_SETREGS, tid, 0, &registers) < 0)
		return -errno;
	for (;;) {
		unsigned long message;
		int event;

		error = next_stop(tid, PTRACE_CONT, &status);
		if (error)
			return error;
		event = status >> 16;
		if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
			if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &message) < 0)
				return -errno;
			add_child(children, message);
		}
		if (event == 0)
			return WSTOPSIG(status) == SIGSTOP ? 0 : -EINTR;
	}
}

/* Each result comes back in the place of its call's number. */
static int run_in_loop(pid_t tid, const struct user_regs_struct *registers, const struct loop *loop,
		       const uint64_t *calls, size_t count, int64_t *results, struct children *children)
{
	uint64_t *done = malloc(loop->room * CALL_LENGTH);
	int error = done ? 0 : -ENOMEM;

	for (size_t at = 0; at < count && !error; at += loop->room) {
		size_t part = count - at < loop->room ? count - at : loop->room;
		struct iovec table = { .iov_base = (void *)loop->table, .iov_len = part * CALL_LENGTH };
		struct iovec to = { .iov_base = (void *)(calls + WORDS_A_CALL * at), .iov_len = table.iov_len };
		struct iovec from = { .iov_base = done, .iov_len = table.iov_len };

		if (process_vm_writev(tid, &to, 1, &table, 1, 0) != (ssize_t)table.iov_len) {
			error = -EFAULT;
			break;
		}
		error = run_loop(tid, *registers, loop, part, children);
		if (!error && process_vm_readv(tid, &from, 1, &table, 1, 0) != (ssize_t)table.iov_len)
			error = -EFAULT;
		for (size_t i = 0; i < part && !error; i++)
			results[at + i] = (int64_t)done[WORDS_A_CALL * i];
	}
	free(done);
	return error;
}

static napi_value remote_calls(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t tid = integer_argument(&arguments, 0);
	size_t registers_length, calls_length;
	uint8_t *registers = bytes_argument(&arguments, 1, &registers_length);
	uint64_t *calls = (uint64_t *)bytes_argument(&arguments, 2, &calls_length);
	struct loop loop = { .code = word_argument(&arguments, 3), .table = word_argument(&arguments, 4) };
	napi_value object, buffer, results_array;
	struct user_regs_struct template;
	struct children children = { .env = env };
	int64_t *results;
	size_t count;
	int error;

	loop.room = integer_argument(&arguments, 5);
	if (is_throwing(env))
		return NULL;
	if (registers_length != REGISTERS || calls_length % CALL_LENGTH != 0 || (loop.code && loop.room == 0))
		return throw_errno(env, EINVAL, "remoteCalls");
	memcpy(&template, registers, sizeof(template));
	count = calls_length / CALL_LENGTH;
	napi_create_arraybuffer(env, count * 8, (void **)&results, &buffer);
	napi_create_array(env, &children.list);
	set_wake(true);
	if (loop.code)
		error = run_in_loop(tid, &template, &loop, calls, count, results, &children);
	else
		error = run_singly(tid, &template, calls, count, results, &children);
	set_wake(false);
	if (error)
		return throw_errno(env, -error, "remote call");
	napi_create_typedarray(env, napi_bigint64_array, count, buffer, 0, &results_array);
	napi_create_object(env, &object);
	set_property(env, object, "results", results_array);
	set_property(env, object, "children", children.list);
	return object;
}

void export_trace(napi_env env, napi_value exports)
{
	export_function(env, exports, "seize", seize);
	export_function(env, exports, "interrupt", interrupt);
	export_function(env, exports, "resume", resume);
	export_function(env, exports, "waitStop", wait_stop);
	export_function(env, exports, "getRegisters", get_registers);
	export_function(env, exports, "setRegisters", set_registers);
	export_function(env, exports, "getRegset", get_regset);
	export_function(env, exports, "setRegset", set_regset);
	export_function(env, exports, "getSignalMask", get_signal_mask);
	export_function(env, exports, "setSignalMask", set_signal_mask);
	export_function(env, exports, "peekSignals", peek_signals);
	export_function(env, exports, "getEventMessage", get_event_message);
	export_function(env, exports, "getSiginfo", get_siginfo);
	export_function(env, exports, "getRseq", get_rseq);
	export_function(env, exports, "poke", poke);
	export_function(env, exports, "peek", peek);
	export_function(env, exports, "remoteCalls", remote_calls);
}
