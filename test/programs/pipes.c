/*
 * Pipes: empty, with a few bytes, full, in packet mode with its boundaries, enlarged and shrunk, full of tiny
 * pieces, both ends in one process, ends in two, one end closed (with and without bytes left), non-blocking, with
 * an owner. And one that never rests: a child streams numbers to its parent, which must see each once and in order.
 */
#include <sys/ioctl.h>
#include "pod-test.h"

enum { READ, WRITE };

static int small[2], full[2], empty[2], packets[2], large[2], tiny[2], pieces[2], no_writer[2], no_writer_empty[2],
    no_reader[2], stream[2], question[2], answer[2];

static const size_t packet_sizes[] = { 1, 700, 4096, 13, 2000, 1 };

static void nonblock(int fd) {
	EQUAL(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

static int queued(int fd) {
	int count = -1;
	EQUAL(ioctl(fd, FIONREAD, &count), 0);
	return count;
}

static void write_pattern(int fd, size_t size, uint64_t seed) {
	static unsigned char bytes[1 << 20];
	pod_fill(bytes, size, seed);
	EQUAL(write(fd, bytes, size), size);
}

static void read_pattern(int fd, size_t size, uint64_t seed) {
	static unsigned char bytes[1 << 20];
	for (size_t filled = 0; filled < size;) {
		ssize_t got = read(fd, bytes + filled, size - filled);
		CHECKF(got > 0, "%zu of %zu bytes came", filled, size);
		filled += (size_t)got;
	}
	CHECK_PATTERN(bytes, size, seed);
}

static void check(void) {
	EQUAL(queued(small[READ]), 1000);
	EQUAL(queued(full[READ]), 65536);
	EQUAL(queued(empty[READ]), 0);
	EQUAL(queued(large[READ]), 200000);
	EQUAL(queued(tiny[READ]), 4096);
	EQUAL(queued(pieces[READ]), 500);
	EQUAL(queued(no_writer[READ]), 77);
	EQUAL(fcntl(large[WRITE], F_GETPIPE_SZ), 1 << 18);
	EQUAL(fcntl(tiny[READ], F_GETPIPE_SZ), 4096);
	EQUAL(fcntl(full[READ], F_GETPIPE_SZ), 65536);
	EQUAL(fcntl(packets[READ], F_GETPIPE_SZ), 65536);
	FAILS(write(full[WRITE], "x", 1), EAGAIN);
	FAILS(read(empty[READ], (char[1]){ 0 }, 1), EAGAIN);
}

static uint64_t expected_number;

static void read_stream(void) {
	uint64_t numbers[512];
	ssize_t got = read(stream[READ], numbers, sizeof numbers);
	CHECK(got > 0 && got % 8 == 0);
	for (ssize_t i = 0; i < got / 8; i++, expected_number++) EQUAL(numbers[i], expected_number);
}

static void run_child(void) {
	close(stream[READ]);
	close(question[WRITE]);
	close(answer[READ]);
	close(no_writer[READ]);
	close(no_reader[WRITE]);
	pod_mark("child");
	uint64_t number = 0;
	while (!pod_go()) {
		uint64_t numbers[64];
		for (size_t i = 0; i < COUNT(numbers); i++) numbers[i] = number++;
		/* Blocks when the parent does not keep up: then it is a full pipe with a blocked writer. */
		EQUAL(write(stream[WRITE], numbers, sizeof numbers), sizeof numbers);
	}
	close(stream[WRITE]);
	char text[16];
	EQUAL(read(question[READ], text, sizeof text), 8);
	CHECK(memcmp(text, "question", 8) == 0);
	EQUAL(write(answer[WRITE], "answer", 6), 6);
	_exit(0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	int *const plain[] = { small, full, empty, large, tiny, pieces, no_writer, no_writer_empty, no_reader, stream,
		                   question, answer };
	for (size_t i = 0; i < COUNT(plain); i++) EQUAL(pipe(plain[i]), 0);
	EQUAL(pipe2(packets, O_DIRECT | O_CLOEXEC), 0);
	pid_t child = MUST(fork());
	if (child == 0) {
		close(no_writer_empty[WRITE]);
		close(no_writer[WRITE]);
		close(no_reader[READ]);
		run_child();
	}
	close(stream[WRITE]);
	close(question[READ]);
	close(answer[WRITE]);
	write_pattern(small[WRITE], 1000, 1);
	nonblock(full[WRITE]);
	write_pattern(full[WRITE], 65536, 2);
	nonblock(empty[READ]);
	for (size_t i = 0; i < COUNT(packet_sizes); i++) write_pattern(packets[WRITE], packet_sizes[i], 10 + i);
	EQUAL(fcntl(large[WRITE], F_SETPIPE_SZ, 1 << 18), 1 << 18);
	write_pattern(large[WRITE], 200000, 3);
	EQUAL(fcntl(tiny[WRITE], F_SETPIPE_SZ, 4096), 4096);
	write_pattern(tiny[WRITE], 4096, 4);
	for (int i = 0; i < 500; i++) EQUAL(write(pieces[WRITE], &i, 1), 1);
	write_pattern(no_writer[WRITE], 77, 5);
	close(no_writer[WRITE]);
	close(no_writer_empty[WRITE]);
	write_pattern(no_reader[WRITE], 55, 6);
	close(no_reader[READ]);
	/* The child must have let go of its copies. */
	pod_await("child");
	int duplicate = MUST(dup(small[READ]));
	struct f_owner_ex owner = { .type = F_OWNER_PID, .pid = getpid() };
	EQUAL(fcntl(small[READ], F_SETOWN_EX, &owner), 0);
	EQUAL(fcntl(small[READ], F_SETSIG, 0), 0);
	pod_ready();

	char byte;
	if (pod_break("lost-byte")) EQUAL(read(small[READ], &byte, 1), 1);
	if (pod_break("content")) {
		static char bytes[65536];
		EQUAL(read(full[READ], bytes, 65536), 65536);
		bytes[40000] ^= 1;
		EQUAL(write(full[WRITE], bytes, 65536), 65536);
	}
	if (pod_break("capacity")) fcntl(large[WRITE], F_SETPIPE_SZ, 1 << 19);
	if (pod_break("boundaries")) {
		char bytes[8192];
		EQUAL(read(packets[READ], bytes, 1), 1);
		ssize_t got = read(packets[READ], bytes + 1, 8000);
		EQUAL(write(packets[WRITE], bytes, (size_t)got + 1), got + 1);
	}
	if (pod_break("packet-mode")) fcntl(packets[WRITE], F_SETFL, 0);
	if (pod_break("nonblock")) {
		/* Makes a check block for ever, so take the flag of an end that is not read. */
		fcntl(full[WRITE], F_SETFL, O_NONBLOCK | O_DIRECT);
	}
	if (pod_break("cloexec")) fcntl(packets[READ], F_SETFD, 0);
	if (pod_break("stream")) read_stream(), expected_number++;
	if (pod_break("reader-is-back")) {
		int other[2];
		EQUAL(pipe(other), 0);
		dup2(other[WRITE], no_reader[WRITE]);
	}
	if (pod_break("dup")) {
		int other[2];
		EQUAL(pipe(other), 0);
		write_pattern(other[WRITE], 1000, 1);
		dup2(other[READ], duplicate);
	}
	while (pod_turn()) {
		check();
		read_stream();
	}
	check();
	EQUAL(fcntl(packets[READ], F_GETFD), FD_CLOEXEC);
	EQUAL(fcntl(full[WRITE], F_GETFL), O_WRONLY | O_NONBLOCK);
	EQUAL(fcntl(full[READ], F_GETFL), O_RDONLY);
	EQUAL(fcntl(packets[WRITE], F_GETFL), O_WRONLY | O_DIRECT);
	EQUAL(fcntl(small[READ], F_GETOWN_EX, &owner), 0);
	EQUAL(owner.pid, getpid());

	read_pattern(full[READ], 65536, 2);
	EQUAL(write(full[WRITE], "x", 1), 1);
	read_pattern(large[READ], 200000, 3);
	read_pattern(tiny[READ], 4096, 4);
	for (int i = 0; i < 500; i++) {
		char piece;
		EQUAL(read(pieces[READ], &piece, 1), 1);
		EQUAL((unsigned char)piece, i & 255);
	}
	for (size_t i = 0; i < COUNT(packet_sizes); i++) {
		unsigned char bytes[8192];
		EQUAL(read(packets[READ], bytes, sizeof bytes), packet_sizes[i]);
		CHECK_PATTERN(bytes, packet_sizes[i], 10 + i);
	}
	EQUAL(write(packets[WRITE], "ab", 2), 2);
	EQUAL(write(packets[WRITE], "cd", 2), 2);
	char two[8];
	EQUAL(read(packets[READ], two, 8), 2);
	/* What is left, then the end; an end at once; nobody there. */
	read_pattern(no_writer[READ], 77, 5);
	EQUAL(read(no_writer[READ], &byte, 1), 0);
	EQUAL(read(no_writer_empty[READ], &byte, 1), 0);
	FAILS(write(no_reader[WRITE], "x", 1), EPIPE);
	/* One pipe under two numbers. */
	read_pattern(duplicate, 496, 1);
	EQUAL(queued(small[READ]), 504);
	read_pattern(small[READ], 504, 1 + 496);
	/* The child: to the end of the stream, then a question across. */
	for (;;) {
		uint64_t numbers[512];
		ssize_t got = read(stream[READ], numbers, sizeof numbers);
		if (got == 0) break;
		CHECK(got > 0 && got % 8 == 0);
		for (ssize_t i = 0; i < got / 8; i++, expected_number++) EQUAL(numbers[i], expected_number);
	}
	CHECK(expected_number > 0);
	EQUAL(write(question[WRITE], "question", 8), 8);
	char text[16];
	EQUAL(read(answer[READ], text, sizeof text), 6);
	CHECK(memcmp(text, "answer", 6) == 0);
	EQUAL(read(answer[READ], text, sizeof text), 0);
	pod_reap(child);
	pod_pass();
}
