/*
 * ptrace(2) as primitives, and the one composite: a list of system calls run in a stopped task.
 *
 * In a task of a running session a remote call is two stops, system-call entry and exit (PTRACE_SYSCALL). Not a single
 * step: its SIGTRAP is forced on the task, and forcing a blocked or ignored signal resets the program's handler. A clone
 * in the list adds a PTRACE_EVENT stop between the two, whose message is the new task.
 *
 * Lists for several tasks are run in step: all tasks are set going before the first is waited for, so that none of the
 * processors waits while a task and we take turns.
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

/* The tasks that calls make. */
struct children {
	napi_env env;
	napi_value list;
	uint32_t count;
};

/* Calls for one task. */
struct job {
	pid_t tid;
	struct user_regs_struct registers;
	const uint64_t *calls;
	size_t count;
	int64_t *results;
	/* Where a task of ours has its loop (call-site.ts), and the table of calls that it makes; 0 when it has none. */
	uint64_t loop, table;
	/* What went wrong: it is out then, and the others go on to where they can be left. */
	int error;
};

/*
 * The task's next stop that is `expected`; `how` sets it going again behind stops on the way. -errno when it died, or
 * met a signal, which are all blocked.
 */
static int await_stop(pid_t tid, int how, int expected, struct children *children)
{
	int status;

	for (;;) {
		int event;

		if (wait_for(tid, &status) < 0)
			return -errno;
		if (!WIFSTOPPED(status))
			return -ESRCH;
		event = status >> 16;
		if (event == 0)
			return WSTOPSIG(status) == expected ? 0 : -EINTR;
		if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
			unsigned long message;

			if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &message) < 0)
				return -errno;
			napi_set_element(children->env, children->list, children->count++,
					 make_number(children->env, message));
		}
		if (ptrace(how, tid, 0, 0) < 0)
			return -errno;
	}
}

static int resume_with(pid_t tid, const struct user_regs_struct *registers, int how)
{
	return ptrace(PTRACE_SETREGS, tid, 0, registers) < 0 || ptrace(how, tid, 0, 0) < 0 ? -errno : 0;
}

static int begin_call(const struct job *job, size_t index)
{
	struct user_regs_struct registers = job->registers;
	const uint64_t *call = job->calls + WORDS_A_CALL * index;

	registers.orig_rax = -1;
	registers.rax = call[0];
	registers.rdi = call[1];
	registers.rsi = call[2];
	registers.rdx = call[3];
	registers.r10 = call[4];
	registers.r8 = call[5];
	registers.r9 = call[6];
	return resume_with(job->tid, &registers, PTRACE_SYSCALL);
}

static int enter_call(const struct job *job, struct children *children)
{
	int error = await_stop(job->tid, PTRACE_SYSCALL, SYSTEM_CALL_STOP, children);

	return error ? error : ptrace(PTRACE_SYSCALL, job->tid, 0, 0) < 0 ? -errno : 0;
}

static int end_call(const struct job *job, size_t index, struct children *children)
{
	struct user_regs_struct registers;
	int error = await_stop(job->tid, PTRACE_SYSCALL, SYSTEM_CALL_STOP, children);

	if (error)
		return error;
	if (ptrace(PTRACE_GETREGS, job->tid, 0, &registers) < 0)
		return -errno;
	job->results[index] = (int64_t)registers.rax;
	return 0;
}

/* In a task of a session: call by call. */
static void run_calls(struct job *jobs, size_t count, struct children *children)
{
	bool more = true;

	for (size_t index = 0; more; index++) {
		more = false;
		for (int part = 0; part < 3; part++) {
			for (struct job *job = jobs; job < jobs + count; job++) {
				if (index >= job->count || job->error)
					continue;
				more = true;
				job->error = part == 0   ? begin_call(job, index)
					     : part == 1 ? enter_call(job, children)
							 : end_call(job, index, children);
			}
		}
	}
}

static int begin_loop(const struct job *job, size_t at, size_t part)
{
	struct user_regs_struct registers = job->registers;
	struct iovec table = { .iov_base = (void *)job->table, .iov_len = part * CALL_LENGTH };
	struct iovec calls = { .iov_base = (void *)(job->calls + WORDS_A_CALL * at), .iov_len = table.iov_len };

	if (process_vm_writev(job->tid, &calls, 1, &table, 1, 0) != (ssize_t)table.iov_len)
		return -EFAULT;
	registers.orig_rax = -1;
	registers.rip = job->loop;
	registers.rbx = job->table;
	registers.rbp = part;
	return resume_with(job->tid, &registers, PTRACE_CONT);
}

