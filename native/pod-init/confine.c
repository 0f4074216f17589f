/*
 * What keeps a confined session in its pod, beside the namespaces; docs/pods.md says what each part is for.
 *
 * Three moments. confine_pod(), when the mounts are made: what every task forked out of pid 1 inherits, at the start
 * and at a restart alike, so nothing of it is in an image. seal(), just before the session runs: what a restart still
 * needs open while it builds. drop_capabilities(), in the new session's first process; a restart gives each task its
 * capabilities itself, cut to the same set.
 */
#define _GNU_SOURCE
#include "pod-init.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>

/* Newer than the headers of some machines this is built on. */
#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif

/*
 * Calls that reach what no namespace divides, capabilities or not: keys belong to a user id everywhere on the
 * machine; the rest reaches the kernel itself. io_uring and userfaultfd are refused because a session that has them
 * can't be dumped, and programs do without. Nothing that the engine calls in a task may stand here.
 */
static const unsigned short refused[] = {
    SYS_add_key,       SYS_request_key,    SYS_keyctl,         SYS_bpf,           SYS_perf_event_open,
    SYS_userfaultfd,   SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_open_by_handle_at,
    SYS_kexec_load,    SYS_kexec_file_load, SYS_init_module,   SYS_finit_module,  SYS_delete_module,
    SYS_reboot,        SYS_swapon,         SYS_swapoff,        SYS_acct,          SYS_iopl,
    SYS_ioperm,        SYS_syslog,         SYS_quotactl,       SYS_quotactl_fd,   SYS_settimeofday,
    SYS_clock_settime,
};

#define REFUSED (sizeof refused / sizeof *refused)
#define LOAD(field) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, value)

static void install_filter(void) {
  enum { before = 4, length = before + REFUSED + 2 };
  struct sock_filter program[length];
  const unsigned deny = length - 1;
  /* Other tables of numbers, i386's and x32's, would be ways around this one. */
  program[0] = LOAD(arch);
  program[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, deny - 2);
  program[2] = LOAD(nr);
  program[3] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, deny - 4, 0);
  for (unsigned i = 0; i < REFUSED; i++)
    program[before + i] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], (unsigned char)(deny - before - i - 1), 0);
  program[deny - 1] = ANSWER(SECCOMP_RET_ALLOW);
  program[deny] = ANSWER(SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog filter = {length, program};
  must(sys(seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter), "seccomp");
}

/* From Linux 6.12 on: abstract socket names of the host are out of reach, whichever network this is. */
static void scope_sockets(void) {
  struct {
    uint64_t files, network, scoped;
  } rules = {0, 0, 1 /* LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET */};
  const long version = sys(landlock_create_ruleset, 0, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
  if (version < 6) return;
  const long fd = must(sys(landlock_create_ruleset, &rules, sizeof rules, 0), "landlock");
  must(sys(landlock_restrict_self, fd, 0), "landlock");
  sys(close, fd);
}

void confine_pod(void) {
  if (!options.confine) return;
  scope_sockets();
  install_filter();
  if (!options.user) return;
  /* A set-user-ID program gets nothing here as it is; for root's pods the bounding set does it, and sudo works. */
  must(sys(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  /* In a user namespace of its own it could mount again. */
  write_file("/proc/sys/user/max_user_namespaces", "0");
}

/* What belongs to the kernel and is writable or telling for user id 0, without any capability. */
static const char *const unwritable[] = {"/proc/sys", "/proc/irq",           "/proc/bus",
                                         "/proc/fs",  "/proc/sysrq-trigger", "/proc/acpi"};
static const char *const hidden[] = {"/proc/kcore",      "/proc/keys",        "/proc/key-users",   "/proc/kmsg",
                                     "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats"};

/* A kernel need not have all of them. */
static int cover(const char *source, const char *where) {
  const long result = sys(mount, source, where, 0, MS_BIND, 0);
  return result != -ENOENT && must(result, where) == 0;
}

void seal(void) {
  if (!options.confine) return;
  for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) cover("/dev/null", hidden[i]);
  /* A user's session is not the user id that these belong to. */
  for (size_t i = 0; !options.user && i < sizeof unwritable / sizeof *unwritable; i++) {
    const unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (cover(unwritable[i], unwritable[i])) must(sys(mount, 0, unwritable[i], 0, flags, 0), unwritable[i]);
  }
}

long drop_capabilities(void) {
  if (!options.confine) return 0;
  for (int number = 0; number < 64; number++) {
    if (options.capabilities >> number & 1) continue;
    /* EINVAL: this kernel has no such capability. */
    const long result = sys(prctl, PR_CAPBSET_DROP, number, 0, 0, 0);
    if (result < 0 && result != -EINVAL) return result;
  }
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2];
  long result = sys(capget, &header, sets);
  if (result < 0) return result;
  for (int half = 0; half < 2; half++) {
    const uint32_t kept = (uint32_t)(options.capabilities >> 32 * half);
    sets[half].effective &= kept, sets[half].permitted &= kept, sets[half].inheritable &= kept;
  }
  return sys(capset, &header, sets);
}
