/*
 * Pseudo-terminals with both ends inside. A shell-like child has one as its controlling terminal: name, settings,
 * size, session and foreground group stay, lines go both ways, ^C reaches the foreground group and only that, and
 * /dev/tty opened by another process of the session is the same terminal. Beside it one in packet mode, one whose
 * slave was closed (EIO), one that is still locked.
 * Build: -lutil
 */
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <utmp.h>
#include "pod-test.h"

static int master, packet_master, packet_slave, closed_master, locked_master;
static char name[64], packet_name[64];
static pid_t shell;
static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal) {
	(void)signal;
	interrupts++;
}

/** Lines answered by the foreground group: the number, by ten. Ends with the terminal's hangup. */
static void answer_lines(int in, int out) {
	char line[64];
	for (;;) {
		ssize_t got = read(in, line, sizeof line - 1);
		if (got < 0 && errno == EINTR) continue;
		if (got <= 0) _exit(0);
		line[got] = 0;
		CHECKF(line[got - 1] == '\n', "half a line: %s", line);
		if (line[0] == 'i')
			dprintf(out, "%d\n", (int)interrupts);
		else if (line[0] == 't') {
			int pair = open("/dev/tty", O_RDWR);
			CHECK(pair >= 0);
			unsigned one, two;
			EQUAL(ioctl(pair, TIOCGDEV, &one), 0);
			EQUAL(ioctl(in, TIOCGDEV, &two), 0);
			EQUAL(one, two);
			close(pair);
			dprintf(out, "%d\n", tcgetpgrp(in) == getpgrp());
		} else
			dprintf(out, "%d\n", atoi(line) * 10);
	}
}

/** Session leader in the background; its child is the foreground group and reads by way of /dev/tty. */
static void run_shell(void) {
	signal(SIGINT, on_interrupt);
	/* The end of the terminal is told by read(2). */
	signal(SIGHUP, SIG_IGN);
	int to_parent[2];
	MUST(pipe(to_parent));
	pid_t job = fork();
	if (job == 0) {
		setpgid(0, 0);
		struct sigaction action = { .sa_handler = on_interrupt };
		sigaction(SIGINT, &action, NULL);
		signal(SIGTTOU, SIG_IGN);
		tcsetpgrp(0, getpgrp());
		int tty = MUST(open("/dev/tty", O_RDWR));
		MUST(write(to_parent[1], "", 1));
		answer_lines(tty, 1);
	}
	char byte;
	EQUAL(read(to_parent[0], &byte, 1), 1);
	int status;
	while (waitpid(job, &status, WNOHANG) == 0) {
		EQUAL(interrupts, 0);
		const char *now = ttyname(0);
		/* Hung up at the end, the name a moment before: the job ends too. */
		if (!now && (errno == EIO || (errno == ENODEV && pod_go()))) continue;
		CHECK(now && strcmp(now, name) == 0);
		pid_t front = tcgetpgrp(0), session = tcgetsid(0);
		CHECKF(front == job || (front < 0 && errno == EIO), "foreground group %d, not %d", front, job);
		CHECKF(session == getpid() || (session < 0 && (errno == EIO || errno == ENOTTY)), "session %d", session);
		pod_sleep(5);
	}
	_exit(0);
}

static long ask(const char *question) {
	char line[64];
	size_t filled = 0;
	EQUAL(write(master, question, strlen(question)), strlen(question));
	while (filled == 0 || line[filled - 1] != '\n') {
		ssize_t got = MUST(read(master, line + filled, sizeof line - 1 - filled));
		filled += (size_t)got;
	}
	line[filled] = 0;
	return atol(line);
}

static void check(void) {
	static long turn;
	struct winsize size;
	struct termios mode;
	char question[32];
	EQUAL(ioctl(master, TIOCGWINSZ, &size), 0);
	EQUAL(size.ws_row, 31);
	EQUAL(size.ws_col, 97);
	EQUAL(tcgetattr(master, &mode), 0);
	EQUAL(mode.c_lflag & (ECHO | ICANON | ISIG), ICANON | ISIG);
	EQUAL(mode.c_oflag & OPOST, 0);
	EQUAL(mode.c_cc[VINTR], 7);
	CHECK(strcmp(ptsname(master), name) == 0);
	snprintf(question, sizeof question, "%ld\n", ++turn);
	EQUAL(ask(question), turn * 10);
	EQUAL(ask("t\n"), 1);

	/* Packet mode: a zero byte before the data. */
	char bytes[16];
	EQUAL(fcntl(packet_master, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	EQUAL(fcntl(packet_slave, F_GETFD), FD_CLOEXEC);
	CHECK(strcmp(ttyname(packet_slave), packet_name) == 0);
	EQUAL(write(packet_slave, "x", 1), 1);
	ssize_t got;
	EVENTUALLY((got = read(packet_master, bytes, sizeof bytes)) > 0);
	CHECKF(got == 2 && memcmp(bytes, "\0x", 2) == 0, "packet of %zd bytes, first %d", got, bytes[0]);

	FAILS(read(closed_master, bytes, 1), EIO);
	int locked;
	EQUAL(ioctl(locked_master, TIOCGPTLCK, &locked), 0);
	EQUAL(locked, 1);
	FAILS(open(ptsname(locked_master), O_RDWR | O_NOCTTY), EIO);
	FAILS(read(locked_master, bytes, 1), EAGAIN);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct winsize size = { .ws_row = 31, .ws_col = 97 };
	struct termios mode = { 0 };
	int slave;
	MUST(openpty(&master, &slave, name, NULL, &size));
	tcgetattr(slave, &mode);
	mode.c_lflag &= ~ECHO;
	mode.c_oflag &= ~OPOST;
	mode.c_cc[VINTR] = 7;
	EQUAL(tcsetattr(slave, TCSANOW, &mode), 0);
	shell = MUST(fork());
	if (shell == 0) {
		close(master);
		login_tty(slave);
		run_shell();
	}
	close(slave);
	/* The number between is free again: the next pair does not follow the first. */
	int gap = MUST(posix_openpt(O_RDWR | O_NOCTTY));
	MUST(openpty(&packet_master, &packet_slave, packet_name, NULL, &size));
	fcntl(packet_slave, F_SETFD, FD_CLOEXEC);
	fcntl(packet_master, F_SETFL, O_NONBLOCK);
	int one = 1;
	EQUAL(ioctl(packet_master, TIOCPKT, &one), 0);
	MUST(openpty(&closed_master, &slave, NULL, NULL, NULL));
	close(slave);
	locked_master = MUST(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK));
	close(gap);
	EQUAL(ask("t\n"), 1);

	pod_ready();
	if (pod_break("size")) ioctl(master, TIOCSWINSZ, &(struct winsize){ .ws_row = 30, .ws_col = 97 });
	if (pod_break("packet")) ioctl(packet_master, TIOCPKT, &(int){ 0 });
	if (pod_break("lock")) unlockpt(locked_master);
	if (pod_break("termios")) tcsetattr(master, TCSANOW, &(struct termios){ 0 });
	while (pod_turn()) check();
	check();
	/* The interrupt character reaches the foreground group, its leader not. */
	EQUAL(write(master, "\7", 1), 1);
	EVENTUALLY(ask("i\n") == 1);
	close(master);
	pod_reap(shell);
	pod_pass();
}
