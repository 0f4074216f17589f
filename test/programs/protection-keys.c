/*
 * Memory protection keys: which numbers are handed out, also one without memory and one that was given back while memory
 * is under it; the key of each area; memory that may only be run, for which the kernel takes a key of its own; each
 * thread's rights, also of one that denies itself all that lies under key 0; a child that has the parent's memory under
 * other keys.
 *
 * Needs: ospke
 */
#include "pod-test.h"

#include <linux/futex.h>
#include <sched.h>
#include <setjmp.h>

#define AREA (16 * PAGE)
#define ALL_BUT(allowed) (0x55555555u & ~(3u << 2 * (allowed)))

enum { SHARED = 1, UNUSED = 2, SECRET = 4, GIVEN_BACK = 5, STACK = 7, RUN = 3 };

static unsigned char *shared, *secret, *given_back, *stack, *plain, *inherited;
static unsigned char *run;
static uint32_t rights, rights_of_other;
static sigjmp_buf back;
static volatile siginfo_t seen;

static uint32_t read_rights(void) {
	uint32_t low, high;
	__asm__ volatile("rdpkru" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

static void write_rights(uint32_t value) {
	__asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static void jump(int signal, siginfo_t *info, void *context) {
	(void)context;
	seen = *info;
	siglongjmp(back, signal);
}

/* The key for which reading or writing a byte is forbidden, 0 for none. Handlers start with rights of their own. */
static int forbidden(volatile unsigned char *address, bool write) {
	uint32_t before = read_rights();
	int signal = sigsetjmp(back, 1);
	if (signal == 0) {
		if (write) *address = *address;
		else (void)*address;
		return 0;
	}
	write_rights(before);
	EQUAL(signal, SIGSEGV);
	EQUAL(seen.si_code, SEGV_PKUERR);
	return (int)seen.si_pkey;
}

/* ProtectionKey of an area in /proc/self/smaps, -1 for a hole. */
static int key_of(const void *address) {
	FILE *maps = fopen("/proc/self/smaps", "re");
	CHECK(maps != NULL);
	char line[8192];
	bool inside = false;
	int key = -1, value;
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		char permissions[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, permissions) == 3)
			inside = (unsigned long)address >= start && (unsigned long)address < end;
		else if (inside && sscanf(line, "ProtectionKey: %d", &value) == 1)
			key = value;
	}
	fclose(maps);
	return key;
}

static unsigned char *area(int protection) {
	unsigned char *found = mmap(NULL, AREA, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(found != MAP_FAILED);
	return found;
}

/* The other thread: on memory under a key of its own, it can touch nothing else, so it has only registers and this. */
struct words {
	_Atomic uint32_t turns, stop, wrong, ended;
};

static struct words *words;

static int other(void *argument) {
	struct words *mine = argument;
	uint32_t own = ALL_BUT(STACK);
	write_rights(own);
	while (!atomic_load(&mine->stop)) {
		for (volatile int i = 0; i < 100000; i++) continue;
		if (read_rights() != own) atomic_store(&mine->wrong, 1);
		atomic_fetch_add(&mine->turns, 1);
	}
	atomic_store(&mine->ended, 1);
	/* What the thread leaves with is nobody's; its number is cleared by the kernel, at its end. */
	write_rights(0);
	syscall(SYS_exit, 0);
	return 0;
}

static pthread_barrier_t barrier;

static void *second(void *argument) {
	(void)argument;
	write_rights(rights_of_other);
	pthread_barrier_wait(&barrier);
	while (pod_child_turn()) EQUAL(read_rights(), rights_of_other);
	EQUAL(read_rights(), rights_of_other);
	EQUAL(forbidden(shared, false), SHARED);
	EQUAL(forbidden(secret, true), 0);
	return NULL;
}

static void check_common(void) {
	EQUAL(read_rights(), rights);
	EQUAL(key_of(shared), SHARED);
	EQUAL(key_of(secret), SECRET);
	EQUAL(key_of(secret + 4 * PAGE), 0);
	EQUAL(key_of(given_back), GIVEN_BACK);
	EQUAL(key_of(run), RUN);
	EQUAL(key_of(plain), 0);
	EQUAL(forbidden(shared, false), 0);
	EQUAL(forbidden(shared, true), SHARED);
	EQUAL(forbidden(secret, false), SECRET);
	EQUAL(forbidden(secret + 4 * PAGE, true), 0);
	EQUAL(forbidden(run, false), RUN);
	CHECK_PATTERN(shared, AREA, 1);
	CHECK_PATTERN(plain, AREA, 4);
	write_rights(0);
	CHECK_PATTERN(secret, AREA, 2);
	CHECK_PATTERN(given_back, AREA, 3);
	write_rights(rights);
	EQUAL(((int (*)(void))(void *)run)(), 4711);
}

/* What is free is handed out, the lowest first; and what was handed out is still. */
static void check_free(void) {
	int free_keys[] = { 5, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	for (size_t i = 0; i < COUNT(free_keys); i++) EQUAL(pkey_alloc(0, 0), free_keys[i]);
	FAILS(pkey_alloc(0, 0), ENOSPC);
	EQUAL(pkey_free(UNUSED), 0);
	EQUAL(pkey_alloc(0, 0), UNUSED);
	FAILS(pkey_free(RUN), EINVAL);
}

static void be_child(void) {
	/* Pages of the parent, under another key; one that the parent has, given back; and one of its own. */
	EQUAL(pkey_mprotect(inherited, AREA, PROT_READ, UNUSED), 0);
	EQUAL(pkey_mprotect(shared, AREA, PROT_READ | PROT_WRITE, 0), 0);
	EQUAL(pkey_free(SHARED), 0);
	EQUAL(pkey_alloc(0, 0), SHARED);
	EQUAL(pkey_alloc(0, 0), 5);
	EQUAL(pkey_free(SHARED), 0);
	rights = read_rights();
	pod_mark("child-ready");
	while (pod_child_turn()) EQUAL(read_rights(), rights);
	EQUAL(read_rights(), rights);
	EQUAL(key_of(inherited), UNUSED);
	EQUAL(key_of(shared), 0);
	EQUAL(key_of(secret), SECRET);
	EQUAL(key_of(run), RUN);
	CHECK_PATTERN(inherited, AREA, 5);
	CHECK_PATTERN(shared, AREA, 1);
	EQUAL(((int (*)(void))(void *)run)(), 4711);
	EQUAL(pkey_alloc(0, 0), SHARED);
	EQUAL(pkey_alloc(0, 0), 6);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sigaction action = { .sa_sigaction = jump, .sa_flags = SA_SIGINFO };
	EQUAL(sigaction(SIGSEGV, &action, NULL), 0);
	pthread_barrier_init(&barrier, NULL, 2);

	EQUAL(pkey_alloc(0, 0), SHARED);
	EQUAL(pkey_alloc(0, 0), UNUSED);
	/* The kernel takes the next for itself. */
	run = area(PROT_READ | PROT_WRITE);
	memcpy(run, "\xb8\x67\x12\x00\x00\xc3", 6);
	EQUAL(mprotect(run, PAGE, PROT_EXEC), 0);
	EQUAL(key_of(run), RUN);
	for (int key = SECRET; key <= STACK; key++) EQUAL(pkey_alloc(0, 0), key);
	EQUAL(pkey_free(6), 0);

	shared = area(PROT_READ | PROT_WRITE);
	secret = area(PROT_READ | PROT_WRITE);
	given_back = area(PROT_READ | PROT_WRITE);
	plain = area(PROT_READ | PROT_WRITE);
	inherited = area(PROT_READ | PROT_WRITE);
	pod_fill(shared, AREA, 1);
	pod_fill(secret, AREA, 2);
	pod_fill(given_back, AREA, 3);
	pod_fill(plain, AREA, 4);
	pod_fill(inherited, AREA, 5);
	EQUAL(pkey_mprotect(shared, AREA, PROT_READ | PROT_WRITE, SHARED), 0);
	EQUAL(pkey_mprotect(secret, 4 * PAGE, PROT_READ | PROT_WRITE, SECRET), 0);
	EQUAL(pkey_mprotect(given_back, AREA, PROT_READ, GIVEN_BACK), 0);
	EQUAL(pkey_free(GIVEN_BACK), 0);
	stack = area(PROT_READ | PROT_WRITE);
	EQUAL(pkey_mprotect(stack, AREA, PROT_READ | PROT_WRITE, STACK), 0);

	EQUAL(pkey_set(SHARED, PKEY_DISABLE_WRITE), 0);
	EQUAL(pkey_set(SECRET, PKEY_DISABLE_ACCESS), 0);
	rights = read_rights();
	rights_of_other = rights & ~(3u << 2 * SECRET);
	rights_of_other |= 1u << 2 * SHARED;

	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, second, NULL), 0);
	pthread_barrier_wait(&barrier);
	/* Without the C library's thread area: restartable sequences lie under key 0. */
	words = (struct words *)stack;
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	MUST(clone(other, stack + AREA - 64, flags, words));

	pid_t child = MUST(fork());
	if (child == 0) be_child();
	pod_await("child-ready");
	check_common();
	pod_ready();
	if (pod_break("rights")) write_rights(rights & ~(3u << 2 * SHARED));
	if (pod_break("key")) EQUAL(pkey_mprotect(secret, 4 * PAGE, PROT_READ | PROT_WRITE, SHARED), 0);
	if (pod_break("handed-out")) EQUAL(pkey_free(UNUSED), 0);
	if (pod_break("only-run")) EQUAL(mprotect(run, PAGE, PROT_READ | PROT_EXEC), 0);
	if (pod_break("pages")) plain[3 * PAGE + 5] ^= 1;
	while (pod_turn()) {
		if (!*pod_damage) check_common();
	}
	check_common();
	EQUAL(atomic_load(&words->wrong), 0);
	uint32_t turns = atomic_load(&words->turns);
	EVENTUALLY(atomic_load(&words->turns) != turns);
	atomic_store(&words->stop, 1);
	EVENTUALLY(atomic_load(&words->ended));
	EQUAL(pthread_join(thread, NULL), 0);
	pod_reap(child);
	check_free();
	pod_pass();
}