/* Each result comes back in the place of its call's number. */
static int end_loop(const struct job *job, size_t at, size_t part, uint64_t *done, struct children *children)
{
	struct iovec table = { .iov_base = (void *)job->table, .iov_len = part * CALL_LENGTH };
	struct iovec results = { .iov_base = done, .iov_len = table.iov_len };
	int error = await_stop(job->tid, PTRACE_CONT, SIGSTOP, children);

	if (error)
		return error;
	if (process_vm_readv(job->tid, &results, 1, &table, 1, 0) != (ssize_t)table.iov_len)
		return -EFAULT;
	for (size_t i = 0; i < part; i++)
		job->results[at + i] = (int64_t)done[WORDS_A_CALL * i];
	return 0;
}

/* In a task of ours: table by table, with `room` calls each. */
static int run_loops(struct job *jobs, size_t count, size_t room, struct children *children)
{
	uint64_t *done = malloc(room * CALL_LENGTH);
	bool more = true;

	if (!done)
		return -ENOMEM;
	for (size_t at = 0; more; at += room) {
		more = false;
		for (int phase = 0; phase < 2; phase++) {
			for (struct job *job = jobs; job < jobs + count; job++) {
				size_t part;

				if (at >= job->count || job->error)
					continue;
				more = true;
				part = job->count - at < room ? job->count - at : room;
				job->error = phase == 0 ? begin_loop(job, at, part)
							: end_loop(job, at, part, done, children);
			}
		}
	}
	free(done);
	return 0;
}

#define WORDS_A_JOB 4

static napi_value remote_calls(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	size_t jobs_length, registers_length, calls_length;
	const uint64_t *words = (uint64_t *)bytes_argument(&arguments, 0, &jobs_length);
	uint8_t *registers = bytes_argument(&arguments, 1, &registers_length);
	const uint64_t *calls = (uint64_t *)bytes_argument(&arguments, 2, &calls_length);
	int64_t room = integer_argument(&arguments, 3);
	size_t jobs_count = jobs_length / (WORDS_A_JOB * sizeof(*words)), calls_count = calls_length / CALL_LENGTH, at = 0;
	napi_value object, buffer, results_array;
	struct children children = { .env = env };
	struct job *jobs;
	int64_t *results;
	int error = 0;

	if (is_throwing(env))
		return NULL;
	if (registers_length != jobs_count * REGISTERS || calls_length % CALL_LENGTH != 0)
		return throw_errno(env, EINVAL, "remoteCalls");
	napi_create_arraybuffer(env, calls_count * sizeof(*results), (void **)&results, &buffer);
	napi_create_array(env, &children.list);
	jobs = calloc(jobs_count + 1, sizeof(*jobs));
	if (!jobs)
		return throw_errno(env, ENOMEM, "remoteCalls");
	for (size_t i = 0; i < jobs_count; i++, words += WORDS_A_JOB) {
		jobs[i] = (struct job){ .tid = words[0], .count = words[1], .loop = words[2], .table = words[3] };
		jobs[i].calls = calls + WORDS_A_CALL * at;
		jobs[i].results = results + at;
		memcpy(&jobs[i].registers, registers + i * REGISTERS, REGISTERS);
		/* All the same: those of a session, or of ours. */
		if (jobs[i].count > calls_count - at || (jobs[i].loop != 0) != (room > 0)) {
			error = -EINVAL;
			break;
		}
		at += jobs[i].count;
	}
	if (!error) {
		set_wake(true);
		if (room > 0)
			error = run_loops(jobs, jobs_count, room, &children);
		else
			run_calls(jobs, jobs_count, &children);
		set_wake(false);
		for (size_t i = 0; i < jobs_count && !error; i++)
			error = jobs[i].error;
	}
	free(jobs);
	if (error)
		return throw_errno(env, -error, "remote call");
	napi_create_typedarray(env, napi_bigint64_array, calls_count, buffer, 0, &results_array);
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
