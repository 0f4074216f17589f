/*
 * Pages that fork shares: a parent, children and a grandchild have most of an area in common, as the kernel shows it
 * in smaps, and each has pages of its own where it or the parent wrote, emptied or unmapped something since.
 */
#include "pod-test.h"

#define CHILDREN 4
#define PAGES 1024
#define SIZE (PAGES * PAGE)

static unsigned char *area, *readonly, *file;
static pid_t children[CHILDREN];

/* kB of the areas around [memory, memory + size) by a line of smaps. */
static long in_smaps(const unsigned char *memory, size_t size, const char *line_name) {
	FILE *maps = fopen("/proc/self/smaps", "re");
	CHECK(maps != NULL);
	char line[8192], name[64];
	long sum = 0, kilobytes;
	bool inside = false;
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < (unsigned long)memory + size && (unsigned long)memory < end;
		else if (inside && sscanf(line, "%63[^:]: %ld kB", name, &kilobytes) == 2 && strcmp(name, line_name) == 0)
			sum += kilobytes;
	}
	fclose(maps);
	return sum;
}

static void check_page(size_t page, uint64_t seed) {
	ssize_t at = pod_differs(area + page * PAGE, PAGE, seed);
	CHECKF(at < 0, "page %zu is wrong at 0x%zx", page, (size_t)at);
}

static void check_zero(size_t page) {
	for (size_t at = 0; at < PAGE; at++) CHECKF(area[page * PAGE + at] == 0, "page %zu is not empty", page);
}

/* Whose pages are these: 0 the parent's, 1.. a child's, 10 the grandchild's. */
static void check(unsigned who) {
	char permissions[5];
	for (size_t page = 0; page < PAGES; page++) {
		if (page < 10 && who != 0) check_page(page, 1000 * (who == 10 ? 1 : who) + page);
		else if (page < 10) check_page(page, 5000 + page);
		/* Written by the parent when it had forked. */
		else if (page < 20) check_page(page, who == 0 ? 6000 + page : page);
		else if (page < 30 && who == 2) check_zero(page);
		else if (page < 40 && page >= 30 && who == 3)
			FAILS(msync(area + page * PAGE, PAGE, MS_ASYNC), ENOMEM);
		else if (page < 50 && page >= 40 && who == 10) check_page(page, 9000 + page);
		else check_page(page, page);
	}
	CHECK_PATTERN(readonly, 64 * PAGE, 77);
	CHECK(strcmp(pod_area_permissions(readonly, permissions), "r--p") == 0);
	CHECK_PATTERN(file, 4 * PAGE, who == 1 || who == 10 ? 91 : 90);
	if (who == 2) CHECK_PATTERN(file + 4 * PAGE, 4 * PAGE, 92);
	else CHECK_PATTERN(file + 4 * PAGE, 4 * PAGE, 89);
}

/* As many pages are shared as nobody has written to; the kernel counts others that map them, not how often. */
static void check_shared(unsigned who) {
	long shared = in_smaps(area, SIZE, "Shared_Dirty") + in_smaps(area, SIZE, "Shared_Clean");
	CHECKF(shared >= (long)(PAGES - 80) * 4, "only %ld kB of %lu are shared in %u", shared, SIZE >> 10, who);
}

static void run_child(unsigned who) {
	for (size_t page = 0; page < 10; page++) pod_fill(area + page * PAGE, PAGE, 1000 * who + page);
	if (who == 1) {
		pod_fill(file, 4 * PAGE, 91);
		pid_t grandchild = MUST(fork());
		if (grandchild == 0) {
			for (size_t page = 40; page < 50; page++) pod_fill(area + page * PAGE, PAGE, 9000 + page);
			pod_fill(file, 4 * PAGE, 91);
			pod_mark("child10");
			while (pod_child_turn()) {}
			check(10);
			check_shared(10);
			_exit(0);
		}
		pod_await("child10");
		children[0] = grandchild;
	}
	if (who == 2) {
		EQUAL(madvise(area + 20 * PAGE, 10 * PAGE, MADV_DONTNEED), 0);
		EQUAL(setsid(), getpid());
		pod_fill(file + 4 * PAGE, 4 * PAGE, 92);
	}
	if (who == 3) EQUAL(munmap(area + 30 * PAGE, 10 * PAGE), 0);
	if (who == 4) EQUAL(mprotect(readonly, 64 * PAGE, PROT_NONE), 0);
	char name[32];
	snprintf(name, sizeof name, "child%u", who);
	pod_mark(name);
	while (pod_child_turn()) {}
	if (pod_break("child") && who == 2) area[25 * PAGE] = 1;
	if (pod_break("unshared") && who == 3)
		for (size_t page = 0; page < PAGES; page++)
			if (page < 30 || page >= 40) *(volatile unsigned char *)(area + page * PAGE) ^= 0;
	check_shared(who);
	char permissions[5];
	if (who == 4) CHECK(strcmp(pod_area_permissions(readonly, permissions), "---p") == 0);
	if (who == 4) EQUAL(mprotect(readonly, 64 * PAGE, PROT_READ), 0);
	check(who);
	/* Still apart: what one writes nobody else sees. */
	memset(area + 100 * PAGE, (int)who, 100 * PAGE);
	if (who == 1) pod_reap(children[0]);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path;
	int fd = MUST(open(pod_path(path, "file"), O_RDWR | O_CREAT | O_EXCL, 0666));
	static unsigned char content[8 * PAGE];
	pod_fill(content, sizeof content, 88);
	EQUAL(write(fd, content, sizeof content), sizeof content);
	file = mmap(NULL, sizeof content, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(file != MAP_FAILED);
	pod_fill(file, 4 * PAGE, 90);
	pod_fill(file + 4 * PAGE, 4 * PAGE, 89);
	area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(area != MAP_FAILED);
	madvise(area, SIZE, MADV_NOHUGEPAGE);
	for (size_t page = 0; page < PAGES; page++) pod_fill(area + page * PAGE, PAGE, page);
	readonly = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(readonly != MAP_FAILED);
	pod_fill(readonly, 64 * PAGE, 77);
	EQUAL(mprotect(readonly, 64 * PAGE, PROT_READ), 0);
	for (unsigned who = 1; who <= CHILDREN; who++) {
		children[who - 1] = MUST(fork());
		if (children[who - 1] == 0) run_child(who);
		char name[32];
		snprintf(name, sizeof name, "child%u", who);
		pod_await(name);
	}
	for (size_t page = 0; page < 10; page++) pod_fill(area + page * PAGE, PAGE, 5000 + page);
	for (size_t page = 10; page < 20; page++) pod_fill(area + page * PAGE, PAGE, 6000 + page);
	pod_ready();
	if (pod_break("parent")) area[15 * PAGE + 3] ^= 1;
	if (pod_break("file")) file[0] ^= 1;
	while (pod_turn()) {}
	check(0);
	for (unsigned who = 1; who <= CHILDREN; who++) pod_reap(children[who - 1]);
	check(0);
	pod_pass();
}
