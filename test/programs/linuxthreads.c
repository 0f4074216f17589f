/*
 * Threads the LinuxThreads way, as on Linux 2.4: an initial task, a manager it clones, and workers the manager
 * clones, all sharing memory, files, filesystem context and handlers, each with a pid of its own. A worker is
 * restarted by signal 32 and cancelled by signal 33, sent to its pid; a thread's end is told to the manager by
 * signal 33 as well. Everything is checked all the time: who one is, who sent a signal, the shared memory.
 *
 *   linuxthreads DIR [--no-signals] [--break NAME]
 *
 * --no-signals: nobody signals by pid and nobody waits for a task; all goes through shared memory. Such tasks may
 * become true threads (pod-filter upgrade-2.6 --merge-threads) without noticing: getpid() is then the initial
 * task's for all of them, gettid() stays.
 *
 * No C library, as today's would bring what 2.4 lacked (robust lists, rseq, the vdso's clock, futexes).
 *
 * Build: -static -nostdlib -no-pie -fno-stack-protector -fcf-protection=none -fno-builtin -mno-avx
 */
#include <asm/errno.h>
#include <asm/unistd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORKERS 3
#define STACK 65536
#define CELLS 256
/* Turns of 1 ms that anything may take; not by the clock, which goes on while the session is on its way. */
#define PATIENCE 20000

enum { SIG_RESTART = 32, SIG_CANCEL = 33, SIG_WAITING = 34, SIG_ALARM = 14, SIG_CHILD = 17, SIG_KILL = 9 };
enum { SHARE_ALL = 0x100 | 0x200 | 0x400 | 0x800 }; /* CLONE_VM, _FS, _FILES, _SIGHAND */
enum { INTERRUPTED = -4, WAIT_CLONE = (int)0x80000000 };

struct timespec { int64_t sec, nsec; };
struct kernel_sigaction { void (*handler)(int, void *, void *); uint64_t flags; void (*restorer)(void); uint64_t mask; };
/* The parts of siginfo_t that are looked at. */
struct siginfo { int32_t signo, error, code, pad; int32_t pid; uint32_t uid; int32_t status, more; uint64_t rest[12]; };

struct task {
	int pid;
	/* The same again, for checks alone. */
	int known_pid;
	char name[16];
	/* Signals it took, and whom the last restart came from. */
	volatile int restarts, cancels, sender;
	/* Signals the manager sent it. */
	volatile int cancels_sent;
	volatile int ended;
	char *stack_low, *stack_high;
};

static struct task initial, manager, workers[WORKERS];
static char stacks[WORKERS + 2][STACK] __attribute__((aligned(16)));

/* What the workers work on, one at a time: the one that has the token. */
static volatile struct { uint64_t turn, cells[CELLS], sum; } shared_work;
static volatile int token;
/* The initial task asks the manager, the manager tells the workers. */
static volatile int stop_asked, stopping, failed;
static volatile int alarms, ended_threads, alarm_elsewhere;
static volatile int last_ended, last_status;
static bool signals = true;
static const char *damage = "";
static const char *directory;

static inline long call6(long number, long a, long b, long c, long d, long e, long f) {
	long result;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
	                 : "rcx", "r11", "memory");
	return result;
}
#define CALL(number, a, b, c, d) call6(__NR_##number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* The compiler may call these whatever it is told. */
void *memset(void *to, int byte, size_t size) {
	char *bytes = to;
	while (size--) *bytes++ = (char)byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t size) {
	char *bytes = to;
	const char *source = from;
	while (size--) *bytes++ = *source++;
	return to;
}

static size_t length_of(const char *text) {
	size_t length = 0;
	while (text[length]) length++;
	return length;
}

static bool same(const char *a, const char *b) {
	while (*a && *a == *b) a++, b++;
	return *a == *b;
}

static bool pod_break(const char *name) {
	return same(damage, name);
}

/* ---- text and files ---- */

struct text { char bytes[4096]; size_t length; };

static void put(struct text *text, const char *more) {
	for (; *more && text->length < sizeof text->bytes - 1; more++) text->bytes[text->length++] = *more;
	text->bytes[text->length] = 0;
}

static void put_number(struct text *text, long number, int width) {
	char digits[24];
	int at = sizeof digits - 1;
	bool negative = number < 0;
	unsigned long rest = negative ? -(unsigned long)number : (unsigned long)number;
	digits[at] = 0;
	do digits[--at] = (char)('0' + rest % 10), rest /= 10, width--;
	while (rest || width > 0);
	if (negative) digits[--at] = '-';
	put(text, digits + at);
}

