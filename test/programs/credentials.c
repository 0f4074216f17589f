/*
 * Credentials: real, effective, saved and filesystem ids, groups, every capability set, securebits, no_new_privs;
 * different in each process and, by raw system calls, in a thread. What they allow and forbid is tried.
 * As: root
 */
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include "pod-test.h"

static const char *const fields[] = { "Uid",    "Gid",    "Groups", "CapInh",     "CapPrm",
	                                  "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp" };

struct view {
	char text[COUNT(fields)][256];
	int securebits, dumpable, keep;
};

static void look(struct view *view) {
	for (size_t i = 0; i < COUNT(fields); i++)
		pod_field("/proc/thread-self/status", fields[i], view->text[i], sizeof view->text[i]);
	view->securebits = prctl(PR_GET_SECUREBITS);
	view->dumpable = prctl(PR_GET_DUMPABLE);
	view->keep = prctl(PR_GET_KEEPCAPS);
}

static void check(const struct view *before) {
	struct view now;
	look(&now);
	for (size_t i = 0; i < COUNT(fields); i++)
		CHECKF(strcmp(now.text[i], before->text[i]) == 0, "%s is '%s', should be '%s'", fields[i], now.text[i],
		       before->text[i]);
	EQUAL(now.securebits, before->securebits);
	EQUAL(now.keep, before->keep);
	EQUAL(now.dumpable, before->dumpable);
}

static void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(effective >> (32 * i));
		data[i].permitted = (uint32_t)(permitted >> (32 * i));
		data[i].inheritable = (uint32_t)(inheritable >> (32 * i));
	}
	EQUAL(syscall(SYS_capset, &header, data), 0);
}

#define CAP(n) (1UL << (n))

static pod_path_t private_of_4, group_5_file;

static void turn(void) {
	struct view view;
	look(&view);
	while (pod_child_turn()) check(&view);
	check(&view);
}

static void be_other_user(void) {
	gid_t groups[] = { 5, 6, 77777, 1, 100 };
	EQUAL(setgroups(COUNT(groups), groups), 0);
	EQUAL(setresgid(11, 12, 13), 0);
	EQUAL(setresuid(4, 5, 6), 0);
	pod_mark("other-user");
	if (pod_break("saved-uid")) EQUAL(setresuid((uid_t)-1, (uid_t)-1, 4), 0);
	struct view expected;
	look(&expected);
	if (pod_break("saved-uid")) strcpy(expected.text[0], "4\t5\t6\t5");
	while (pod_child_turn()) check(&expected);
	check(&expected);
	/* Effective uid 5 may not, group 5 may; saved uid 6 and real uid 4 can be taken. */
	FAILS(open(private_of_4, O_RDONLY), EACCES);
	EQUAL(close(MUST(open(group_5_file, O_RDONLY))), 0);
	FAILS(setresuid(7, 7, 7), EPERM);
	EQUAL(setresuid((uid_t)-1, 4, (uid_t)-1), 0);
	EQUAL(close(MUST(open(private_of_4, O_RDONLY))), 0);
	EQUAL(setresuid((uid_t)-1, 6, (uid_t)-1), 0);
	FAILS(setresuid((uid_t)-1, 5, (uid_t)-1), EPERM);
	_exit(0);
}

static void be_capable(void) {
	/* An ordinary user that kept a few capabilities, some inheritable and ambient; some are gone for ever. */
	const uint64_t kept = CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_CHOWN) | CAP(CAP_SYS_NICE);
	for (int capability = 20; capability <= 30; capability++)
		if (capability != CAP_SYS_NICE) EQUAL(prctl(PR_CAPBSET_DROP, capability), 0);
	EQUAL(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS | SECBIT_NOROOT), 0);
	EQUAL(setgroups(0, NULL), 0);
	EQUAL(setresgid(1000, 1000, 1000), 0);
	EQUAL(setresuid(1000, 1000, 1000), 0);
	set_capabilities(CAP(CAP_CHOWN), kept, CAP(CAP_CHOWN) | CAP(CAP_SYS_NICE));
	EQUAL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_NICE, 0, 0), 0);
	pod_mark("capable");
	turn();
	CHECK(prctl(PR_CAPBSET_READ, 25) == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_NICE) == 1);
	pod_path_t path;
	int fd = MUST(open(pod_path(path, "owned"), O_CREAT | O_RDWR, 0666));
	EQUAL(fchown(fd, 1234, 1234), 0);
	/* Permitted, but not effective. */
	FAILS(nice(-1), EPERM);
	set_capabilities(CAP(CAP_SYS_NICE), kept, CAP(CAP_CHOWN) | CAP(CAP_SYS_NICE));
	errno = 0;
	CHECK(nice(-1) != -1 || errno == 0);
	FAILS(fchown(fd, 1, 1), EPERM);
	_exit(0);
}

