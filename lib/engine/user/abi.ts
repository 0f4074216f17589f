/** Numbers of the Linux x86_64 interface: <asm/unistd_64.h>, <linux/ptrace.h>, <sys/user.h>, sched.h, prctl.h. */

export const SYS = {
  read: 0, write: 1, open: 2, close: 3, poll: 7, lseek: 8, mmap: 9, mprotect: 10, munmap: 11, brk: 12, rt_sigaction: 13,
  rt_sigprocmask: 14, ioctl: 16, pread64: 17, pwrite64: 18, pipe: 22, select: 23, mremap: 25, madvise: 28, pause: 34, nanosleep: 35, getitimer: 36,
  setitimer: 38, getpid: 39, socket: 41, connect: 42, accept: 43, sendto: 44, recvfrom: 45, sendmsg: 46, recvmsg: 47, shutdown: 48, bind: 49, listen: 50, socketpair: 53, setsockopt: 54,
  getsockopt: 55, clone: 56, exit: 60, wait4: 61, kill: 62, semop: 65, msgrcv: 70, msgsnd: 69, fcntl: 72, flock: 73, ftruncate: 77, chdir: 80, fchdir: 81,
  umask: 95, getpgid: 121, setpgid: 109, setsid: 112, getsid: 124, setgroups: 116, setresuid: 117, setresgid: 119, setfsuid: 122, setfsgid: 123, capset: 126, rt_sigtimedwait: 128,
  rt_sigqueueinfo: 129, sigaltstack: 131, personality: 135, sched_setparam: 142, sched_setscheduler: 144, prctl: 157, setrlimit: 160, chroot: 161, io_getevents: 208, gettid: 186, tkill: 200, futex: 202, sched_setaffinity: 203, sched_getaffinity: 204, set_tid_address: 218, restart_syscall: 219, semtimedop: 220,
  fadvise64: 221, timer_create: 222, timer_settime: 223, timer_gettime: 224, timer_getoverrun: 225, timer_delete: 226, clock_nanosleep: 230, exit_group: 231, epoll_wait: 232, epoll_ctl: 233, tgkill: 234,
  ioprio_set: 251, ioprio_get: 252, inotify_add_watch: 254, openat: 257, pselect6: 270, ppoll: 271, set_robust_list: 273,
  get_robust_list: 274, splice: 275, tee: 276, vmsplice: 278, epoll_pwait: 281, signalfd4: 289, timerfd_create: 283, timerfd_settime: 286, timerfd_gettime: 287, eventfd2: 290, epoll_create1: 291,
  dup3: 292, pipe2: 293, inotify_init1: 294, rt_tgsigqueueinfo: 297, prlimit64: 302, kcmp: 312, sched_setattr: 314, getrandom: 318, memfd_create: 319, mlock2: 325, io_pgetevents: 333, rseq: 334,
  pidfd_send_signal: 424, pidfd_open: 434, clone3: 435, close_range: 436, pidfd_getfd: 438, epoll_pwait2: 441,
  setpriority: 141, getpriority: 140, sched_getscheduler: 145, sched_getparam: 143, dup: 32, getsockname: 51, sendmmsg: 307, setns: 308, rt_sigpending: 127, mlock: 149,
} as const;

export const PTRACE = {
  cont: 7, detach: 17, syscall: 24, listen: 0x4208,
  optionSysGood: 1, optionTraceFork: 2, optionTraceVfork: 4, optionTraceClone: 8, optionExitKill: 1 << 20, optionSuspendSeccomp: 1 << 21,
  eventStop: 128,
} as const;

export const NT_X86_XSTATE = 0x202;

/** Index of each register in struct user_regs_struct (u64 each). */
export const REG = {
  r15: 0, r14: 1, r13: 2, r12: 3, rbp: 4, rbx: 5, r11: 6, r10: 7, r9: 8, r8: 9, rax: 10, rcx: 11, rdx: 12, rsi: 13,
  rdi: 14, orig_rax: 15, rip: 16, cs: 17, eflags: 18, rsp: 19, ss: 20, fs_base: 21, gs_base: 22, ds: 23, es: 24,
  fs: 25, gs: 26,
} as const;
export const registerCount = 27;

/** The words of a 216-byte register set, for reading and writing in place. */
export function registerWords(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, registerCount);
}

export const PROT = { read: 1, write: 2, exec: 4 } as const;
export const MAP = { shared: 1, private: 2, fixed: 0x10, anonymous: 0x20, growsDown: 0x100, noReserve: 0x4000, stack: 0x20000, fixedNoReplace: 0x100000 } as const;
export const CLONE = {
  vm: 0x100, fs: 0x200, files: 0x400, sighand: 0x800, vfork: 0x4000, parent: 0x8000, thread: 0x10000, sysvsem: 0x40000, io: 0x80000000,
} as const;
export const PR = {
  setPdeathsig: 1, getPdeathsig: 2, getDumpable: 3, setDumpable: 4, setKeepCaps: 8, setName: 15, capbsetDrop: 24, getSecurebits: 27, setSecurebits: 28,
  setTimerslack: 29, getTimerslack: 30, setMm: 35, setMmMap: 14, setChildSubreaper: 36, getChildSubreaper: 37, setNoNewPrivs: 38, getTidAddress: 40,
  setThpDisable: 41, getThpDisable: 42, capAmbient: 47, capAmbientRaise: 2, setVma: 0x53564d41, setVmaAnonName: 0,
} as const;
export const O = { accessMode: 3, wronly: 1, rdwr: 2, creat: 0o100, excl: 0o200, noctty: 0o400, trunc: 0o1000, append: 0o2000, nonblock: 0o4000, dsync: 0o10000, async: 0o20000, direct: 0o40000, largefile: 0o100000, directory: 0o200000, nofollow: 0o400000, noatime: 0o1000000, cloexec: 0o2000000, path: 0o10000000 } as const;
export const F = { dupfd: 0, getfd: 1, setfd: 2, getfl: 3, setfl: 4, setown: 8, setsig: 10, getsig: 11, setownEx: 15, getownEx: 16, dupfdCloexec: 1030, setPipeSize: 1031, getPipeSize: 1032, getSeals: 1034, addSeals: 1033 } as const;
export const KCMP = { file: 0, vm: 1, files: 2, fs: 3, sighand: 4 } as const;
export const pageSize = 4096;
export const page = 4096n;
export const allSignals = 0xffffffffffffffffn;
export const kernelRestart = { sys: -512, noIntr: -513, noHand: -514, block: -516 } as const;
export const AT_FDCWD = -100;
