/*
 * A tree with several sessions and process groups: a session leader with groups of its own, a session and a group
 * whose leaders are gone, a child in another's group, orphans that came to their subreaper, and depth. Every
 * process checks who it is all the time; in the end signals to groups must reach their members and nobody else.
 */
#include "pod-test.h"

static char path_of_me[64] = "main";
static _Atomic int group_signals;

static void count(int signal) {
	(void)signal;
	group_signals++;
}

struct identity {
	pid_t pid, ppid, pgid, sid, tid;
};

static struct identity look(void) {
	return (struct identity){ getpid(), getppid(), getpgid(0), getsid(0), (pid_t)syscall(SYS_gettid) };
}

static void check(const struct identity *expected) {
	struct identity now = look();
	CHECKF(memcmp(&now, expected, sizeof now) == 0, "%s is {pid %d ppid %d pgid %d sid %d}, should be {%d %d %d %d}",
	       path_of_me, now.pid, now.ppid, now.pgid, now.sid, expected->pid, expected->ppid, expected->pgid,
	       expected->sid);
}

/* The pid that a process of the tree noted under its name. */
static pid_t pid_of(const char *name) {
	pod_path_t path;
	char text[32];
	pod_await(name);
	pod_read_text(pod_path(path, name), text, sizeof text);
	return atoi(text);
}

static void note(const char *name, pid_t pid) {
	char text[32];
	snprintf(text, sizeof text, "%d", pid);
	pod_write_file(name, text);
}

enum end { STAY, LEAVE };

static pid_t children[16];
static size_t children_count;

/* Make a child that sets itself up and runs `body` (more children), then stays to check, or leaves at once. */
static pid_t make(const char *name, enum end end, void (*body)(void)) {
	pid_t pid = MUST(fork());
	if (pid != 0) {
		if (end == STAY) children[children_count++] = pid;
		return pid;
	}
	children_count = 0;
	snprintf(path_of_me, sizeof path_of_me, "%s", name);
	if (body) body();
	note(name, getpid());
	if (end == LEAVE) _exit(0);
	pod_await("settled");
	struct identity me = look();
	char sign[80];
	snprintf(sign, sizeof sign, "%s-looked", name);
	pod_mark(sign);
	if (pod_break("group") && strcmp(name, "A2") == 0) setpgid(0, getpgid(getppid()));
	if (pod_break("session") && strcmp(name, "C1a") == 0) setsid();
	while (pod_child_turn()) check(&me);
	check(&me);
	/* The main process signals two groups, then tells. */
	pod_await("signalled");
	EVENTUALLY(pod_has("signals-done"));
	snprintf(sign, sizeof sign, "%d", group_signals);
	char count_name[80];
	snprintf(count_name, sizeof count_name, "%s-count", name);
	pod_write_file(count_name, sign);
	while (children_count > 0) pod_reap(children[--children_count]);
	_exit(0);
}

static void join_group_of_a2(void) {
	EQUAL(setpgid(0, pid_of("A2")), 0);
}

static void lead_group(void) {
	EQUAL(setpgid(0, 0), 0);
}

static void lead_session(void) {
	CHECK(setsid() == getpid());
}

static void build_a(void) {
	lead_session();
	make("A1", STAY, NULL);
	make("A2", STAY, lead_group);
	make("A3", STAY, join_group_of_a2);
	/* A group whose leader is gone. */
	pid_t leader = make("A4", LEAVE, lead_group);
	pid_of("A4");
	make("A5", STAY, NULL);
	EQUAL(setpgid(children[children_count - 1], leader), 0);
	pod_reap(leader);
}

static void build_c1(void) {
	lead_session();
	make("C1a", STAY, NULL);
	make("C1b", STAY, lead_group);
}

static void build_c(void) {
	/* C1 leads a session and leaves it: its children go on in a session without a leader, as C's (a subreaper). */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t leader = make("C1", LEAVE, build_c1);
	pod_reap(leader);
	children[children_count++] = pid_of("C1a");
	children[children_count++] = pid_of("C1b");
}

static void build_d2(void) {
	lead_session();
}

static void build_d1(void) {
	make("D2", STAY, build_d2);
}

static void build_d(void) {
	make("D1", STAY, build_d1);
}

static int read_count(const char *name) {
	pod_path_t path;
	char text[32], file[64];
	snprintf(file, sizeof file, "%s-count", name);
	pod_await(file);
	pod_read_text(pod_path(path, file), text, sizeof text);
	return atoi(text);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	signal(SIGUSR1, count);
	/* A background group that reads or writes its terminal would stop. */
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGCONT, SIG_IGN);
	pod_takes_signals = true;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	make("A", STAY, build_a);
	make("B", STAY, lead_group);
	make("C", STAY, build_c);
	make("D", STAY, build_d);
	static const char *const names[] = { "A", "A1", "A2", "A3", "A5", "B", "C", "C1a", "C1b", "D", "D1", "D2" };
	for (size_t i = 0; i < COUNT(names); i++) pid_of(names[i]);
	pod_mark("settled");
	for (size_t i = 0; i < COUNT(names); i++) {
		char sign[64];
		snprintf(sign, sizeof sign, "%s-looked", names[i]);
		pod_await(sign);
	}
	struct identity me = look();
	pod_ready();
	if (pod_break("main-group")) CHECK(setpgid(0, pid_of("B")) == 0);
	while (pod_turn()) {
		/* A parent that was outside of the session is the pod's first process now. */
		if (getppid() == 1) me.ppid = 1;
		check(&me);
	}
	check(&me);
	/* From outside, too. */
	EQUAL(getpgid(pid_of("A3")), pid_of("A2"));
	EQUAL(getsid(pid_of("A3")), pid_of("A"));
	EQUAL(getpgid(pid_of("A5")), pid_of("A4"));
	EQUAL(getsid(pid_of("C1a")), pid_of("C1"));
	EQUAL(getpgid(pid_of("C1a")), pid_of("C1"));
	EQUAL(getpgid(pid_of("C1b")), pid_of("C1b"));
	EQUAL(getsid(pid_of("D2")), pid_of("D2"));
	EQUAL(getsid(pid_of("D1")), me.sid);
	EQUAL(kill(-pid_of("A2"), SIGUSR1), 0);
	EQUAL(kill(-pid_of("A4"), SIGUSR1), 0);
	EQUAL(kill(-pid_of("C1"), SIGUSR1), 0);
	if (pod_break("signal")) EQUAL(kill(pid_of("A1"), SIGUSR1), 0);
	pod_mark("signalled");
	pod_sleep(50);
	pod_mark("signals-done");
	static const char *const signalled[] = { "A2", "A3", "A5", "C1a" };
	for (size_t i = 0; i < COUNT(names); i++) {
		int expected = 0;
		for (size_t k = 0; k < COUNT(signalled); k++) expected |= strcmp(names[i], signalled[k]) == 0;
		CHECKF(read_count(names[i]) == expected, "%s got %d signals, should be %d", names[i], read_count(names[i]),
		       expected);
	}
	while (children_count > 0) pod_reap(children[--children_count]);
	FAILS(waitpid(-1, NULL, 0), ECHILD);
	pod_pass();
}