static void path_of(struct text *path, const char *name) {
	path->length = 0;
	put(path, directory);
	put(path, "/");
	put(path, name);
}

static bool has(const char *name) {
	struct text path;
	path_of(&path, name);
	return CALL(access, path.bytes, 0, 0, 0) == 0;
}

/* Whole or not at all. */
static void write_file(const char *name, const char *content) {
	struct text temporary, path;
	path_of(&temporary, ".");
	put(&temporary, name);
	put_number(&temporary, CALL(gettid, 0, 0, 0, 0), 0);
	path_of(&path, name);
	long fd = CALL(open, temporary.bytes, 01 | 0100 | 01000, 0666, 0);
	long size = (long)length_of(content);
	if (fd < 0 || CALL(write, fd, content, size, 0) != size || CALL(close, fd, 0, 0, 0) != 0 ||
	    CALL(rename, temporary.bytes, path.bytes, 0, 0) != 0)
		CALL(exit_group, 3, 0, 0, 0);
}

/* ---- who am I ---- */

static struct task *me(void) {
	char here;
	if (&here >= manager.stack_low && &here < manager.stack_high) return &manager;
	for (int index = 0; index < WORKERS; index++)
		if (&here >= workers[index].stack_low && &here < workers[index].stack_high) return &workers[index];
	return &initial;
}

__attribute__((noreturn)) static void end_all(int status) {
	int all[WORKERS + 2] = { manager.pid };
	for (int index = 0; index < WORKERS; index++) all[index + 1] = workers[index].pid;
	all[WORKERS + 1] = initial.pid;
	int own = (int)CALL(gettid, 0, 0, 0, 0), group = (int)CALL(getpid, 0, 0, 0, 0);
	for (int index = 0; index < WORKERS + 2; index++)
		if (all[index] > 0 && all[index] != own && group == own) CALL(kill, all[index], SIG_KILL, 0, 0);
	for (;;) CALL(exit_group, status, 0, 0, 0);
}

__attribute__((noreturn)) static void fail(int line, const char *why, long actual, long expected) {
	if (__atomic_exchange_n(&failed, 1, __ATOMIC_SEQ_CST) == 0) {
		struct text text = { .length = 0 };
		put(&text, "fail: linuxthreads.c:");
		put_number(&text, line, 0);
		put(&text, ": ");
		put(&text, why);
		put(&text, " is ");
		put_number(&text, actual, 0);
		put(&text, ", should be ");
		put_number(&text, expected, 0);
		put(&text, " (in ");
		put(&text, me()->name);
		put(&text, ")\n");
		if (!has("result")) write_file("result", text.bytes);
		CALL(write, 2, text.bytes, text.length, 0);
		end_all(1);
	}
	/* Another task is about to tell why, and ends us all: it must not be killed by us before it has. */
	for (;;) {
		struct timespec time = { 1, 0 };
		CALL(nanosleep, &time, &time, 0, 0);
	}
}

