/*
 * System V shared memory: found by id and key, with its permissions; attached by two processes, for reading only,
 * twice, and in parts; removed and still attached; mostly empty. The number of attachments is what it was, and
 * shmdt(2) finds all of one.
 *
 * Via: pod
 */
#include <sys/ipc.h>
#include <sys/shm.h>
#include "pod-test.h"

#define SIZE (20 * PAGE + 100)
#define SPARSE (64UL << 20)

static const key_t key = 0x50d7e57;
static int keyed, removed, sparse_id;
static unsigned char *shared, *again, *readonly, *gone, *sparse;

static void *attach(int id, int flags) {
	void *memory = shmat(id, NULL, flags);
	CHECK(memory != (void *)-1);
	return memory;
}

static struct shmid_ds status_of(int id) {
	struct shmid_ds status;
	EQUAL(shmctl(id, IPC_STAT, &status), 0);
	return status;
}

static void check(void) {
	CHECK_PATTERN(shared, 20 * PAGE, 1);
	CHECK_PATTERN(gone, 3 * PAGE, 2);
	CHECK_PATTERN(readonly + PAGE, PAGE, 1 + PAGE);
	CHECK_PATTERN(again + 15 * PAGE, PAGE, 1 + 15 * PAGE);
}

static bool is_permitted(const void *address, const char *permissions) {
	char found[5];
	return strcmp(pod_area_permissions(address, found), permissions) == 0;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	/* Ids are not given out in order from 0 for ever. */
	for (int i = 0; i < 5; i++) EQUAL(shmctl(MUST(shmget(IPC_PRIVATE, PAGE, 0600)), IPC_RMID, NULL), 0);
	keyed = MUST(shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0640));
	shared = attach(keyed, 0);
	pod_fill(shared, 20 * PAGE, 1);
	readonly = attach(keyed, SHM_RDONLY);
	/* One attachment in three areas and a gap. */
	again = attach(keyed, 0);
	EQUAL(mprotect(again + 4 * PAGE, PAGE, PROT_READ), 0);
	EQUAL(munmap(again + 8 * PAGE, 4 * PAGE), 0);
	removed = MUST(shmget(IPC_PRIVATE, 3 * PAGE, 0600));
	gone = attach(removed, 0);
	pod_fill(gone, 3 * PAGE, 2);
	EQUAL(shmctl(removed, IPC_RMID, NULL), 0);
	sparse_id = MUST(shmget(IPC_PRIVATE, SPARSE, 0600));
	sparse = attach(sparse_id, 0);
	memcpy(sparse + SPARSE / 2, "middle", 6);
	pid_t child = MUST(fork());
	if (child == 0) {
		EQUAL(shmdt(readonly), 0);
		EQUAL(shmdt(again), 0);
		EQUAL(shmdt(sparse), 0);
		pod_mark("child");
		while (pod_child_turn()) CHECK_PATTERN(shared + PAGE, PAGE, 1 + PAGE);
		EVENTUALLY(memcmp(gone, "through", 7) == 0);
		memcpy(gone, "back", 5);
		pod_await("seen");
		_exit(0);
	}
	pod_await("child");
	unsigned long attached = status_of(keyed).shm_nattch;
	pod_ready();

	if (pod_break("contents")) shared[7 * PAGE] ^= 1;
	if (pod_break("attachments")) CHECK(attach(keyed, 0) != NULL);
	if (pod_break("mode")) {
		struct shmid_ds status = status_of(keyed);
		status.shm_perm.mode = 0600;
		EQUAL(shmctl(keyed, IPC_SET, &status), 0);
	}
	if (pod_break("removed")) {
		EQUAL(shmdt(gone), 0);
		int copy = MUST(shmget(IPC_PRIVATE, 3 * PAGE, 0600));
		CHECK(shmat(copy, gone, 0) == gone);
		pod_fill(gone, 3 * PAGE, 2);
	}
	if (pod_break("key")) EQUAL(shmctl(keyed, IPC_RMID, NULL), 0);
	if (pod_break("sparse")) sparse[100 * PAGE] = 1;
	if (pod_break("protection")) EQUAL(mprotect(again + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE), 0);

	while (pod_turn()) check();
	check();
	EQUAL(shmget(key, 0, 0), keyed);
	FAILS(shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
	struct shmid_ds status = status_of(keyed);
	EQUAL(status.shm_segsz, SIZE);
	EQUAL(status.shm_perm.__key, key);
	EQUAL(status.shm_perm.mode, 0640);
	EQUAL(status.shm_perm.uid, geteuid());
	EQUAL(status.shm_perm.cuid, geteuid());
	EQUAL(status.shm_nattch, attached);
	status = status_of(removed);
	EQUAL(status.shm_perm.mode & SHM_DEST, SHM_DEST);
	EQUAL(status.shm_nattch, 2);
	CHECK(is_permitted(again + 3 * PAGE, "rw-s"));
	CHECK(is_permitted(again + 4 * PAGE, "r--s"));
	CHECK(is_permitted(again + 9 * PAGE, ""));
	CHECK(is_permitted(again + 12 * PAGE, "rw-s"));
	CHECK(is_permitted(readonly, "r--s"));
	FAILS(mprotect(readonly, PAGE, PROT_READ | PROT_WRITE), EACCES);
	/* One memory, seen by all. */
	memcpy(again + 15 * PAGE, "everywhere", 10);
	CHECK(memcmp(shared + 15 * PAGE, "everywhere", 10) == 0);
	CHECK(memcmp(readonly + 15 * PAGE, "everywhere", 10) == 0);
	memcpy(gone, "through", 7);
	EVENTUALLY(memcmp(gone, "back", 5) == 0);
	/* All parts of an attachment go at once. */
	EQUAL(shmdt(again), 0);
	CHECK(is_permitted(again, "") && is_permitted(again + 4 * PAGE, "") && is_permitted(again + 15 * PAGE, ""));
	for (size_t at = 0; at < SPARSE / 2; at += PAGE) EQUAL(sparse[at], 0);
	CHECK(memcmp(sparse + SPARSE / 2, "middle", 6) == 0);
	/* The last one to detach ends it. */
	pod_mark("seen");
	pod_reap(child);
	EQUAL(shmdt(gone), 0);
	struct shmid_ds none;
	FAILS(shmctl(removed, IPC_STAT, &none), EINVAL);
	pod_pass();
}
