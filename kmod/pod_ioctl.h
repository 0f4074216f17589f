/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What /dev/pod and user space say to each other. docs/kmod.md has each call
 * with its errors. Structures only grow at their end; size says how much the
 * caller knows.
 */
#ifndef POD_IOCTL_H
#define POD_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define POD_NAME_MAX	255
#define POD_IMAGE_ID	32
#define POD_FEATURES_MAX 8192

/* What pid names, as its caller sees it. */
enum pod_kind {
	POD_PROCESS = 1,	/* this process, which has no children */
	POD_TREE = 2,		/* this process and all below it */
	POD_NAMESPACE = 3,	/* all in its pid namespace but its first */
};

/* What only user space knows of the session; goes into POD as it is. */
#define POD_CONFINED	(1u << 0)
#define POD_NET_HOST	(1u << 1)
#define POD_LIMITED	(1u << 2)
#define POD_FLAGS	((1u << 3) - 1)

struct pod_dump {
	__u32 size;		/* sizeof(struct pod_dump) */
	__u32 kind;		/* enum pod_kind */
	__s32 pid;
	__u32 flags;
	__u32 timeout_ms;	/* for the freeze; 0: 10 s */
	__u32 milli_cpus;	/* POD_LIMITED: POD's limits, 0 for none */
	__u64 memory_limit;
	__u32 pids_limit;
	__u32 reserved;		/* 0 */
	char name[POD_NAME_MAX + 1];
	char producer[POD_NAME_MAX + 1];
	char image_id[POD_IMAGE_ID];
	char features[POD_FEATURES_MAX];	/* of the processor, blanks between */
	/* Out: */
	__u64 memory;		/* bytes of memory to come, at most */
	__u32 processes;
	__u32 threads;
};

/*
 * Processor time that a task under construction, which the caller traces, has
 * used before; ns. The last five are of its process, only with its first thread.
 */
struct pod_times {
	__u32 size;		/* sizeof(struct pod_times) */
	__s32 tid;		/* as the caller sees it */
	__u64 user;
	__u64 system;
	__u64 run;		/* clocks of processor time count this */
	__u64 ended_user;	/* of threads that have ended */
	__u64 ended_system;
	__u64 ended_run;
	__u64 children_user;	/* of children that were waited for */
	__u64 children_system;
};

/*
 * What no module can tell: whether an open file is the one that an entry of
 * an epoll set means. Asked of who dumps, one after the other.
 */
enum pod_answer {
	POD_NO_ANSWER,		/* nothing was asked yet */
	POD_SAME,
	POD_OTHER,
};

struct pod_compare {
	__u32 size;		/* sizeof(struct pod_compare) */
	__u32 answer;		/* enum pod_answer, to what was asked last */
	/* Out, for kcmp(2) with KCMP_EPOLL_TFD: */
	__s32 pid;
	__u32 fd;
	__s32 set_pid;
	__u32 set;		/* the slot: efd, tfd, toff */
	__u32 watched;
	__u32 index;
};

#define POD_IOC_DUMP	_IOWR('P', 0xd0, struct pod_dump)
#define POD_IOC_THAW	_IO('P', 0xd1)
#define POD_IOC_CHECK	_IO('P', 0xd2)
#define POD_IOC_KILL	_IO('P', 0xd3)
#define POD_IOC_SET_TIMES _IOW('P', 0xd4, struct pod_times)
#define POD_IOC_COMPARE	_IOWR('P', 0xf0, struct pod_compare)

#endif
