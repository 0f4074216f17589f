/*
 * memfd_create: contents, size, name, seals, descriptors (two opens of one memory with offsets of their own),
 * mappings shared and private, and a memory that is only mapped, with no descriptor left.
 */
#include <sys/syscall.h>
#include "pod-test.h"

#define SIZE (30 * PAGE + 100)

static int plain, sealed, reopened;
static unsigned char *shared, *private_view, *only_mapped;

static void check(void) {
	static unsigned char bytes[SIZE];
	EQUAL(pread(plain, bytes, SIZE, 0), SIZE);
	CHECK_PATTERN(bytes, SIZE, 1);
	CHECK_PATTERN(shared, 30 * PAGE, 1);
	CHECK_PATTERN(only_mapped, 4 * PAGE, 3);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	static unsigned char bytes[SIZE];
	pod_fill(bytes, SIZE, 1);
	plain = MUST(memfd_create("pod test memory", MFD_CLOEXEC));
	EQUAL(write(plain, bytes, SIZE), SIZE);
	EQUAL(lseek(plain, 555, SEEK_SET), 555);
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", plain);
	reopened = MUST(open(link, O_RDONLY));
	EQUAL(lseek(reopened, 777, SEEK_SET), 777);
	sealed = MUST(memfd_create("sealed", MFD_ALLOW_SEALING));
	EQUAL(write(sealed, "cannot change", 13), 13);
	EQUAL(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
	shared = mmap(NULL, 30 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, plain, 0);
	private_view = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, plain, PAGE);
	CHECK(shared != MAP_FAILED && private_view != MAP_FAILED);
	memcpy(private_view, "mine", 4);
	int gone = MUST(memfd_create("gone", 0));
	EQUAL(ftruncate(gone, 4 * PAGE), 0);
	only_mapped = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 0);
	CHECK(only_mapped != MAP_FAILED);
	pod_fill(only_mapped, 4 * PAGE, 3);
	close(gone);
	pod_ready();

	if (pod_break("contents")) shared[9 * PAGE] ^= 1;
	if (pod_break("offset")) lseek(plain, 0, SEEK_SET);
	if (pod_break("identity")) {
		int copy = MUST(memfd_create("pod test memory", MFD_CLOEXEC));
		EQUAL(write(copy, bytes, SIZE), SIZE);
		lseek(copy, 555, SEEK_SET);
		dup3(copy, plain, O_CLOEXEC);
	}
	if (pod_break("seals")) {
		int copy = MUST(memfd_create("sealed", MFD_ALLOW_SEALING));
		EQUAL(write(copy, "cannot change", 13), 13);
		dup2(copy, sealed);
	}
	if (pod_break("name")) {
		int copy = MUST(memfd_create("other", MFD_ALLOW_SEALING));
		EQUAL(write(copy, "cannot change", 13), 13);
		fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
		dup2(copy, sealed);
	}
	if (pod_break("private")) private_view[0] = 'M';

	while (pod_turn()) check();
	check();
	EQUAL(lseek(plain, 0, SEEK_CUR), 555);
	EQUAL(lseek(reopened, 0, SEEK_CUR), 777);
	struct stat status;
	fstat(plain, &status);
	EQUAL(status.st_size, SIZE);
	EQUAL(fcntl(plain, F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(plain, F_GETFL) & O_ACCMODE, O_RDWR);
	EQUAL(fcntl(reopened, F_GETFL) & O_ACCMODE, O_RDONLY);
	EQUAL(fcntl(sealed, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
	FAILS(pwrite(sealed, "x", 1, 0), EPERM);
	char path[256] = "", text[16] = "";
	EQUAL(pread(sealed, text, 13, 0), 13);
	CHECK(strcmp(text, "cannot change") == 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", plain);
	CHECK(readlink(link, path, sizeof path - 1) > 0);
	CHECKF(strcmp(path, "/memfd:pod test memory (deleted)") == 0, "it is called %s", path);
	snprintf(link, sizeof link, "/proc/self/fd/%d", sealed);
	memset(path, 0, sizeof path);
	CHECK(readlink(link, path, sizeof path - 1) > 0);
	CHECKF(strcmp(path, "/memfd:sealed (deleted)") == 0, "it is called %s", path);
	/* One memory. */
	CHECK(memcmp(private_view, "mine", 4) == 0);
	CHECK_PATTERN(private_view + PAGE, PAGE, 1 + 2 * PAGE);
	EQUAL(pwrite(plain, "all see it", 10, 5 * PAGE), 10);
	CHECK(memcmp(shared + 5 * PAGE, "all see it", 10) == 0);
	EQUAL(pread(reopened, text, 10, 5 * PAGE), 10);
	CHECK(memcmp(text, "all see it", 10) == 0);
	pod_pass();
}
