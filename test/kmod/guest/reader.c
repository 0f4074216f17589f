// SPDX-License-Identifier: Apache-2.0
/*
 * A small reader of /dev/pod.
 *
 *   reader loop PID PHASE-FILE    dump it again and again, and say in a byte of that file what is going on
 *   reader speed MIB              time to read memory by /dev/pod and by process_vm_readv, as lines of JSON
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "pod_ioctl.h"

#define PIECE (1UL << 20)
#define TURNS 3

enum { STOPPING = 1, READING, ENDING, LETTING_GO };

static char buffer[PIECE];
static volatile char nowhere;
static volatile char *phase = &nowhere;

static void die(const char *what) {
	fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void) {
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

struct times {
	double stop, read;
	uint64_t bytes;
};

static struct times dump(int pid) {
	struct pod_dump request = { .size = sizeof(request), .kind = POD_TREE, .pid = pid };
	struct times took = { 0 };
	int fd = open("/dev/pod", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("/dev/pod");
	strcpy(request.name, "reader");
	strcpy(request.producer, "reader");
	memset(request.image_id, '0', POD_IMAGE_ID);
	double start = now();
	*phase = STOPPING;
	/* It may be just changing: a refused file is of no more use. */
	while (ioctl(fd, POD_IOC_DUMP, &request) != 0) {
		if (errno != EAGAIN)
			die("POD_IOC_DUMP");
		close(fd);
		fd = open("/dev/pod", O_RDONLY | O_CLOEXEC);
	}
	took.stop = now() - start;
	start = now();
	*phase = READING;
	for (;;) {
		ssize_t length = read(fd, buffer, sizeof(buffer));
		if (length < 0)
			die("read");
		if (length == 0)
			break;
		took.bytes += length;
	}
	took.read = now() - start;
	*phase = ENDING;
	if (ioctl(fd, POD_IOC_CHECK) != 0)
		die("POD_IOC_CHECK");
	*phase = LETTING_GO;
	close(fd);
	return took;
}

static double read_directly(int pid, char *memory, size_t size) {
	double start = now();
	for (size_t at = 0; at < size; at += PIECE) {
		struct iovec here = { buffer, PIECE }, there = { memory + at, PIECE };
		if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)PIECE)
			die("process_vm_readv");
	}
	return now() - start;
}

/** No page of it is zero, nor like another. */
static void fill(char *memory, size_t size) {
	uint64_t state = 88172645463325252ULL;
	for (size_t at = 0; at < size; at += 8) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		memcpy(memory + at, &state, 8);
	}
}

/** Who holds the memory: nothing else, and no descriptor that leads out of it. */
static void hold(char *memory, size_t size, int sharing, const char *ready) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	/* Its own, not what it has in common with its parent. */
	if (mmap(memory, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != memory)
		_exit(1);
	fill(memory, size);
	for (int fd = 0; fd < 64; fd++)
		close(fd);
	for (int fd = 0; fd < 3; fd++)
		open("/dev/null", O_RDWR);
	close(open(ready, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	for (;;)
		pause();
}

static void measure(const char *name, int sharing, size_t size) {
	const char *ready = "/tmp/reader-ready";
	struct times best = { 1e9, 1e9, 0 };
	double direct = 1e9;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	unlink(ready);
	int pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		hold(memory, size, sharing, ready);
	while (access(ready, F_OK) != 0)
		usleep(1000);
	usleep(100000);
	for (int turn = 0; turn < TURNS; turn++) {
		double took = read_directly(pid, memory, size);
		direct = took < direct ? took : direct;
		struct times dumped = dump(pid);
		best.stop = dumped.stop < best.stop ? dumped.stop : best.stop;
		best.read = dumped.read < best.read ? dumped.read : best.read;
		best.bytes = dumped.bytes;
	}
	kill(pid, SIGKILL);
	/* What was not sent was not read either. */
	if (best.bytes < size) {
		fprintf(stderr, "reader: %s: the stream has %llu bytes of %zu\n", name,
			(unsigned long long)best.bytes, size);
		exit(1);
	}
	printf("{\"event\":\"speed\",\"memory\":\"%s\",\"bytes\":%zu,\"direct\":%.6f,\"read\":%.6f,\"stop\":%.6f}\n", name,
	       size, direct, best.read, best.stop);
	fflush(stdout);
	munmap(memory, size);
}

int main(int count, char **words) {
	if (count == 3 && strcmp(words[1], "speed") == 0) {
		size_t size = strtoul(words[2], NULL, 10) << 20;
		memset(buffer, 1, sizeof(buffer));
		measure("private", MAP_PRIVATE, size);
		measure("shared", MAP_SHARED, size);
		return 0;
	}
	if (count == 4 && strcmp(words[1], "loop") == 0) {
		int fd = open(words[3], O_RDWR | O_CLOEXEC);
		phase = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (phase == MAP_FAILED)
			die(words[3]);
		for (;;)
			dump(atoi(words[2]));
	}
	return 2;
}
