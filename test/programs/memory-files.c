/*
 * File mappings: private (clean, dirty, dirty in part, only readable), shared (written through to the file, and
 * only readable), at offsets, over the end of the file, executable, with and without an open descriptor, by two
 * processes. What could become writable must still be able to, what could not must not.
 */
#include "pod-test.h"

#define FILE_PAGES 24
#define TAIL 1234
#define FILE_SIZE (FILE_PAGES * PAGE + TAIL)

static pod_path_t data_path, code_path, shared_path;
static unsigned char *clean, *dirty, *zeroed, *readonly, *past_end, *shared, *shared_readonly, *shared_never, *program;
static struct timespec data_time;

static void make_file(pod_path_t path, const char *name, uint64_t seed) {
	static unsigned char bytes[FILE_SIZE];
	pod_fill(bytes, sizeof bytes, seed);
	int fd = MUST(open(pod_path(path, name), O_RDWR | O_CREAT | O_TRUNC, 0666));
	EQUAL(write(fd, bytes, sizeof bytes), sizeof bytes);
	close(fd);
}

static unsigned char *map(const char *path, int mode, size_t size, int protection, int flags, off_t offset) {
	int fd = MUST(open(path, mode));
	void *memory = mmap(NULL, size, protection, flags, fd, offset);
	CHECK(memory != MAP_FAILED);
	close(fd);
	return memory;
}

static bool is_permitted(const void *address, const char *permissions) {
	char found[5];
	return strcmp(pod_area_permissions(address, found), permissions) == 0;
}

static bool maps_show(const void *address, const char *path, unsigned long offset) {
	static char maps[1 << 20];
	pod_read_text("/proc/self/maps", maps, sizeof maps);
	for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long start, end, at;
		char name[4096] = "";
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %4095s", &start, &end, &at, name) < 3) continue;
		if ((unsigned long)address >= start && (unsigned long)address < end)
			return strcmp(name, path) == 0 && at + ((unsigned long)address - start) == offset;
	}
	return false;
}

static void check_contents(void) {
	CHECK_PATTERN(clean, FILE_PAGES * PAGE, 1);
	CHECK_PATTERN(dirty, PAGE, 1 + 4 * PAGE);
	CHECK_PATTERN(dirty + PAGE, 2 * PAGE, 50);
	CHECK_PATTERN(dirty + 3 * PAGE, PAGE - 8, 1 + 7 * PAGE);
	CHECK(memcmp(dirty + 4 * PAGE - 8, "changed!", 8) == 0);
	CHECK_PATTERN(dirty + 4 * PAGE, 4 * PAGE, 1 + 8 * PAGE);
	for (size_t at = 0; at < PAGE; at++) EQUAL(zeroed[at], 0);
	CHECK_PATTERN(zeroed + PAGE, PAGE, 1 + 7 * PAGE);
	CHECK_PATTERN(shared, 8 * PAGE, 60);
	CHECK_PATTERN(shared_readonly, 8 * PAGE, 60);
	EQUAL(((int (*)(void))program)(), 99);
}

