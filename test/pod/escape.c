/*
 * Tries to reach out of a confined pod, in every way we know, and says of each whether it was held. Built and run by
 * escape.test.ts, which has made on the host what it must not reach:
 *
 *   escape MARKER ABSTRACT KEY PID    a file's name, an abstract socket's, a System V key, a process
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, int reached) {
	printf("%s %s\n", reached ? "ESCAPED" : "held", name);
	fflush(stdout);
}

/* Reached when the call succeeds; `expected`: the errno that says who refused it, 0 for any. */
static void refuses(const char *name, long result, int expected) {
	if (result < 0 && expected && errno != expected) {
		printf("held %s, but by: %s\n", name, strerror(errno));
		return;
	}
	say(name, result >= 0);
}

static int opens(const char *path, int flags) {
	int fd = open(path, flags);
	if (fd >= 0) close(fd);
	return fd >= 0;
}

/* The marker's folder by its host path, below `from`. */
static int sees(const char *from, const char *marker) {
	char path[4096];
	snprintf(path, sizeof path, "%s%s", from, marker);
	return access(path, F_OK) == 0;
}

static void files(const char *marker) {
	char up[4096] = "";
	for (int i = 0; i < 40; i++) strcat(up, "/..");
	say("path from the root", sees("", marker));
	say("path by ..", sees(up, marker));
	say("/proc/1/root", sees("/proc/1/root", marker));
	say("/proc/1/cwd", sees("/proc/1/cwd/../../..", marker));
	/* pid 1 keeps the runtime directory on the host open. */
	int reached = 0;
	for (int fd = 0; fd < 64; fd++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/1/fd/%d/..", fd);
		reached |= access(path, F_OK) == 0 || sees(path, marker);
	}
	say("descriptors of pid 1", reached);

	/* The classic: a root below, a directory above it still open. */
	pid_t child = fork();
	if (child == 0) {
		mkdir("/tmp", 0777), mkdir("/tmp/below", 0777);
		int top = open("/", O_RDONLY | O_DIRECTORY);
		if (chroot("/tmp/below") < 0) _exit(0);
		if (fchdir(top) < 0) _exit(0);
		for (int i = 0; i < 40; i++)
			if (chdir("..") < 0) break;
		if (chroot(".") < 0) _exit(0);
		_exit(sees("", marker));
	}
	int status;
	waitpid(child, &status, 0);
	say("chroot and fchdir", status != 0);

	struct {
		struct file_handle handle;
		unsigned char bytes[16];
	} root = { .handle = { .handle_bytes = 8, .handle_type = 1 } };
	root.handle.f_handle[0] = 2;
	int any = open("/", O_RDONLY);
	refuses("open_by_handle_at", syscall(SYS_open_by_handle_at, any, &root, O_RDONLY), EPERM);
}

static void devices(void) {
	mkdir("/tmp", 0777);
	unlink("/tmp/memory");
	refuses("mknod", mknod("/tmp/memory", S_IFCHR | 0600, makedev(1, 1)), EPERM);
	refuses("mknod of a drive", mknod("/dev/drive", S_IFBLK | 0600, makedev(8, 0)), 0);
	/* Made by the test, in the root, before the pod: nodev. */
	say("a device file in the root", opens("/device", O_RDONLY));
	say("/dev/mem", opens("/dev/mem", O_RDONLY));
	/* Of the host's devices only the harmless are there. */
	const char *const known[] = { ".", "..", "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr" };
	DIR *folder = opendir("/dev");
	int others = 0;
	for (struct dirent *entry; (entry = readdir(folder));) {
		int found = 0;
		for (size_t i = 0; i < sizeof known / sizeof *known; i++) found |= strcmp(known[i], entry->d_name) == 0;
		others += !found;
	}
	say("other devices", others > 0);
	refuses("iopl", syscall(SYS_iopl, 3), EPERM);
	refuses("ioperm", syscall(SYS_ioperm, 0x70, 1, 1), EPERM);
}

static void mounts(void) {
	mkdir("/tmp", 0777);
	refuses("mount", mount("none", "/tmp", "tmpfs", 0, 0), EPERM);
	refuses("mount of a bind", mount("/", "/tmp", 0, MS_BIND, 0), EPERM);
	refuses("mount of proc", mount("proc", "/tmp", "proc", 0, 0), EPERM);
	refuses("remount", mount(0, "/proc", 0, MS_REMOUNT | MS_BIND, 0), EPERM);
	refuses("umount", umount2("/proc", MNT_DETACH), EPERM);
	refuses("pivot_root", syscall(SYS_pivot_root, "/", "/tmp"), EPERM);
	refuses("fsopen", syscall(430, "tmpfs", 0), EPERM);
	refuses("open_tree", syscall(428, AT_FDCWD, "/", 1), EPERM);
}

