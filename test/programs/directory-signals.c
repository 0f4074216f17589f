/*
 * Signals when a directory changes, F_NOTIFY of fcntl(2), the forerunner of inotify. Nobody tells which changes were
 * asked for. Refused.
 */
#include "pod-test.h"

static volatile sig_atomic_t changes;

static void on_change(int signal) {
	(void)signal;
	changes++;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pod_takes_signals = true;
	pod_path_t folder, file;
	MUST(mkdir(pod_path(folder, "folder"), 0777));
	signal(SIGIO, on_change);
	int watched = MUST(open(folder, O_RDONLY | O_DIRECTORY));
	MUST(fcntl(watched, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
	pod_ready();
	if (pod_break("unasked")) MUST(fcntl(watched, F_NOTIFY, 0));
	while (pod_turn()) EQUAL(changes, 0);
	EQUAL(close(MUST(open(pod_path(file, "folder/new"), O_CREAT | O_WRONLY, 0666))), 0);
	pod_sleep(10);
	EQUAL(changes, 1);
	pod_pass();
}