static void check_all(void) {
	check_contents();
	CHECK_PATTERN(readonly, PAGE, 1 + PAGE);
	CHECK_PATTERN(past_end, TAIL, 1 + FILE_PAGES * PAGE);
	for (size_t at = TAIL + 1; at < PAGE; at++) EQUAL(past_end[at], 0);
	EQUAL(past_end[TAIL], 7);
	CHECK(is_permitted(clean, "rw-p"));
	CHECK(is_permitted(readonly, "r--p"));
	CHECK(is_permitted(shared, "rw-s"));
	CHECK(is_permitted(shared_readonly, "r--s"));
	CHECK(is_permitted(shared_never, "r--s"));
	CHECK(is_permitted(program, "r-xp"));
	CHECK(maps_show(clean, data_path, 0));
	CHECK(maps_show(dirty, data_path, 4 * PAGE));
	CHECK(maps_show(readonly, data_path, PAGE));
	CHECK(maps_show(shared, shared_path, 2 * PAGE));
	CHECK(maps_show(program, code_path, 0));
	/* Nothing may have leaked from private pages into the file, and nobody may have rewritten it. */
	static unsigned char bytes[FILE_SIZE];
	struct stat status;
	int fd = MUST(open(data_path, O_RDONLY));
	EQUAL(read(fd, bytes, sizeof bytes), sizeof bytes);
	CHECK_PATTERN(bytes, sizeof bytes, 1);
	fstat(fd, &status);
	EQUAL(status.st_size, FILE_SIZE);
	CHECK(status.st_mtim.tv_sec == data_time.tv_sec && status.st_mtim.tv_nsec == data_time.tv_nsec);
	close(fd);
	/* A private mapping still follows the file where it was never written. */
	fd = MUST(open(data_path, O_RDWR));
	EQUAL(pwrite(fd, "file", 4, 20 * PAGE), 4);
	CHECK(memcmp(clean + 20 * PAGE, "file", 4) == 0);
	close(fd);
	/* And a shared one is the file. */
	memcpy(shared, "through", 7);
	fd = MUST(open(shared_path, O_RDWR));
	char text[8] = "";
	EQUAL(pread(fd, text, 7, 2 * PAGE), 7);
	CHECK(strcmp(text, "through") == 0);
	CHECK(memcmp(shared_readonly, "through", 7) == 0);
	EQUAL(pwrite(fd, "back", 4, 3 * PAGE), 4);
	CHECK(memcmp(shared + PAGE, "back", 4) == 0);
	close(fd);
	/* Opened for reading and writing: may become writable. Opened for reading: never. */
	EQUAL(mprotect(shared_readonly, PAGE, PROT_READ | PROT_WRITE), 0);
	FAILS(mprotect(shared_never, PAGE, PROT_READ | PROT_WRITE), EACCES);
	EQUAL(mprotect(readonly, PAGE, PROT_READ | PROT_WRITE), 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	make_file(data_path, "data", 1);
	make_file(shared_path, "shared", 2);
	make_file(code_path, "code", 3);
	int fd = MUST(open(code_path, O_WRONLY));
	EQUAL(pwrite(fd, "\xb8\x63\0\0\0\xc3", 6, 0), 6);
	close(fd);
	struct stat status;
	stat(data_path, &status);
	data_time = status.st_mtim;

	const int private_rw = PROT_READ | PROT_WRITE;
	clean = map(data_path, O_RDONLY, FILE_PAGES * PAGE, private_rw, MAP_PRIVATE, 0);
	CHECK_PATTERN(clean, 10 * PAGE, 1);
	dirty = map(data_path, O_RDONLY, 8 * PAGE, private_rw, MAP_PRIVATE, 4 * PAGE);
	pod_fill(dirty + PAGE, 2 * PAGE, 50);
	memcpy(dirty + 4 * PAGE - 8, "changed!", 8);
	zeroed = map(data_path, O_RDONLY, 2 * PAGE, private_rw, MAP_PRIVATE, 6 * PAGE);
	memset(zeroed, 0, PAGE);
	readonly = map(data_path, O_RDONLY, PAGE, PROT_READ, MAP_PRIVATE, PAGE);
	past_end = map(data_path, O_RDONLY, PAGE, private_rw, MAP_PRIVATE, FILE_PAGES * PAGE);
	past_end[TAIL] = 7;
	shared = map(shared_path, O_RDWR, 8 * PAGE, private_rw, MAP_SHARED, 2 * PAGE);
	pod_fill(shared, 8 * PAGE, 60);
	shared_readonly = map(shared_path, O_RDWR, 8 * PAGE, PROT_READ, MAP_SHARED, 2 * PAGE);
	shared_never = map(shared_path, O_RDONLY, 8 * PAGE, PROT_READ, MAP_SHARED, 2 * PAGE);
	program = map(code_path, O_RDONLY, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0);
	pid_t child = MUST(fork());
	if (child == 0) {
		memcpy(clean + 15 * PAGE, "child", 5);
		pod_mark("child");
		while (pod_child_turn()) CHECK_PATTERN(shared + 4 * PAGE, 4 * PAGE, 60 + 4 * PAGE);
		CHECK(memcmp(clean + 15 * PAGE, "child", 5) == 0);
		CHECK_PATTERN(clean + 16 * PAGE, 2 * PAGE, 1 + 16 * PAGE);
		EVENTUALLY(memcmp(shared, "through", 7) == 0);
		_exit(0);
	}
	pod_await("child");
	pod_ready();

	if (pod_break("clean")) clean[3 * PAGE] ^= 1;
	if (pod_break("zeroed")) CHECK(madvise(zeroed, PAGE, MADV_DONTNEED) == 0);
	if (pod_break("dirty")) CHECK(madvise(dirty + PAGE, PAGE, MADV_DONTNEED) == 0);
	if (pod_break("leak")) {
		fd = MUST(open(data_path, O_WRONLY));
		EQUAL(pwrite(fd, dirty + PAGE, PAGE, 5 * PAGE), PAGE);
		close(fd);
	}
	if (pod_break("unshared")) {
		CHECK(mmap(shared, 8 * PAGE, private_rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == shared);
		pod_fill(shared, 8 * PAGE, 60);
	}
	if (pod_break("copied")) {
		/* All bytes there, but no longer the file. */
		static unsigned char copy[FILE_PAGES * PAGE];
		memcpy(copy, clean, sizeof copy);
		CHECK(mmap(clean, sizeof copy, private_rw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == clean);
		memcpy(clean, copy, sizeof copy);
	}
	if (pod_break("may-write")) {
		fd = MUST(open(shared_path, O_RDWR));
		CHECK(mmap(shared_never, 8 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 2 * PAGE) == shared_never);
		close(fd);
	}
	if (pod_break("past-end")) past_end[TAIL + 5] = 1;

	while (pod_turn()) check_contents();
	check_all();
	pod_reap(child);
	pod_pass();
}
