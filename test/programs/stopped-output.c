/*
 * Pseudo-terminals whose output is stopped, one by its stop character (ctrl-s), one by tcflow(3): who writes waits,
 * and each goes on by its own means only. Beside them one whose output flows.
 * Build: -lutil
 */
#include <poll.h>
#include <pty.h>
#include <termios.h>
#include "pod-test.h"

static int typed_master, typed, called_master, called, open_master, flowing;
static _Atomic bool written;

static void make(int *master, int *slave) {
	struct termios mode;
	MUST(openpty(master, slave, NULL, NULL, NULL));
	MUST(tcgetattr(*slave, &mode));
	mode.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
	mode.c_oflag &= ~(tcflag_t)OPOST;
	mode.c_iflag |= IXON;
	/* Not the usual ones. */
	mode.c_cc[VSTOP] = 4;
	mode.c_cc[VSTART] = 5;
	MUST(tcsetattr(*slave, TCSANOW, &mode));
}

static bool can_write(int slave) {
	struct pollfd one = { .fd = slave, .events = POLLOUT };
	MUST(poll(&one, 1, 0));
	return (one.revents & POLLOUT) != 0;
}

static void *block_writing(void *argument) {
	(void)argument;
	EQUAL(write(typed, "late", 4), 4);
	written = true;
	return NULL;
}

static void check(void) {
	CHECKF(!can_write(typed), "what ctrl-s has stopped goes on");
	CHECKF(!can_write(called), "what tcflow has stopped goes on");
	CHECKF(can_write(flowing), "what nobody has stopped does not go on");
	CHECKF(!written, "a blocked write came back");
}

static void comes(int master, const char *text) {
	char bytes[16];
	size_t length = strlen(text);
	EQUAL(read(master, bytes, sizeof bytes), length);
	EQUAL(memcmp(bytes, text, length), 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	make(&typed_master, &typed);
	make(&called_master, &called);
	make(&open_master, &flowing);
	EQUAL(write(typed_master, "\4", 1), 1);
	EVENTUALLY(!can_write(typed));
	MUST(tcflow(called, TCOOFF));
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, block_writing, NULL), 0);
	pod_sleep(30);
	pod_ready();

	if (pod_break("typed")) EQUAL(write(typed_master, "\5", 1), 1);
	if (pod_break("called")) MUST(tcflow(called, TCOON));
	if (pod_break("flowing")) MUST(tcflow(flowing, TCOOFF));
	/* Which of the two it is. */
	if (pod_break("kind")) {
		MUST(tcflow(called, TCOON));
		EQUAL(write(called_master, "\4", 1), 1);
		EVENTUALLY(!can_write(called));
	}
	while (pod_turn()) check();
	check();
	MUST(tcflow(typed, TCOON));
	EQUAL(write(called_master, "\5", 1), 1);
	/* What was typed before is heard before. */
	EQUAL(write(called_master, "x", 1), 1);
	char byte;
	EQUAL(read(called, &byte, 1), 1);
	check();
	EQUAL(write(typed_master, "\5", 1), 1);
	EQUAL(pthread_join(thread, NULL), 0);
	comes(typed_master, "late");
	MUST(tcflow(called, TCOON));
	EVENTUALLY(can_write(called));
	EQUAL(write(called, "again", 5), 5);
	comes(called_master, "again");
	pod_pass();
}
