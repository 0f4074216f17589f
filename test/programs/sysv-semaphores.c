/*
 * System V semaphores: numbers, keys, permissions, values; what processes give back at their end (SEM_UNDO), small and
 * large, at full and at empty semaphores; calls that wait.
 *
 * Via: pod
 */
#include <sys/ipc.h>
#include <sys/sem.h>
#include "pod-test.h"

union argument {
	int value;
	struct semid_ds *status;
	unsigned short *values;
};

static const key_t key = 0x50d5e3;
static int keyed, undone, waited;
static _Atomic bool down_over, timed_over;

static int value_of(int id, int number) {
	return MUST(semctl(id, number, GETVAL));
}

static void operate(int id, int number, int change, int flags) {
	struct sembuf one = { .sem_num = (unsigned short)number, .sem_op = (short)change, .sem_flg = (short)flags };
	EQUAL(semop(id, &one, 1), 0);
}

/** What is given back: -change. Values beyond what the semaphore can be at once are reached in steps. */
static void owe(int number, int change) {
	int step = change > 0 ? 1000 : -1000;
	for (; change != 0; change -= step) {
		if (abs(change) < 1000) step = change;
		struct sembuf pair[2] = {
			{ .sem_num = (unsigned short)number, .sem_op = (short)step, .sem_flg = SEM_UNDO },
			{ .sem_num = (unsigned short)number, .sem_op = (short)-step },
		};
		int up = value_of(undone, number) + 1000 <= 32767;
		struct sembuf order[2] = { pair[(step > 0) != up], pair[(step > 0) == up] };
		EQUAL(semop(undone, order, 2), 0);
	}
}

static const unsigned short start_values[] = { 5, 0, 32767, 100, 20000 };

/* Each child: semaphore, what it owes, what the semaphore is when it has ended. */
static const struct { int number, change, after; } debts[] = {
	{ 0, -3, 8 }, { 1, -1, 1 }, { 2, 700, 32067 }, { 4, 20000, 0 }, { 4, -32767, 32767 },
};

static void *wait_down(void *argument) {
	(void)argument;
	operate(waited, 0, -2, 0);
	down_over = true;
	return NULL;
}

static void *wait_timed(void *argument) {
	(void)argument;
	struct sembuf zero = { .sem_num = 1, .sem_op = 0 };
	struct timespec limit = { .tv_sec = 100 };
	EQUAL(semtimedop(waited, &zero, 1, &limit), 0);
	timed_over = true;
	return NULL;
}

static void check(void) {
	unsigned short values[5];
	EQUAL(semctl(undone, 0, GETALL, (union argument){ .values = values }), 0);
	for (size_t i = 0; i < 5; i++) EQUAL(values[i], start_values[i]);
	EQUAL(semget(key, 0, 0), keyed);
	EQUAL(value_of(keyed, 0), 11);
	EQUAL(value_of(keyed, 299), 29);
	EQUAL(value_of(waited, 0), 1);
	EQUAL(value_of(waited, 1), 1);
	CHECKF(!down_over && !timed_over, "a call that waits came back");
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	/* Numbers are not given out in order from 0 for ever. */
	for (int i = 0; i < 3; i++) EQUAL(semctl(MUST(semget(IPC_PRIVATE, 1, 0600)), 0, IPC_RMID), 0);
	keyed = MUST(semget(key, 300, IPC_CREAT | IPC_EXCL | 0640));
	EQUAL(semctl(keyed, 0, SETVAL, (union argument){ .value = 11 }), 0);
	EQUAL(semctl(keyed, 299, SETVAL, (union argument){ .value = 29 }), 0);
	undone = MUST(semget(IPC_PRIVATE, COUNT(start_values), 0600));
	EQUAL(semctl(undone, 0, SETALL, (union argument){ .values = (unsigned short *)start_values }), 0);
	waited = MUST(semget(IPC_PRIVATE, 2, 0600));
	EQUAL(semctl(waited, 0, SETVAL, (union argument){ .value = 1 }), 0);
	EQUAL(semctl(waited, 1, SETVAL, (union argument){ .value = 1 }), 0);
	pid_t children[COUNT(debts)];
	int gates[COUNT(debts)][2], told[2];
	MUST(pipe(told));
	for (size_t i = 0; i < COUNT(debts); i++) {
		MUST(pipe(gates[i]));
		children[i] = MUST(fork());
		if (children[i] != 0) continue;
		char byte;
		owe(debts[i].number, pod_break("undo") && i == 2 ? 1 : debts[i].change);
		EQUAL(write(told[1], "x", 1), 1);
		EQUAL(read(gates[i][0], &byte, 1), 1);
		_exit(0);
	}
	char bytes[COUNT(debts)];
	for (size_t i = 0; i < COUNT(debts); i++) EQUAL(read(told[0], bytes, 1), 1);
	pthread_t threads[2];
	EQUAL(pthread_create(&threads[0], NULL, wait_down, NULL), 0);
	EQUAL(pthread_create(&threads[1], NULL, wait_timed, NULL), 0);
	pod_sleep(30);
	pod_ready();
	if (pod_break("value")) operate(undone, 3, 1, 0);
	if (pod_break("key")) semctl(keyed, 0, IPC_RMID);
	if (pod_break("mode")) {
		struct semid_ds status;
		semctl(keyed, 0, IPC_STAT, (union argument){ .status = &status });
		status.sem_perm.mode = 0600;
		semctl(keyed, 0, IPC_SET, (union argument){ .status = &status });
	}
	if (pod_break("wait")) operate(waited, 0, 1, 0);
	while (pod_turn()) check();
	check();
	struct semid_ds status;
	EQUAL(semctl(keyed, 0, IPC_STAT, (union argument){ .status = &status }), 0);
	EQUAL(status.sem_perm.mode & 0777, 0640);
	EQUAL(status.sem_perm.uid, geteuid());
	EQUAL(status.sem_nsems, 300);
	for (size_t i = 0; i < COUNT(debts); i++) {
		EQUAL(write(gates[i][1], "x", 1), 1);
		pod_reap(children[i]);
		EQUAL(value_of(undone, debts[i].number), debts[i].after);
	}
	operate(waited, 0, 1, 0);
	operate(waited, 1, -1, 0);
	EQUAL(pthread_join(threads[0], NULL), 0);
	EQUAL(pthread_join(threads[1], NULL), 0);
	EQUAL(value_of(waited, 0), 0);
	for (const int *id = (const int[]){ keyed, undone, waited, -1 }; *id >= 0; id++) EQUAL(semctl(*id, 0, IPC_RMID), 0);
	pod_pass();
}
