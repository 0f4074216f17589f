/*
 * Files that are open but no longer have a name: with content, empty, sparse, locked, made by O_TMPFILE, opened
 * twice, and one that is only mapped. Content, size, offset, lock, attributes and identity stay.
 */
#include <sys/file.h>
#include <sys/xattr.h>
#include "pod-test.h"

#define SIZE 100000

static int plain, reader, empty, sparse, nameless;
static unsigned char *mapped;

static int make(const char *name, size_t size, uint64_t seed, int flags) {
	static unsigned char bytes[SIZE];
	pod_path_t path;
	pod_fill(bytes, size, seed);
	int fd = MUST(open(pod_path(path, name), O_RDWR | O_CREAT | O_EXCL | flags, 0640));
	EQUAL(write(fd, bytes, size), size);
	return fd;
}

static void check(void) {
	static unsigned char bytes[SIZE + 1];
	EQUAL(pread(plain, bytes, sizeof bytes, 0), SIZE);
	CHECK_PATTERN(bytes, SIZE, 1);
	EQUAL(lseek(plain, 0, SEEK_CUR), 333);
	EQUAL(lseek(reader, 0, SEEK_CUR), 44);
	EQUAL(pread(nameless, bytes, sizeof bytes, 0), 5000);
	CHECK_PATTERN(bytes, 5000, 2);
	CHECK_PATTERN(mapped, 2 * PAGE, 3);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_path_t path;
	plain = make("plain", SIZE, 1, O_APPEND);
	lseek(plain, 333, SEEK_SET);
	reader = MUST(open(pod_path(path, "plain"), O_RDONLY));
	lseek(reader, 44, SEEK_SET);
	EQUAL(unlink(path), 0);
	empty = make("empty", 0, 0, O_CLOEXEC);
	EQUAL(unlink(pod_path(path, "empty")), 0);
	EQUAL(flock(empty, LOCK_EX), 0);
	const struct timespec times[] = { { 1000000000, 1 }, { 1100000000, 999999999 } };
	EQUAL(futimens(empty, times), 0);
	sparse = make("sparse", 0, 0, 0);
	EQUAL(ftruncate(sparse, 1L << 30), 0);
	EQUAL(pwrite(sparse, "middle", 6, 512L << 20), 6);
	EQUAL(unlink(pod_path(path, "sparse")), 0);
	nameless = MUST(open(pod_dir, O_TMPFILE | O_RDWR, 0600));
	int fd;
	static unsigned char bytes[5000];
	pod_fill(bytes, sizeof bytes, 2);
	EQUAL(write(nameless, bytes, sizeof bytes), sizeof bytes);
	fd = make("mapped", 2 * PAGE, 3, 0);
	mapped = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(mapped != MAP_FAILED);
	EQUAL(unlink(pod_path(path, "mapped")), 0);
	close(fd);
	/* A new file under an old name is not the old file. */
	fd = MUST(open(pod_path(path, "plain"), O_WRONLY | O_CREAT | O_EXCL, 0666));
	EQUAL(write(fd, "somebody else's", 15), 15);
	close(fd);
	/* Not all file systems have them. */
	bool attributed = fsetxattr(empty, "user.pod", "of the deleted", 14, 0) == 0;
	pod_ready();

	if (pod_break("content")) EQUAL(ftruncate(plain, SIZE - 1), 0);
	if (pod_break("offset")) lseek(reader, 0, SEEK_SET);
	if (pod_break("named")) {
		fd = MUST(open(path, O_RDWR | O_APPEND));
		dup2(fd, empty);
	}
	if (pod_break("unlocked")) flock(empty, LOCK_UN);
	if (pod_break("attribute") && (!attributed || fremovexattr(empty, "user.pod") != 0)) FAIL("no attributes here");
	if (pod_break("touched")) EQUAL(futimens(empty, NULL), 0);
	if (pod_break("sparse")) EQUAL(pwrite(sparse, "x", 1, 100), 1);
	if (pod_break("mapped")) mapped[PAGE] ^= 1;
	if (pod_break("identity")) {
		fd = make("copy", SIZE, 1, 0);
		unlink(pod_path(path, "copy"));
		lseek(fd, 44, SEEK_SET);
		dup2(fd, reader);
	}
	while (pod_turn()) check();
	check();
	struct stat status, other;
	const int all[] = { plain, reader, empty, sparse, nameless };
	for (size_t i = 0; i < COUNT(all); i++) {
		EQUAL(fstat(all[i], &status), 0);
		EQUAL(status.st_nlink, 0);
	}
	if (attributed) {
		char value[32];
		EQUAL(fgetxattr(empty, "user.pod", value, sizeof value), 14);
		EQUAL(memcmp(value, "of the deleted", 14), 0);
	}
	fstat(empty, &status);
	EQUAL(status.st_size, 0);
	EQUAL(status.st_mode & 0777, 0640);
	EQUAL(status.st_atim.tv_nsec, 1);
	EQUAL(status.st_mtim.tv_sec, 1100000000);
	EQUAL(status.st_mtim.tv_nsec, 999999999);
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", empty);
	fd = MUST(open(link, O_RDONLY));
	FAILS(flock(fd, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	close(fd);
	EQUAL(fcntl(empty, F_GETFD), FD_CLOEXEC);
	fstat(sparse, &status);
	EQUAL(status.st_size, 1L << 30);
	CHECKF(status.st_blocks < 10000, "the sparse file was filled: %ld blocks", status.st_blocks);
	char text[64] = "";
	EQUAL(pread(sparse, text, 6, 512L << 20), 6);
	CHECK(strcmp(text, "middle") == 0);
	EQUAL(pread(sparse, text, 6, 98), 6);
	CHECK(memcmp(text, "\0\0\0\0\0\0", 6) == 0);
	/* Both opens are one file. */
	fstat(plain, &status);
	fstat(reader, &other);
	CHECK(status.st_ino == other.st_ino && status.st_dev == other.st_dev);
	EQUAL(fcntl(plain, F_GETFL) & (O_APPEND | O_ACCMODE), O_APPEND | O_RDWR);
	EQUAL(write(plain, "end", 3), 3);
	EQUAL(pread(reader, text, 10, SIZE), 3);
	/* The name belongs to somebody else. */
	fd = MUST(open(path, O_RDONLY));
	EQUAL(read(fd, text, sizeof text), 15);
	CHECK(memcmp(text, "somebody else's", 15) == 0);
	pod_pass();
}
