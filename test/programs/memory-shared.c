/*
 * Shared anonymous memory: one object seen by two processes and twice by one of them, with different protections,
 * offsets and sizes; mostly empty; and one that only the child still maps. What one writes the others must see.
 */
#include "pod-test.h"

#define SIZE (40 * PAGE)
#define SPARSE_SIZE (64UL << 20)

struct talk {
	_Atomic uint64_t child_turns;
	_Atomic uint64_t question;
	_Atomic uint64_t answer;
};

static unsigned char *shared, *alias, *tail, *sparse, *other, *inherited;
static struct talk *talk;

static unsigned char *map(size_t size) {
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	return memory;
}

static bool is_permitted(const void *address, const char *permissions) {
	char found[5];
	return strcmp(pod_area_permissions(address, found), permissions) == 0;
}

static void check_pattern(void) {
	CHECK_PATTERN(shared + PAGE, SIZE - PAGE, 1);
	CHECK_PATTERN(other, 3 * PAGE, 2);
}

static void run_child(void) {
	/* The child's own view: the first half is gone, what is left starts at an offset of the object. */
	munmap(shared + SIZE / 2, SIZE / 4);
	mprotect(shared + PAGE, PAGE, PROT_READ);
	munmap(alias, SIZE);
	pod_mark("child");
	uint64_t seen = 0;
	for (int64_t end = 0; end == 0 || pod_now() < end;) {
		talk->child_turns++;
		uint64_t question = talk->question;
		if (question != seen) {
			talk->answer = question + 1;
			seen = question;
		}
		/* The parent asks after go. */
		if (question >= 1000) break;
		if (pod_go() && end == 0) end = pod_now() + POD_PATIENCE;
		pod_sleep(2);
	}
	CHECK(seen >= 1000);
	CHECK_PATTERN(shared + PAGE, SIZE / 2 - PAGE, 1);
	CHECK_PATTERN(shared + SIZE / 4 * 3, SIZE / 4, 1 + SIZE / 4 * 3 - PAGE);
	CHECK(is_permitted(shared + PAGE, "r--s"));
	CHECK(is_permitted(shared + 2 * PAGE, "rw-s"));
	FAILS(msync(shared + SIZE / 2, PAGE, MS_ASYNC), ENOMEM);
	CHECK_PATTERN(inherited, 5 * PAGE, 3);
	/* The parent looks for it. */
	sparse[SPARSE_SIZE - 1] = 77;
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	shared = map(SIZE);
	pod_fill(shared + PAGE, SIZE - PAGE, 1);
	talk = (struct talk *)shared;
	other = map(3 * PAGE);
	pod_fill(other, 3 * PAGE, 2);
	sparse = map(SPARSE_SIZE);
	pod_fill(sparse + (SPARSE_SIZE >> 1), 2 * PAGE, 4);
	inherited = map(5 * PAGE);
	pod_fill(inherited, 5 * PAGE, 3);
	/* Two views of the same object, the second one of its end only. */
	alias = mremap(shared, 0, SIZE, MREMAP_MAYMOVE);
	CHECK(alias != MAP_FAILED);
	tail = mremap(shared + SIZE - 4 * PAGE, 0, 4 * PAGE, MREMAP_MAYMOVE);
	CHECK(tail != MAP_FAILED);
	mprotect(tail, 4 * PAGE, PROT_READ);
	pid_t child = MUST(fork());
	if (child == 0) run_child();
	pod_await("child");
	munmap(inherited, 5 * PAGE);
	pod_ready();

	if (pod_break("pattern")) shared[5 * PAGE] ^= 1;
	if (pod_break("identity")) {
		/* The same bytes, but no longer the same memory. */
		static unsigned char copy[SIZE];
		memcpy(copy, shared, SIZE);
		CHECK(mmap(shared, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == shared);
		memcpy(shared, copy, SIZE);
	}
	if (pod_break("alias")) {
		CHECK(mmap(alias, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == alias);
		memcpy(alias, shared, SIZE);
	}
	if (pod_break("private")) {
		CHECK(mmap(other, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == other);
		pod_fill(other, 3 * PAGE, 2);
	}
	if (pod_break("protection")) mprotect(tail, PAGE, PROT_READ | PROT_WRITE);
	if (pod_break("sparse")) sparse[100 * PAGE] = 1;

	uint64_t asked = 0, turns = 0;
	while (pod_turn()) {
		check_pattern();
		CHECK(talk->child_turns >= turns);
		turns = talk->child_turns;
		if (asked == 0 || talk->answer == asked + 1) {
			asked = asked % 900 + 1;
			talk->question = asked;
		}
	}
	check_pattern();
	CHECK(is_permitted(other, "rw-s"));
	CHECK(is_permitted(tail, "r--s"));
	/* One object: a word written through one view is there in the others. */
	shared[SIZE - 4 * PAGE + 10] ^= 0x55;
	EQUAL(alias[SIZE - 4 * PAGE + 10], shared[SIZE - 4 * PAGE + 10]);
	EQUAL(tail[10], shared[SIZE - 4 * PAGE + 10]);
	shared[SIZE - 4 * PAGE + 10] ^= 0x55;
	CHECK(memcmp(alias + PAGE, shared + PAGE, SIZE - PAGE) == 0);
	CHECK_PATTERN(sparse + (SPARSE_SIZE >> 1), 2 * PAGE, 4);
	for (size_t at = 0; at < SPARSE_SIZE >> 1; at += PAGE / 2) CHECK(sparse[at] == 0);
	turns = talk->child_turns;
	EVENTUALLY(talk->child_turns > turns);
	talk->question = 5000;
	EVENTUALLY(talk->answer == 5001);
	pod_reap(child);
	EQUAL(sparse[SPARSE_SIZE - 1], 77);
	pod_pass();
}
