/*
 * A seccomp filter of an ordinary user, with no_new_privs: what only root can dump.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		/* What a dumper does in a task, and a plain program hardly ever: seen, it would be death. */
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getitimer, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = COUNT(code), .filter = (struct sock_filter *)code };
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (!pod_break("filter")) MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	pod_ready();
	do FAILS(syscall(SYS_getppid), EXDEV);
	while (pod_turn());
	pod_pass();
}
