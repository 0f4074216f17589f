/*
 * Memory whose contents may vanish at any time (MAP_DROPPABLE, Linux 6.11): each page is what was written, or empty; a
 * child never sees any of it.
 */
#include "pod-test.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#define PAGES 8

static unsigned char *memory;
static bool works;

/* A restart on a kernel before 6.11 keeps all of it but that it may vanish. */
static bool is_known(void) {
	void *page = mmap(NULL, PAGE, PROT_READ, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	return page != MAP_FAILED && munmap(page, PAGE) == 0;
}

static void check(void) {
	for (size_t i = 0; i < PAGES; i++) {
		unsigned char value = memory[i * PAGE];
		CHECKF(value == 0 || value == i + 1, "page %zu holds %u", i, value);
	}
	EQUAL(pod_area_flag(memory, "dp"), works && is_known());
	EQUAL(pod_area_flag(memory, "wf"), true);
}

static void write_all(void) {
	for (size_t i = 0; i < PAGES; i++) memory[i * PAGE] = (unsigned char)(i + 1);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	works = memory != MAP_FAILED;
	if (!works) {
		memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(memory != MAP_FAILED);
		EQUAL(madvise(memory, PAGES * PAGE, MADV_WIPEONFORK), 0);
	}
	write_all();
	pod_ready();
	if (pod_break("value")) memory[PAGE] = 77;
	if (pod_break("kind"))
		CHECK(mmap(memory, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
	while (pod_turn()) check();
	check();
	write_all();
	pid_t child = MUST(fork());
	if (child == 0) {
		for (size_t i = 0; i < PAGES; i++) EQUAL(memory[i * PAGE], 0);
		_exit(0);
	}
	pod_reap(child);
	pod_pass();
}
