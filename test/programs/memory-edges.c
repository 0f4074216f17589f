/*
 * Memory that answers with a signal: guard regions (where the kernel has them and tells of them), pages of a mapping
 * that lie behind the end of its file, and what lies around each. A file mapped twice, once moved by mremap(2), is
 * still one file, and an area that was moved keeps its pages.
 */
#include "pod-test.h"

#include <setjmp.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

#define AREA (16 * PAGE)

static unsigned char *guarded, *past_end, *past_end_private, *first, *second, *moved;
static bool guards;
static sigjmp_buf back;

static void jump(int signal) {
	siglongjmp(back, signal);
}

/* The signal that reading a byte brings, 0 for none. */
static int touch(const unsigned char *address) {
	int signal = sigsetjmp(back, 1);
	if (signal == 0) (void)*(volatile const unsigned char *)address;
	return signal;
}

/* Only a kernel that shows guards to others (6.16) has them saved: its pagemap has a bit for them. */
static bool shows_guard(const void *address) {
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	CHECK(fd >= 0);
	CHECK(pread(fd, &entry, 8, (off_t)((uintptr_t)address / PAGE * 8)) == 8);
	close(fd);
	return entry >> 58 & 1;
}

static void check_all(void) {
	for (size_t page = 0; page < 16; page++) {
		bool guard = guards && (page == 0 || page == 5 || page == 6);
		EQUAL(touch(guarded + page * PAGE + 8), guard ? SIGSEGV : 0);
		if (!guard && page != 7) CHECK_PATTERN(guarded + page * PAGE, PAGE, 100 + page);
	}
	for (size_t at = 0; at < PAGE; at++) EQUAL(guarded[7 * PAGE + at], 0);
	CHECK_PATTERN(past_end, PAGE, 1);
	EQUAL(touch(past_end + PAGE + 99), 0);
	EQUAL(touch(past_end + 2 * PAGE), SIGBUS);
	EQUAL(touch(past_end + 3 * PAGE), SIGBUS);
	CHECK_PATTERN(past_end_private, PAGE, 3);
	EQUAL(touch(past_end_private + PAGE), 0);
	EQUAL(touch(past_end_private + 3 * PAGE), SIGBUS);
	CHECK_PATTERN(moved, 4 * PAGE, 4);
	/* Two mappings, one file. */
	static unsigned char turn;
	first[PAGE] = ++turn;
	EQUAL(second[0], turn);
	second[1] = ++turn;
	EQUAL(first[PAGE + 1], turn);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct sigaction action = { .sa_handler = jump };
	EQUAL(sigaction(SIGSEGV, &action, NULL), 0);
	EQUAL(sigaction(SIGBUS, &action, NULL), 0);

	guarded = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(guarded != MAP_FAILED);
	for (size_t page = 0; page < 16; page++)
		if (page != 7) pod_fill(guarded + page * PAGE, PAGE, 100 + page);
	guards = madvise(guarded, PAGE, MADV_GUARD_INSTALL) == 0;
	if (guards && !shows_guard(guarded)) {
		EQUAL(madvise(guarded, PAGE, MADV_GUARD_REMOVE), 0);
		pod_fill(guarded, PAGE, 100);
		guards = false;
	}
	if (guards) EQUAL(madvise(guarded + 5 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL), 0);

	pod_path_t path;
	static unsigned char content[2 * PAGE];
	int fd = MUST(open(pod_path(path, "short"), O_RDWR | O_CREAT | O_TRUNC, 0666));
	pod_fill(content, sizeof content, 1);
	EQUAL(write(fd, content, PAGE + 100), PAGE + 100);
	past_end = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	past_end_private = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(past_end != MAP_FAILED && past_end_private != MAP_FAILED);
	pod_fill(past_end_private, PAGE, 3);

	int both = MUST(open(pod_path(path, "both"), O_RDWR | O_CREAT | O_TRUNC, 0666));
	EQUAL(ftruncate(both, 4 * PAGE), 0);
	first = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, both, 0);
	second = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, both, PAGE);
	CHECK(first != MAP_FAILED && second != MAP_FAILED);
	void *room = mmap(NULL, AREA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(room != MAP_FAILED);
	second = mremap(second, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)room + 4 * PAGE);
	CHECK(second == (unsigned char *)room + 4 * PAGE);
	moved = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(moved != MAP_FAILED);
	pod_fill(moved, 4 * PAGE, 4);
	moved = mremap(moved, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)room + 8 * PAGE);
	CHECK(moved == (unsigned char *)room + 8 * PAGE);
	close(fd);
	close(both);
	check_all();
	pod_ready();
	if (pod_break("guarded")) guarded[8 * PAGE] ^= 1;
	if (pod_break("guard"))
		mmap(guarded, AREA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (pod_break("end")) EQUAL(truncate(pod_path(path, "short"), 3 * PAGE), 0);
	if (pod_break("alias")) mmap(second, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (pod_break("moved")) moved[9] ^= 1;
	while (pod_turn()) {}
	check_all();
	if (guards) {
		/* It can still be taken away, and is empty then. */
		EQUAL(madvise(guarded, PAGE, MADV_GUARD_REMOVE), 0);
		EQUAL(touch(guarded), 0);
		EQUAL(guarded[5], 0);
	}
	pod_pass();
}
