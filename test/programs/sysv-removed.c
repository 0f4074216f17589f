/*
 * System V shared memory as most programs use it: removed as soon as it is attached, shared with a child. In a
 * session without a pod it is found among all that the computer has.
 */
#include <sys/ipc.h>
#include <sys/shm.h>
#include "pod-test.h"

#define SIZE (5 * PAGE)

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	int id = MUST(shmget(IPC_PRIVATE, SIZE, 0600));
	unsigned char *memory = shmat(id, NULL, 0);
	CHECK(memory != (void *)-1);
	EQUAL(shmctl(id, IPC_RMID, NULL), 0);
	pod_fill(memory, SIZE, 1);
	pid_t child = MUST(fork());
	if (child == 0) {
		while (pod_child_turn()) CHECK_PATTERN(memory, SIZE, 1);
		pod_await("checked");
		memory[0] ^= 0xff;
		_exit(0);
	}
	pod_ready();

	if (pod_break("contents")) memory[2 * PAGE] ^= 1;
	if (pod_break("unshared")) {
		CHECK(mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
		pod_fill(memory, SIZE, 1);
	}

	while (pod_turn()) CHECK_PATTERN(memory, SIZE, 1);
	CHECK_PATTERN(memory, SIZE, 1);
	pod_mark("checked");
	unsigned char first[8];
	pod_fill(first, 8, 1);
	pod_reap(child);
	EQUAL(memory[0], first[0] ^ 0xff);
	struct shmid_ds status;
	EQUAL(shmctl(id, IPC_STAT, &status), 0);
	EQUAL(status.shm_nattch, 1);
	EQUAL(status.shm_segsz, SIZE);
	EQUAL(shmdt(memory), 0);
	FAILS(shmctl(id, IPC_STAT, &status), EINVAL);
	pod_pass();
}
