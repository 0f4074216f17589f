/*
 * System V shared memory that nobody has attached: content, id, key, permissions, a lock in memory; mostly empty, and
 * never touched. Nobody has it attached afterwards either: removed, it is gone at once.
 *
 * Via: pod
 */
#include <sys/ipc.h>
#include <sys/shm.h>
#include "pod-test.h"

#define SIZE (20 * PAGE + 100)
#define SPARSE (64UL << 20)

enum { KEYED, SPARSELY, LOCKED, EMPTY, SEGMENTS };

static const struct {
	key_t key;
	size_t size;
	unsigned mode;
} want[SEGMENTS] = {
	[KEYED] = { 0x50d7e58, SIZE, 0640 },
	[SPARSELY] = { IPC_PRIVATE, SPARSE, 0600 },
	[LOCKED] = { IPC_PRIVATE, 2 * PAGE, 0604 | SHM_LOCKED },
	[EMPTY] = { 0x50d7e59, 1, 0600 },
};
static int id[SEGMENTS];

static unsigned char *attach(int which, int flags) {
	void *memory = shmat(id[which], NULL, flags);
	CHECK(memory != (void *)-1);
	return memory;
}

static void check_status(void) {
	for (int which = 0; which < SEGMENTS; which++) {
		struct shmid_ds status;
		EQUAL(shmctl(id[which], IPC_STAT, &status), 0);
		EQUAL(status.shm_nattch, 0);
		EQUAL(status.shm_segsz, want[which].size);
		EQUAL(status.shm_perm.mode, want[which].mode);
		EQUAL(status.shm_perm.uid, getuid());
		EQUAL(status.shm_perm.cuid, getuid());
		EQUAL(status.shm_perm.__key, want[which].key);
	}
	EQUAL(shmget(want[KEYED].key, 0, 0), id[KEYED]);
	EQUAL(shmget(want[EMPTY].key, 0, 0), id[EMPTY]);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	for (int i = 0; i < 3; i++) EQUAL(shmctl(MUST(shmget(IPC_PRIVATE, PAGE, 0600)), IPC_RMID, NULL), 0);
	for (int which = 0; which < SEGMENTS; which++) {
		unsigned mode = want[which].mode & 0777;
		id[which] = MUST(shmget(want[which].key, want[which].size, IPC_CREAT | IPC_EXCL | mode));
		if (which == EMPTY) continue;
		if (which == LOCKED) EQUAL(shmctl(id[which], SHM_LOCK, NULL), 0);
		unsigned char *memory = attach(which, 0);
		if (which == SPARSELY) pod_fill(memory + SPARSE / 2, PAGE, 7);
		else pod_fill(memory, want[which].size, (uint64_t)which);
		EQUAL(shmdt(memory), 0);
	}
	check_status();
	pod_ready();
	if (pod_break("page")) attach(KEYED, 0)[5 * PAGE] ^= 1;
	if (pod_break("attached")) attach(SPARSELY, SHM_RDONLY);
	if (pod_break("removed")) EQUAL(shmctl(id[EMPTY], IPC_RMID, NULL), 0);
	while (pod_turn()) {
		if (!*pod_damage) check_status();
	}
	check_status();
	unsigned char *memory = attach(KEYED, 0);
	CHECK_PATTERN(memory, SIZE, KEYED);
	EQUAL(shmdt(memory), 0);
	memory = attach(LOCKED, 0);
	CHECK_PATTERN(memory, 2 * PAGE, LOCKED);
	EQUAL(shmdt(memory), 0);
	memory = attach(EMPTY, 0);
	for (size_t at = 0; at < PAGE; at++) EQUAL(memory[at], 0);
	EQUAL(shmdt(memory), 0);
	memory = attach(SPARSELY, SHM_RDONLY);
	CHECK_PATTERN(memory + SPARSE / 2, PAGE, 7);
	for (size_t at = 0; at < SPARSE / 2; at += PAGE) EQUAL(memory[at], 0);
	EQUAL(shmdt(memory), 0);
	for (int which = 0; which < SEGMENTS; which++) {
		struct shmid_ds status;
		EQUAL(shmctl(id[which], IPC_RMID, NULL), 0);
		FAILS(shmctl(id[which], IPC_STAT, &status), EINVAL);
	}
	pod_pass();
}