static void be_locked_down(void) {
	EQUAL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	setfsuid(4);
	setfsgid(5);
	set_capabilities(0, CAP(CAP_SETUID), 0);
	pod_mark("locked-down");
	struct view view;
	look(&view);
	CHECK(strcmp(view.text[8], "1") == 0);
	CHECK(strcmp(view.text[0], "0\t0\t0\t4") == 0);
	if (pod_break("fsuid")) setfsuid(0);
	while (pod_child_turn()) check(&view);
	check(&view);
	EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	EQUAL(close(MUST(open(private_of_4, O_RDONLY))), 0);
	_exit(0);
}

static _Atomic bool over, thread_ready;

/* The system call of one thread, unlike glibc's function, leaves the others alone. */
static void *be_apart(void *argument) {
	(void)argument;
	gid_t groups[] = { 9, 8 };
	EQUAL(syscall(SYS_setgroups, 2, groups), 0);
	EQUAL(syscall(SYS_setresuid, 21, 22, 0), 0);
	/* Which the change has reset, for all threads. */
	EQUAL(prctl(PR_SET_DUMPABLE, 1), 0);
	struct view view;
	look(&view);
	CHECK(strcmp(view.text[0], "21\t22\t0\t22") == 0);
	thread_ready = true;
	if (pod_break("thread")) EQUAL(syscall(SYS_setresuid, -1, 0, 0), 0);
	while (!over) {
		check(&view);
		pod_sleep(10);
	}
	check(&view);
	EQUAL(syscall(SYS_setresuid, 0, 0, 0), 0);
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	close(MUST(open(pod_path(private_of_4, "private-of-4"), O_CREAT | O_RDWR, 0600)));
	EQUAL(chown(private_of_4, 4, 4), 0);
	close(MUST(open(pod_path(group_5_file, "group-5-file"), O_CREAT | O_RDWR, 0040)));
	EQUAL(chown(group_5_file, 0, 5), 0);
	EQUAL(chmod(group_5_file, 0040), 0);
	void (*const bodies[])(void) = { be_other_user, be_capable, be_locked_down };
	pid_t children[COUNT(bodies)];
	for (size_t i = 0; i < COUNT(bodies); i++) {
		children[i] = MUST(fork());
		if (children[i] == 0) bodies[i]();
	}
	pod_await("other-user");
	pod_await("capable");
	pod_await("locked-down");
	pthread_t thread;
	EQUAL(pthread_create(&thread, NULL, be_apart, NULL), 0);
	EVENTUALLY(thread_ready);
	/* A bounding set of the main task's own. */
	EQUAL(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT), 0);
	struct view view;
	look(&view);
	pod_ready();
	if (pod_break("groups")) {
		gid_t groups[] = { 3 };
		EQUAL(syscall(SYS_setgroups, 1, groups), 0);
	}
	if (pod_break("bounding")) EQUAL(prctl(PR_CAPBSET_DROP, 3), 0);
	if (pod_break("no-new-privs")) EQUAL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (pod_break("securebits")) EQUAL(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT), 0);
	if (pod_break("dumpable")) EQUAL(prctl(PR_SET_DUMPABLE, !view.dumpable), 0);
	while (pod_turn()) check(&view);
	check(&view);
	over = true;
	EQUAL(pthread_join(thread, NULL), 0);
	for (size_t i = 0; i < COUNT(bodies); i++) pod_reap(children[i]);
	pod_pass();
}