#define EQUAL(actual, expected)                                               \
	do {                                                                      \
		long actual_ = (long)(actual), expected_ = (long)(expected);          \
		if (actual_ != expected_) fail(__LINE__, #actual, actual_, expected_); \
	} while (0)
#define CHECK(condition)                                          \
	do {                                                          \
		if (!(condition)) fail(__LINE__, #condition, 0, 1);       \
	} while (0)

static void rest(int milliseconds) {
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000LL };
	long result;
	while ((result = CALL(nanosleep, &time, &time, 0, 0)) == INTERRUPTED && signals) continue;
	EQUAL(result, 0);
}

#define EVENTUALLY(condition)                                    \
	do {                                                         \
		for (int turns_ = 0; !(condition); turns_++) {           \
			if (turns_ > PATIENCE) fail(__LINE__, #condition, 0, 1); \
			rest(1);                                             \
		}                                                        \
	} while (0)

/* Each task keeps its own pid. A merged one keeps it as its tid, and has the initial task's pid. */
static void check_self(void) {
	struct task *self = me();
	EQUAL(CALL(gettid, 0, 0, 0, 0), self->known_pid);
	EQUAL(self->pid, self->known_pid);
	long group = CALL(getpid, 0, 0, 0, 0);
	if (signals || group != initial.pid) EQUAL(group, self->pid);
	if (signals && self != &initial && self != &manager) EQUAL(CALL(getppid, 0, 0, 0, 0), manager.pid);
	if (signals && self == &manager) EQUAL(CALL(getppid, 0, 0, 0, 0), initial.pid);
}

/* ---- signals ---- */

__asm__(".globl restore\nrestore: mov $15, %eax\n syscall\n");
extern void restore(void);

static void on_restart(int number, void *info, void *context) {
	(void)number, (void)context;
	struct task *self = me();
	self->sender = ((struct siginfo *)info)->pid;
	self->restarts++;
}

static void on_cancel(int number, void *info, void *context) {
	(void)number, (void)context;
	struct task *self = me();
	struct siginfo *signal = info;
	if (self == &manager) {
		/* A thread's end; several may be told by one, so only the last is remembered. */
		CHECK(signal->code >= 1 && signal->code <= 6);
		for (int index = 0; index < WORKERS && !stopping; index++) CHECK(signal->pid != workers[index].pid);
		last_ended = signal->pid;
		last_status = signal->status;
		__atomic_fetch_add(&ended_threads, 1, __ATOMIC_SEQ_CST);
		return;
	}
	EQUAL(signal->pid, manager.pid);
	self->cancels++;
}

static void on_alarm(int number, void *info, void *context) {
	(void)number, (void)info, (void)context;
	if (me() != &initial) alarm_elsewhere = 1;
	alarms++;
}

static void handle(int number, void (*handler)(int, void *, void *)) {
	struct kernel_sigaction action = { handler, 0x4 | 0x04000000, restore, 0 }; /* SA_SIGINFO, SA_RESTORER */
	EQUAL(CALL(rt_sigaction, number, &action, 0, 8), 0);
}

#define BIT(number) (1ULL << ((number) - 1))

static void mask(uint64_t blocked) {
	EQUAL(CALL(rt_sigprocmask, 2, &blocked, 0, 8), 0); /* SIG_SETMASK */
}

/* Wait for a restart by `sender`. */
static void suspend(const struct task *sender) {
	struct task *self = me();
	uint64_t waiting = BIT(SIG_WAITING);
	while (self->restarts == 0 && !stopping) EQUAL(CALL(rt_sigsuspend, &waiting, 8, 0, 0), INTERRUPTED);
	if (self->restarts == 0) return;
	EQUAL(self->restarts, 1);
	EQUAL(self->sender, sender->pid);
	self->restarts = 0;
}

/* ---- work ---- */

static void work(int index) {
	uint64_t turn = shared_work.turn;
	EQUAL(token, index);
	EQUAL(turn % WORKERS, index);
	uint64_t sum = 0;
	for (int cell = 0; cell < CELLS; cell++) {
		EQUAL(shared_work.cells[cell], turn * (uint64_t)(cell + 1));
		shared_work.cells[cell] += (uint64_t)cell + 1;
		sum += shared_work.cells[cell];
	}
	EQUAL(shared_work.sum + CELLS * (CELLS + 1) / 2, sum);
	shared_work.sum = sum;
	shared_work.turn = turn + 1;
	token = (index + 1) % WORKERS;
}

__attribute__((noreturn)) static void leave(int status) {
	me()->ended = 1;
	for (;;) CALL(exit, status, 0, 0, 0);
}

static void run_worker(int index) {
	struct task *self = &workers[index], *next = &workers[(index + 1) % WORKERS];
	struct task *previous = &workers[(index + WORKERS - 1) % WORKERS];
	self->known_pid = self->pid = (int)CALL(gettid, 0, 0, 0, 0);
	if (signals) mask(BIT(SIG_RESTART) | BIT(SIG_WAITING));
	EVENTUALLY(workers[0].pid && workers[1].pid && workers[2].pid && manager.pid);
	while (!stopping) {
		check_self();
		if (signals && shared_work.turn > 0) suspend(previous);
		else if (token != index) {
			rest(1);
			continue;
		}
		if (stopping) break;
		work(index);
		/* Between taking and giving, as long as a dump may fall into. */
		rest(1);
		if (!signals) continue;
		long sent = CALL(kill, next->pid, SIG_RESTART, 0, 0);
		/* At the end the next one may have left. */
		if (!(stopping && sent == -ESRCH)) EQUAL(sent, 0);
	}
	leave(10 + index);
}

static void run_visitor(int status) {
	for (;;) CALL(exit, status, 0, 0, 0);
}

/* clone(2) with a stack of its own; the new task runs function(argument). */
long start_task(long flags, void *stack, void (*function)(int), long argument);
__asm__(".globl start_task\nstart_task:\n"
        " sub $16, %rsi\n mov %rdx, (%rsi)\n mov %rcx, 8(%rsi)\n"
        " xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n"
        " mov $56, %eax\n syscall\n"
        " test %rax, %rax\n jz 1f\n ret\n"
        "1: xor %ebp, %ebp\n pop %rax\n pop %rdi\n call *%rax\n ud2\n");

static int start(struct task *task, int slot, int exit_signal, void (*function)(int), long argument) {
	task->stack_low = stacks[slot];
	task->stack_high = stacks[slot] + STACK;
	long pid = start_task(SHARE_ALL | exit_signal, task->stack_high, function, argument);
	CHECK(pid > 0);
	return (int)pid;
}

static int reap(int pid, int expected) {
	int status = -1;
	long result;
	while ((result = CALL(wait4, pid, &status, WAIT_CLONE, 0)) == INTERRUPTED) continue;
	EQUAL(result, pid);
	EQUAL(status, expected << 8);
	return status;
}

/* A thread that ends at once: told by signal 33, waited for as a clone child. */
static void try_visitor(int turn) {
	static struct task visitor;
	int told = ended_threads, status = turn % 100;
	int pid = start(&visitor, WORKERS + 1, SIG_CANCEL, run_visitor, status);
	EVENTUALLY(ended_threads > told);
	EQUAL(last_ended, pid);
	EQUAL(last_status, status);
	reap(pid, status);
}

static void run_manager(int unused) {
	(void)unused;
	manager.known_pid = manager.pid = (int)CALL(gettid, 0, 0, 0, 0);
	if (signals) mask(BIT(SIG_RESTART) | BIT(SIG_WAITING));
	int pids[WORKERS];
	for (int index = 0; index < WORKERS; index++)
		pids[index] = start(&workers[index], index, signals ? SIG_CANCEL : SIG_CHILD, run_worker, index);
	for (int turn = 0; !stop_asked; turn++) {
		check_self();
		for (int index = 0; index < WORKERS; index++) {
			struct task *worker = &workers[index];
			if (!signals || !worker->pid) continue;
			EQUAL(worker->pid, pids[index]);
			CHECK(worker->cancels <= worker->cancels_sent);
			/* Real-time signals queue: each one sent is one taken. */
			if (worker->cancels_sent - worker->cancels < 8) {
				worker->cancels_sent++;
				EQUAL(CALL(kill, worker->pid, SIG_CANCEL, 0, 0), 0);
			}
		}
		if (signals && turn % 16 == 0) try_visitor(turn);
		rest(7);
	}
	stopping = 1;
	for (int index = 0; index < WORKERS; index++) {
		if (signals) {
			/* It may be suspended: the restart that lets it see the end comes from nobody it expects. */
			EVENTUALLY((CALL(kill, workers[index].pid, SIG_CANCEL, 0, 0), workers[index].ended));
			reap(pids[index], 10 + index);
		} else {
			EVENTUALLY(workers[index].ended);
		}
	}
	leave(7);
}

/* ---- the initial task ---- */

static void beat(void) {
	static unsigned long beats;
	struct text path, text = { .length = 0 };
	path_of(&path, "beat");
	long fd = CALL(open, path.bytes, 01 | 0100, 0666, 0);
	CHECK(fd >= 0);
	put_number(&text, (long)++beats, 20);
	put(&text, "\n");
	EQUAL(CALL(pwrite64, fd, text.bytes, text.length, 0), text.length);
	EQUAL(CALL(close, fd, 0, 0, 0), 0);
}

static void set_up(void) {
	initial.known_pid = initial.pid = (int)CALL(getpid, 0, 0, 0, 0);
	if (signals) {
		handle(SIG_RESTART, on_restart);
		handle(SIG_CANCEL, on_cancel);
		handle(SIG_ALARM, on_alarm);
		mask(BIT(SIG_RESTART) | BIT(SIG_WAITING));
		/* Two that wait for the end of the program. */
		for (long value = 1; value <= 2; value++) {
			struct siginfo info = { .signo = SIG_WAITING, .code = -1, .pid = initial.pid };
			info.status = (int)value * 1000;
			EQUAL(CALL(rt_sigqueueinfo, initial.pid, SIG_WAITING, &info, 0), 0);
		}
		int64_t every[4] = { 0, 50000, 0, 50000 }; /* struct itimerval, us */
		EQUAL(CALL(setitimer, 0, every, 0, 0), 0);
	}
	int pid = start(&manager, WORKERS, 0, run_manager, 0);
	EVENTUALLY(workers[0].pid && workers[1].pid && workers[2].pid && shared_work.turn > 10);
	EQUAL(manager.pid, pid);
	struct text pids = { .length = 0 };
	put_number(&pids, initial.pid, 0);
	for (int index = -1; index < WORKERS; index++) {
		put(&pids, " ");
		put_number(&pids, index < 0 ? manager.pid : workers[index].pid, 0);
	}
	put(&pids, "\n");
	write_file("pids", pids.bytes);
	struct text ready = { .length = 0 };
	put_number(&ready, initial.pid, 0);
	put(&ready, "\n");
	write_file("ready", ready.bytes);
	if (pod_break("memory")) shared_work.cells[100]++;
	if (pod_break("pid")) workers[1].known_pid++;
	if (pod_break("manager")) CALL(kill, manager.pid, SIG_KILL, 0, 0);
	if (pod_break("worker")) CALL(kill, workers[2].pid, SIG_KILL, 0, 0);
	if (pod_break("stray-restart")) CALL(kill, workers[0].pid, SIG_RESTART, 0, 0);
	if (pod_break("stray-cancel")) CALL(kill, workers[1].pid, SIG_CANCEL, 0, 0);
	if (pod_break("timer")) {
		int64_t never[4] = { 0, 0, 0, 0 };
		CALL(setitimer, 0, never, 0, 0);
	}
	if (pod_break("pending")) {
		uint64_t set = BIT(SIG_WAITING);
		CALL(rt_sigtimedwait, &set, 0, 0, 8);
	}
}

static void check_pending(void) {
	uint64_t set = BIT(SIG_WAITING);
	struct timespec none = { 0, 0 };
	for (int value = 1; value <= 2; value++) {
		struct siginfo info = { .signo = 0 };
		EQUAL(CALL(rt_sigtimedwait, &set, &info, &none, 8), SIG_WAITING);
		EQUAL(info.status, value * 1000);
		EQUAL(info.code, -1);
		EQUAL(info.pid, initial.pid);
	}
	EQUAL(CALL(rt_sigtimedwait, &set, 0, &none, 8), -11);
}

__attribute__((noreturn, used)) static void run(long *stack) {
	char **arguments = (char **)(stack + 1);
	for (int index = 2; index < stack[0]; index++) {
		if (same(arguments[index], "--no-signals")) signals = false;
		else if (same(arguments[index], "--break") && index + 1 < stack[0]) damage = arguments[++index];
		else CALL(exit_group, 2, 0, 0, 0);
	}
	if (stack[0] < 2) CALL(exit_group, 2, 0, 0, 0);
	directory = arguments[1];
	memcpy(initial.name, "initial", 8);
	memcpy(manager.name, "manager", 8);
	for (int index = 0; index < WORKERS; index++) memcpy(workers[index].name, "worker", 7);
	CALL(umask, 0, 0, 0, 0);
	set_up();
	while (!has("go")) {
		check_self();
		uint64_t turn = shared_work.turn;
		int rung = alarms;
		EVENTUALLY(shared_work.turn > turn && (!signals || alarms > rung));
		beat();
		rest(10);
	}
	check_self();
	stop_asked = 1;
	EVENTUALLY(manager.ended);
	if (signals) {
		reap(manager.pid, 7);
		check_pending();
		EQUAL(alarm_elsewhere, 0);
		for (int index = 0; index < WORKERS; index++) CHECK(workers[index].cancels >= workers[index].cancels_sent);
	}
	uint64_t sum = 0;
	for (int cell = 0; cell < CELLS; cell++) {
		EQUAL(shared_work.cells[cell], shared_work.turn * (uint64_t)(cell + 1));
		sum += shared_work.cells[cell];
	}
	EQUAL(shared_work.sum, sum);
	if (has("result")) CALL(exit_group, 1, 0, 0, 0);
	write_file("result", "ok\n");
	for (;;) CALL(exit_group, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
