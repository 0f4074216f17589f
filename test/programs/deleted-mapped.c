/*
 * Mappings of what has no name any more: shared, private with clean and dirty pages, only readable, executable; by
 * two processes, with and without a descriptor; a POSIX shared memory object; files replaced by rename(2). And this
 * program itself runs in a child from an executable that was removed, and from one that never had a name (memfd).
 */
#include "pod-test.h"

#define PAGES 12
#define SIZE (PAGES * PAGE)

static unsigned char *shared, *private, *readonly, *code, *replaced, *posix, *zeroed;
static int held, memory;

static int make(const char *name, uint64_t seed) {
	static unsigned char bytes[SIZE];
	pod_path_t path;
	pod_fill(bytes, sizeof bytes, seed);
	int fd = MUST(open(pod_path(path, name), O_RDWR | O_CREAT | O_EXCL, 0644));
	EQUAL(write(fd, bytes, sizeof bytes), sizeof bytes);
	return fd;
}

static void gone(const char *name) {
	pod_path_t path;
	EQUAL(unlink(pod_path(path, name)), 0);
}

static void *map(int fd, int protection, int flags, off_t offset, size_t size) {
	void *memory = mmap(NULL, size, protection, flags, fd, offset);
	CHECK(memory != MAP_FAILED);
	return memory;
}

/** Run this program again, from a copy that is only a descriptor, as the child `name`. */
static pid_t run_copy(int fd, const char *name, const char *self) {
	pid_t child = MUST(fork());
	if (child == 0) {
		char *arguments[] = { (char *)name, pod_dir, NULL };
		char *environment[] = { "POD_CHILD=1", NULL };
		fexecve(fd, arguments, environment);
		FAIL("%s cannot be run", name);
	}
	close(fd);
	pod_await(name);
	if (self) EQUAL(unlink(self), 0);
	return child;
}