static void processes(pid_t host) {
	char path[64];
	say("/proc of a host process", (snprintf(path, sizeof path, "/proc/%d", host), access(path, F_OK) == 0));
	refuses("kill", kill(host, 0), ESRCH);
	refuses("pidfd_open", syscall(SYS_pidfd_open, host, 0), 0);
	refuses("ptrace", ptrace(PTRACE_ATTACH, host, 0, 0), ESRCH);
	refuses("ptrace of pid 1", ptrace(PTRACE_SEIZE, 1, 0, 0), EPERM);
	say("memory of pid 1", opens("/proc/1/mem", O_RDWR));
	say("environment of pid 1", opens("/proc/1/environ", O_RDONLY));
	const char *const spaces[] = { "mnt", "pid", "net", "ipc", "uts", "user", "cgroup" };
	for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
		snprintf(path, sizeof path, "/proc/1/ns/%s", spaces[i]);
		int fd = open(path, O_RDONLY);
		char name[64];
		snprintf(name, sizeof name, "setns %s", spaces[i]);
		say(name, fd >= 0 && setns(fd, 0) == 0);
	}
	refuses("unshare", unshare(CLONE_NEWNS), EPERM);
}

static void ipc(const char *abstract, key_t key) {
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	strcpy(name.sun_path + 1, abstract);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	/* Node fills the name with zeros. */
	int result = connect(fd, (void *)&name, sizeof name);
	say("abstract socket", result == 0);
	refuses("shm by key", shmget(key, 0, 0), ENOENT);
	refuses("semaphores by key", semget(key, 0, 0), ENOENT);
	refuses("queue by key", msgget(key, 0), ENOENT);
	struct shminfo info;
	struct shmid_ds segment;
	int reached = 0;
	for (int index = 0; index <= 64; index++) reached |= shmctl(index, SHM_STAT, &segment) >= 0;
	say("shm by index", reached || shmctl(0, IPC_INFO, (void *)&info) > 0);
	refuses("keyctl", syscall(SYS_keyctl, 0, -4, 1), EPERM);
	refuses("add_key", syscall(SYS_add_key, "user", "pod-escape", "x", 1, -2 /* the process's own keyring */), EPERM);
	refuses("request_key", syscall(SYS_request_key, "user", "pod-escape", 0, 0), EPERM);
	char byte;
	int keys = open("/proc/keys", O_RDONLY);
	say("/proc/keys", keys >= 0 && read(keys, &byte, 1) == 1);
}

static void kernel(void) {
	const char *const files[] = { "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
		                          "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/power/state" };
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char name[128];
		snprintf(name, sizeof name, "write %s", files[i]);
		say(name, opens(files[i], O_WRONLY));
	}
	char byte;
	int core = open("/proc/kcore", O_RDONLY);
	say("/proc/kcore", core >= 0 && read(core, &byte, 1) == 1);
	refuses("sethostname", sethostname("pod", 3), EPERM);
	refuses("init_module", syscall(SYS_init_module, "", 0, ""), EPERM);
	refuses("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0), EPERM);
	/* A magic number that the kernel refuses with EINVAL, should nobody refuse it before. */
	refuses("reboot", syscall(SYS_reboot, 1, 2, 3, 0), EPERM);
	refuses("swapon", syscall(SYS_swapon, "/nothing", 0), EPERM);
	refuses("acct", syscall(SYS_acct, 0), EPERM);
	refuses("syslog", syscall(SYS_syslog, 10, 0, 0), EPERM);
	refuses("clock_settime", syscall(SYS_clock_settime, 0, 0), EPERM);
	union bpf_attr program = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER };
	refuses("bpf", syscall(SYS_bpf, BPF_PROG_LOAD, &program, sizeof program), EPERM);
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE, .size = sizeof event, .exclude_kernel = 1 };
	refuses("perf_event_open", syscall(SYS_perf_event_open, &event, 0, -1, -1, 0), EPERM);
	refuses("userfaultfd", syscall(SYS_userfaultfd, 1), EPERM);
	char setup[256] = { 0 };
	refuses("io_uring", syscall(SYS_io_uring_setup, 4, setup), EPERM);
	/* The table of i386 has numbers of its own: 20 is getpid there. */
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
	say("calls of i386", result != -EPERM);
	refuses("calls of x32", syscall(0x40000000 | SYS_getpid), 0);
}

int main(int argc, char **argv) {
	if (argc != 5) return 2;
	setvbuf(stdout, 0, _IOLBF, 0);
	files(argv[1]);
	devices();
	processes(atoi(argv[4]));
	ipc(argv[2], (key_t)strtol(argv[3], 0, 0));
	kernel();
	/* Last: an unconfined one takes away what the others look at. */
	mounts();
	puts("tried all");
	return 0;
}
