/*
 * Private anonymous memory: patterns, holes, every protection, code, sparse and zero ranges, the heap, areas that
 * grow down, the main stack in deep use, sticky advice, locked areas, and pages shared copy-on-write with a child.
 */
#include "pod-test.h"

#define PATTERN_PAGES 700
#define CHECKER_PAGES 64
#define SPARSE_SIZE (256UL << 20)
#define SPARSE_STEP (16UL << 20)
#define HEAP_SIZE (1UL << 20)
#define STACK_SIZE (3UL << 20)

static unsigned char data_section[3 * PAGE + 100] = { 1, 2, 3 };
static unsigned char bss_section[5 * PAGE];
static const char constant[] = "a constant in .rodata stays what it is";

static unsigned char *pattern, *holes, *none, *readonly, *checkers, *sparse, *heap, *grows, *named, *locked,
    *locked_on_fault, *no_reserve, *shared_with_child;
static void *heap_end;
static bool name_works;

typedef int (*code)(void);

static struct {
	const char *flag;
	int advice;
	unsigned char *area;
	bool works;
} advised[] = {
	{ "dc", MADV_DONTFORK, NULL, false }, { "wf", MADV_WIPEONFORK, NULL, false },
	{ "dd", MADV_DONTDUMP, NULL, false }, { "hg", MADV_HUGEPAGE, NULL, false },
	{ "nh", MADV_NOHUGEPAGE, NULL, false }, { "sr", MADV_SEQUENTIAL, NULL, false },
	{ "rr", MADV_RANDOM, NULL, false },   { "mg", MADV_MERGEABLE, NULL, false },
};

static unsigned char *map(size_t size, int protection, int flags) {
	void *memory = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	CHECK(memory != MAP_FAILED);
	return memory;
}