/** A child that runs what has no name: its program, its data and its place stay. */
static int child_of_nothing(const char *name) {
	static int initialized[2000] = { 1, 2, 3 };
	initialized[1500] = 77;
	struct stat before, after;
	EQUAL(stat("/proc/self/exe", &before), 0);
	pod_mark(name);
	while (pod_child_turn()) CHECK(initialized[2] == 3 && initialized[1500] == 77);
	EQUAL(stat("/proc/self/exe", &after), 0);
	EQUAL(after.st_nlink, 0);
	EQUAL(after.st_size, before.st_size);
	EQUAL(after.st_mode, before.st_mode);
	EQUAL(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	char path[256] = "";
	CHECK(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
	CHECKF(strstr(path, " (deleted)"), "it runs %s", path);
	/* It can still be run, and read. */
	int fd = MUST(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	char magic[4];
	EQUAL(read(fd, magic, 4), 4);
	CHECK(memcmp(magic, "\177ELF", 4) == 0);
	char *arguments[] = { "again", NULL }, *environment[] = { "POD_CHILD=2", NULL };
	fexecve(fd, arguments, environment);
	FAIL("it cannot be run again");
}

static int copy_of_self(int to) {
	int from = MUST(open("/proc/self/exe", O_RDONLY));
	char bytes[65536];
	for (ssize_t got; (got = read(from, bytes, sizeof bytes)) > 0;) EQUAL(write(to, bytes, (size_t)got), got);
	close(from);
	return to;
}

static void check(void) {
	CHECK_PATTERN(shared, 4 * PAGE, 1 + 2 * PAGE);
	CHECK_PATTERN(private, PAGE, 2);
	CHECK_PATTERN(private + PAGE, PAGE, 50);
	CHECK_PATTERN(private + 2 * PAGE, 2 * PAGE, 2 + 2 * PAGE);
	CHECK_PATTERN(readonly, 2 * PAGE, 1);
	CHECK_PATTERN(replaced, SIZE, 4);
	CHECK_PATTERN(posix, 3 * PAGE, 5);
	for (size_t at = 0; at < PAGE; at++) EQUAL(zeroed[at], 0);
	EQUAL(((int (*)(void))code)(), 99);
}

static bool is_permitted(const void *address, const char *permissions) {
	char found[5];
	return strcmp(pod_area_permissions(address, found), permissions) == 0;
}

int main(int argc, char **argv) {
	const char *part = getenv("POD_CHILD");
	if (part && strcmp(part, "2") == 0) return 0;
	pod_begin(argc, argv);
	if (part) return child_of_nothing(argv[0]);
	pod_path_t path, other;

	/* One file: two views and a descriptor, a part of it only. */
	held = make("held", 1);
	shared = map(held, PROT_READ | PROT_WRITE, MAP_SHARED, 2 * PAGE, 4 * PAGE);
	int fd = MUST(open(pod_path(path, "held"), O_RDONLY));
	readonly = map(fd, PROT_READ, MAP_SHARED, 0, 2 * PAGE);
	close(fd);
	gone("held");
	/* Only mapped, private: like a library that was upgraded. */
	fd = make("private", 2);
	private = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, 4 * PAGE);
	zeroed = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 5 * PAGE, PAGE);
	close(fd);
	gone("private");
	pod_fill(private + PAGE, PAGE, 50);
	memset(zeroed, 0, PAGE);
	fd = make("code", 3);
	EQUAL(pwrite(fd, "\xb8\x63\0\0\0\xc3", 6, 0), 6);
	close(fd);
	fd = MUST(open(pod_path(path, "code"), O_RDONLY));
	code = map(fd, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0, PAGE);
	close(fd);
	gone("code");
	/* Another file took its name. */
	fd = make("replaced", 4);
	replaced = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, SIZE);
	close(fd);
	close(make("new", 9));
	EQUAL(rename(pod_path(other, "new"), pod_path(path, "replaced")), 0);
	char name[64];
	snprintf(name, sizeof name, "/pod-test-%d", getpid());
	memory = MUST(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
	EQUAL(ftruncate(memory, 3 * PAGE), 0);
	posix = map(memory, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 3 * PAGE);
	pod_fill(posix, 3 * PAGE, 5);
	EQUAL(shm_unlink(name), 0);

	pid_t child = MUST(fork());
	if (child == 0) {
		close(held);
		close(memory);
		munmap(readonly, 2 * PAGE);
		pod_mark("child");
		while (pod_child_turn()) CHECK_PATTERN(shared + PAGE, 3 * PAGE, 1 + 3 * PAGE);
		EVENTUALLY(memcmp(shared, "through", 7) == 0);
		EVENTUALLY(memcmp(posix, "posix", 5) == 0);
		EVENTUALLY(memcmp(replaced, "replaced", 8) == 0);
		CHECK_PATTERN(private + PAGE, PAGE, 50);
		_exit(0);
	}
	pod_await("child");
	int copy = MUST(open(pod_path(path, "copy"), O_RDWR | O_CREAT | O_EXCL, 0755));
	close(copy_of_self(copy));
	pid_t upgraded = run_copy(MUST(open(path, O_RDONLY | O_CLOEXEC)), "upgraded", path);
	/* What is open for writing cannot be run. */
	fd = copy_of_self(MUST(memfd_create("program", MFD_CLOEXEC)));
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	copy = MUST(open(name, O_RDONLY | O_CLOEXEC));
	close(fd);
	pid_t nameless = run_copy(copy, "nameless", NULL);
	pod_ready();

	if (pod_break("shared")) shared[PAGE] ^= 1;
	if (pod_break("dirty")) CHECK(madvise(private + PAGE, PAGE, MADV_DONTNEED) == 0);
	if (pod_break("zeroed")) CHECK(madvise(zeroed, PAGE, MADV_DONTNEED) == 0);
	if (pod_break("unshared")) {
		CHECK(mmap(shared, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == shared);
		pod_fill(shared, 4 * PAGE, 1 + 2 * PAGE);
	}
	if (pod_break("posix")) {
		CHECK(mmap(posix, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == posix);
		pod_fill(posix, 3 * PAGE, 5);
	}
	if (pod_break("may-write")) {
		CHECK(mmap(readonly, 2 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, held, 0) == readonly);
	}

	while (pod_turn()) check();
	check();
	CHECK(is_permitted(shared, "rw-s"));
	CHECK(is_permitted(readonly, "r--s"));
	CHECK(is_permitted(private, "rw-p"));
	CHECK(is_permitted(code, "r-xp"));
	FAILS(mprotect(readonly, PAGE, PROT_READ | PROT_WRITE), EACCES);
	/* Views and descriptor are one file, which nobody finds. */
	struct stat status;
	EQUAL(fstat(held, &status), 0);
	EQUAL(status.st_nlink, 0);
	EQUAL(status.st_size, SIZE);
	memcpy(shared, "through", 7);
	char text[16] = "";
	EQUAL(pread(held, text, 7, 2 * PAGE), 7);
	CHECK(strcmp(text, "through") == 0);
	EQUAL(pwrite(held, "view", 4, PAGE), 4);
	CHECK(memcmp(readonly + PAGE, "view", 4) == 0);
	EQUAL(pwrite(memory, "posix", 5, 0), 5);
	CHECK(memcmp(posix, "posix", 5) == 0);
	memcpy(replaced, "replaced", 8);
	FAILS(access(pod_path(path, "held"), F_OK), ENOENT);
	FAILS(access(pod_path(path, "copy"), F_OK), ENOENT);
	static unsigned char bytes[SIZE];
	fd = MUST(open(pod_path(path, "replaced"), O_RDONLY));
	EQUAL(read(fd, bytes, SIZE), SIZE);
	CHECK_PATTERN(bytes, SIZE, 9);
	pod_reap(child);
	pod_reap(upgraded);
	pod_reap(nameless);
	pod_pass();
}