/* Apart from its neighbours, so that it never merges with them. */
static unsigned char *map_alone(size_t size, int protection, int flags) {
	unsigned char *memory = map(size + 2 * PAGE, PROT_NONE, 0);
	munmap(memory, size + 2 * PAGE);
	void *alone = mmap(memory + PAGE, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1, 0);
	CHECK(alone != MAP_FAILED);
	/* The guards keep the kernel from putting the next one beside it. */
	CHECK(mmap(memory, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == memory);
	CHECK(mmap(memory + size + PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
	      memory + size + PAGE);
	return alone;
}

static void put_code(unsigned char *at, int value) {
	/* mov eax, value; ret */
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static bool is_permitted(const void *address, const char *permissions) {
	char found[5];
	return strcmp(pod_area_permissions(address, found), permissions) == 0;
}

static unsigned char *code_rx, *code_rwx;

static void check_light(void) {
	CHECK_PATTERN(pattern, 16 * PAGE, 1);
	CHECK_PATTERN(readonly, 4 * PAGE, 5);
	EQUAL(((code)code_rx)(), 4711);
	EQUAL(((code)code_rwx)(), 815);
	CHECK(strcmp(constant, "a constant in .rodata stays what it is") == 0);
}

static void check_all(void) {
	CHECK_PATTERN(pattern, PATTERN_PAGES * PAGE, 1);
	CHECK_PATTERN(data_section, sizeof data_section, 2);
	CHECK_PATTERN(bss_section + PAGE, 2 * PAGE, 3);
	for (size_t at = 0; at < PAGE; at++) CHECK(bss_section[at] == 0 && bss_section[4 * PAGE + at] == 0);

	/* Holes: pages 4..7 and 12 are not mapped. */
	for (size_t page = 0; page < 16; page++) {
		bool hole = (page >= 4 && page < 8) || page == 12;
		errno = 0;
		int result = msync(holes + page * PAGE, PAGE, MS_ASYNC);
		CHECKF(hole ? result == -1 && errno == ENOMEM : result == 0, "page %zu of the area with holes", page);
		if (!hole) CHECK_PATTERN(holes + page * PAGE, PAGE, 100 + page);
	}

	CHECK(is_permitted(none, "---p"));
	EQUAL(mprotect(none, 8 * PAGE, PROT_READ), 0);
	CHECK_PATTERN(none, 8 * PAGE, 4);
	EQUAL(mprotect(none, 8 * PAGE, PROT_NONE), 0);
	CHECK(is_permitted(readonly, "r--p"));
	CHECK(is_permitted(code_rx, "r-xp"));
	CHECK(is_permitted(code_rwx, "rwxp"));
	EQUAL(((code)code_rwx)(), 815);
	put_code(code_rwx, 816);
	EQUAL(((code)code_rwx)(), 816);
	put_code(code_rwx, 815);
	for (size_t page = 0; page < CHECKER_PAGES; page++) {
		CHECKF(is_permitted(checkers + page * PAGE, page % 2 ? "rw-p" : "r--p"), "protection of checker %zu", page);
		CHECK_PATTERN(checkers + page * PAGE, PAGE, 200 + page);
	}

	/* Nobody may have filled the sparse range with zero pages: its size in memory says so before it is read. */
	static unsigned char resident[SPARSE_SIZE / PAGE];
	EQUAL(mincore(sparse, SPARSE_SIZE, resident), 0);
	size_t present = 0;
	for (size_t page = 0; page < SPARSE_SIZE / PAGE; page++) present += resident[page] & 1;
	CHECKF(present < 1000, "%zu pages of the sparse range are in memory", present);
	for (size_t at = 0; at < SPARSE_SIZE; at += SPARSE_STEP) {
		CHECK_PATTERN(sparse + at, PAGE, 300 + at);
		for (size_t byte = PAGE; byte < 3 * PAGE; byte += 8) CHECK(*(uint64_t *)(sparse + at + byte) == 0);
		CHECK(sparse[at + SPARSE_STEP - 1] == 0);
	}

	CHECK_PATTERN(heap, HEAP_SIZE, 6);
	CHECK(sbrk(0) == heap_end);
	CHECK_PATTERN(grows, 2 * PAGE, 7);
	for (size_t index = 0; index < COUNT(advised); index++) {
		CHECKF(!advised[index].works || pod_area_flag(advised[index].area, advised[index].flag),
		       "the advised area has lost its flag %s", advised[index].flag);
		CHECK_PATTERN(advised[index].area, 4 * PAGE, 400 + index);
	}
	CHECK(pod_area_flag(locked, "lo"));
	CHECK_PATTERN(locked, 2 * PAGE, 8);
	CHECK(pod_area_flag(locked_on_fault, "lo"));
	CHECK(pod_area_flag(no_reserve, "nr"));
	if (name_works) {
		static char maps[1 << 20];
		pod_read_text("/proc/self/maps", maps, sizeof maps);
		CHECK(strstr(maps, "[anon:pod test area]") != NULL);
	}
	CHECK_PATTERN(named, PAGE, 9);
}

/* Needs that much of the main stack below the caller. */
__attribute__((noinline)) static int use_stack(size_t size, uint64_t seed, int (*inside)(void)) {
	volatile unsigned char *memory = __builtin_alloca(size);
	/* Downwards page by page, as the stack grows. */
	for (size_t at = size; at >= PAGE; at -= PAGE) memory[at - PAGE] = 1;
	pod_fill((void *)memory, size, seed);
	int result = inside ? inside() : 0;
	if (pod_break("stack") && inside) memory[size / 2] ^= 1;
	CHECK_PATTERN((void *)memory, size, seed);
	return result;
}

static pid_t child;

static void run_child(void) {
	pod_fill(shared_with_child, 10 * PAGE, 501);
	pod_mark("child");
	if (pod_break("child")) shared_with_child[3 * PAGE] ^= 1;
	while (pod_child_turn()) CHECK_PATTERN(shared_with_child, 10 * PAGE, 501);
	CHECK_PATTERN(shared_with_child, 10 * PAGE, 501);
	CHECK_PATTERN(shared_with_child + 10 * PAGE, 10 * PAGE, 510);
	/* DONTFORK areas are not here, WIPEONFORK areas were emptied. */
	FAILS(msync(advised[0].area, PAGE, MS_ASYNC), ENOMEM);
	if (advised[1].works)
		for (size_t at = 0; at < 4 * PAGE; at++) CHECK(advised[1].area[at] == 0);
	_exit(0);
}

static int turn_inside_stack(void) {
	pod_ready();
	if (pod_break("pattern")) pattern[PAGE * 3 + 17] ^= 4;
	if (pod_break("pattern-late")) pattern[PATTERN_PAGES * PAGE - 1] ^= 1;
	if (pod_break("data")) data_section[PAGE] ^= 1;
	if (pod_break("bss")) bss_section[4 * PAGE + 5] = 1;
	if (pod_break("hole"))
		mmap(holes + 5 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (pod_break("lost-page")) munmap(holes + 9 * PAGE, PAGE);
	if (pod_break("none-content")) {
		mprotect(none, 8 * PAGE, PROT_READ | PROT_WRITE);
		none[PAGE] ^= 1;
		mprotect(none, 8 * PAGE, PROT_NONE);
	}
	if (pod_break("none-protection")) mprotect(none, PAGE, PROT_READ);
	if (pod_break("readonly")) mprotect(readonly, PAGE, PROT_READ | PROT_WRITE);
	if (pod_break("code-protection")) mprotect(code_rx, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	if (pod_break("code")) put_code(code_rwx, 1);
	if (pod_break("checkers")) mprotect(checkers + 7 * PAGE, PAGE, PROT_READ);
	if (pod_break("sparse")) sparse[SPARSE_STEP + 2 * PAGE] = 1;
	if (pod_break("sparse-filled")) memset(sparse + SPARSE_STEP / 2, 0, 8 << 20);
	if (pod_break("heap")) heap[HEAP_SIZE / 2] ^= 1;
	if (pod_break("heap-end")) sbrk(PAGE);
	if (pod_break("grows")) grows[1] ^= 1;
	if (pod_break("advice")) madvise(advised[2].area, 4 * PAGE, MADV_DODUMP);
	if (pod_break("lock")) munlock(locked, 2 * PAGE);
	while (pod_turn()) check_light();
	check_all();
	return 42;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_fill(data_section, sizeof data_section, 2);
	pod_fill(bss_section + PAGE, 2 * PAGE, 3);
	pattern = map(PATTERN_PAGES * PAGE, PROT_READ | PROT_WRITE, 0);
	pod_fill(pattern, PATTERN_PAGES * PAGE, 1);
	holes = map_alone(16 * PAGE, PROT_READ | PROT_WRITE, 0);
	for (size_t page = 0; page < 16; page++) pod_fill(holes + page * PAGE, PAGE, 100 + page);
	none = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
	pod_fill(none, 8 * PAGE, 4);
	mprotect(none, 8 * PAGE, PROT_NONE);
	readonly = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
	pod_fill(readonly, 4 * PAGE, 5);
	mprotect(readonly, 4 * PAGE, PROT_READ);
	code_rx = map(PAGE, PROT_READ | PROT_WRITE, 0);
	put_code(code_rx, 4711);
	mprotect(code_rx, PAGE, PROT_READ | PROT_EXEC);
	code_rwx = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, 0);
	put_code(code_rwx, 815);
	checkers = map_alone(CHECKER_PAGES * PAGE, PROT_READ | PROT_WRITE, 0);
	for (size_t page = 0; page < CHECKER_PAGES; page++) {
		pod_fill(checkers + page * PAGE, PAGE, 200 + page);
		if (page % 2 == 0) mprotect(checkers + page * PAGE, PAGE, PROT_READ);
	}
	sparse = map_alone(SPARSE_SIZE, PROT_READ | PROT_WRITE, 0);
	madvise(sparse, SPARSE_SIZE, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < SPARSE_SIZE; at += SPARSE_STEP) {
		pod_fill(sparse + at, PAGE, 300 + at);
		/* Present, but all zero; the one after it was only read. */
		memset(sparse + at + PAGE, 0, PAGE);
		(void)*(volatile unsigned char *)(sparse + at + 2 * PAGE);
	}
	for (size_t index = 0; index < COUNT(advised); index++) {
		advised[index].area = map_alone(4 * PAGE, PROT_READ | PROT_WRITE, 0);
		pod_fill(advised[index].area, 4 * PAGE, 400 + index);
		advised[index].works = madvise(advised[index].area, 4 * PAGE, advised[index].advice) == 0 &&
		                       pod_area_flag(advised[index].area, advised[index].flag);
	}
	CHECK(advised[0].works && advised[1].works && advised[2].works);
	locked = map_alone(2 * PAGE, PROT_READ | PROT_WRITE, 0);
	pod_fill(locked, 2 * PAGE, 8);
	EQUAL(mlock(locked, 2 * PAGE), 0);
	locked_on_fault = map_alone(2 * PAGE, PROT_READ | PROT_WRITE, 0);
	EQUAL(mlock2(locked_on_fault, 2 * PAGE, MLOCK_ONFAULT), 0);
	no_reserve = map_alone(64 * PAGE, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	named = map_alone(PAGE, PROT_READ | PROT_WRITE, 0);
	pod_fill(named, PAGE, 9);
	name_works = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, named, PAGE, "pod test area") == 0;

	shared_with_child = map(20 * PAGE, PROT_READ | PROT_WRITE, 0);
	pod_fill(shared_with_child, 10 * PAGE, 500);
	pod_fill(shared_with_child + 10 * PAGE, 10 * PAGE, 510);
	child = MUST(fork());
	if (child == 0) run_child();
	pod_await("child");

	heap = sbrk(HEAP_SIZE);
	CHECK(heap != (void *)-1);
	pod_fill(heap, HEAP_SIZE, 6);
	heap_end = sbrk(0);
	/* Last, so that nothing is mapped into the room it needs to grow. */
	grows = map(8UL << 20, PROT_NONE, 0);
	munmap(grows, 8UL << 20);
	grows += (8UL << 20) - 2 * PAGE;
	CHECK(mmap(grows, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1,
	           0) == grows);
	pod_fill(grows, 2 * PAGE, 7);
	CHECK(pod_area_flag(grows, "gd"));
	/* Nor into the holes. */
	EQUAL(munmap(holes + 4 * PAGE, 4 * PAGE), 0);
	EQUAL(munmap(holes + 12 * PAGE, PAGE), 0);

	EQUAL(use_stack(STACK_SIZE, 10, turn_inside_stack), 42);

	/* What grows must still grow. */
	CHECK(pod_area_flag(grows, "gd"));
	grows[-1] = 5;
	grows[-(ssize_t)PAGE - 1] = 6;
	EQUAL(use_stack(2 * STACK_SIZE, 11, NULL), 0);
	CHECK_PATTERN(shared_with_child, 10 * PAGE, 500);
	CHECK_PATTERN(shared_with_child + 10 * PAGE, 10 * PAGE, 510);
	pod_reap(child);
	pod_pass();
}
