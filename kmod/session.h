/* SPDX-License-Identifier: GPL-2.0 */
/* A session that is being dumped, and what the parts do with it. */
#ifndef POD_SESSION_H
#define POD_SESSION_H

#include <linux/completion.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/path.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/task_work.h>
#include <linux/wait.h>
#include <asm/ptrace.h>
#include <asm/user.h>
#include "encode.h"
#include "kinds.h"
#include "pod_ioctl.h"

/* What a held thread may do. It only ever goes down this list. */
enum pod_order {
	POD_HOLD,	/* wait, whatever comes: it is being looked at */
	POD_WAIT,	/* wait, but a fatal signal ends it */
	POD_GO,
};

/* One thread on its way to, or in, its stop at the border to user mode. */
struct pod_stop {
	struct callback_head work;
	struct list_head link;		/* pod_session.stops */
	struct task_struct *task;
	refcount_t refs;
	struct completion arrived;
	wait_queue_head_t order_changed;
	enum pod_order order;
	bool gone;			/* came here only to end */
	bool killed;			/* left before it was told to */
	unsigned int nudges;
	int error;
	struct user_regs_struct regs;
	bool has_rest;			/* of a relative time-out */
	u64 rest_ns;
	void *extended;
	int extended_len;
};

struct pod_process {
	struct task_struct *leader;
	pid_t parent;			/* as the caller sees it; 0: outside */
	pid_t pid;			/* as the session sees it */
	pid_t inner_parent;
	bool zombie;
	bool placed;			/* in its order, parents first */
	u32 mm, files, fs, handlers;	/* their numbers in the image */
};

/* Something that several of the session may share, in the order it was met. */
struct pod_shared {
	void **at;
	u32 count, room;
};

/* The parts of the stream before the pages, in their order. */
enum pod_section {
	POD_SECTION_FIRST,
	POD_SECTION_SHM,
	POD_SECTION_MM,
	POD_SECTION_FILES,
	POD_SECTION_SETS,
	POD_SECTION_TABLES,
	POD_SECTION_SHARED,
	POD_SECTION_TASKS,
	POD_SECTIONS,
};

/* What an image asks of a kernel, in the order of the names in HELLO. */
enum pod_need {
	POD_NEEDS_EPOLL = 1 << 0,
	POD_NEEDS_EVENTFD = 1 << 1,
	POD_NEEDS_ROBUST = 1 << 2,
	POD_NEEDS_INOTIFY = 1 << 3,
	POD_NEEDS_TIMERS = 1 << 4,
	POD_NEEDS_RSEQ = 1 << 5,
	POD_NEEDS_SIGNALFD = 1 << 6,
	POD_NEEDS_TIMERFD = 1 << 7,
};

enum pod_state {
	POD_NEW,
	POD_ASKING,	/* for what POD_IOC_COMPARE is to tell */
	POD_READY,	/* the whole stream can be read */
	POD_FAILED,	/* the stream is an ERROR */
};

/* Where an open file is found, by its number: one descriptor of it. */
struct pod_place {
	struct task_struct *task;
	u32 fd;
	unsigned long inode;
	dev_t device;
};

/* Where private pages are: those of one area that are its own. */
struct pod_pages {
	u64 start, end;
	u32 mm;
	bool all;	/* every page, whether it is there or not */
	bool own;	/* over a file: also zeros, but only what is not the file's */
};

#define POD_BATCH (POD_MAX_DATA / PAGE_SIZE)

struct pod_session {
	struct mutex lock;		/* orders the calls of one file */
	enum pod_state state;
	wait_queue_head_t ready;
	struct pod_dump ask;
	u64 __user *room;		/* of who asks, during the request */
	struct pid_namespace *ns;	/* of the session */
	struct task_struct *root;

	struct list_head stops;
	struct pod_process *processes;
	u32 count;

	struct pod_shared mms, tables, folders, handlers, files, pipes;
	struct pod_shared terminals;
	struct pod_shared segments;	/* inodes */
	struct pod_shared segment_files;
	u32 next_file;
	struct pod_place *places;
	u32 place_count;
	struct pod_set *sets;		/* of epoll */
	u32 set_count, set_room;
	u32 set, entry, asked;		/* what POD_IOC_COMPARE asks for */
	bool asking;
	u32 needs;			/* enum pod_need */
	bool released;			/* let go on by POD_IOC_THAW */
	bool failed;			/* the stream ends in ERROR */

	char *page;			/* for paths */
	char why[512];
	char hint[192];

	struct pod_buf sections[POD_SECTIONS];
	struct pod_tally tally;

	/* What is being read: a section, then pages, then the end. */
	u32 section;
	size_t section_at;
	struct pod_pages *areas;
	u32 area_count, area_room, area;
	u64 address;
	u32 segment;
	struct page *batch[POD_BATCH];
	u32 batch_len, batch_at, run;
	u64 batch_base;
	u8 *copy;			/* of a shared segment */
	u32 copy_len, copy_at;
	const u8 *body[POD_BATCH];
	u32 body_count, body_at;
	size_t body_off;
	struct pod_buf head;
	size_t head_at;
	u8 trailer[POD_TRAILER];
	size_t trailer_at;
	bool ended;
};

/* Say why it cannot be dumped; the first reason counts. Returns error. */
__printf(4, 5)
int pod_refuse(struct pod_session *s, int error, const char *hint,
	       const char *format, ...);
/* NAME (pid N) in front of a reason. */
__printf(5, 6)
int pod_refuse_task(struct pod_session *s, struct task_struct *t, int error,
		    const char *hint, const char *format, ...);
void pod_frame_to(struct pod_session *s, enum pod_section section, u8 kind,
		  struct pod_buf *meta, const void *data, size_t len);

/* The number of a thing that may be shared; *first when it was not met before. */
int pod_number_of(struct pod_shared *shared, void *thing, u32 *number,
		  bool *first);

/* freeze.c */
int pod_freeze(struct pod_session *s);
void pod_order_all(struct pod_session *s, enum pod_order order);
void pod_thaw(struct pod_session *s);
struct pod_stop *pod_stop_of(struct pod_session *s, struct task_struct *t);
struct pod_stop *pod_killed(struct pod_session *s);
void pod_wait_for_callbacks(void);

/* tree.c */
int pod_find_root(struct pod_session *s);
bool pod_in_session(struct pod_session *s, struct task_struct *leader);
int pod_list_processes(struct pod_session *s);
int pod_check_tasks(struct pod_session *s);
int pod_collect_tree(struct pod_session *s);
int pod_collect_tasks(struct pod_session *s);

bool pod_is_outside(struct pod_session *s, struct pid *id);
pid_t pod_inner_pid(struct pod_session *s, const struct pid *pid);

/* refuse.c */
int pod_check_thread(struct pod_session *s, struct pod_stop *stop);
int pod_check_first(struct pod_session *s, struct task_struct *t);

/* paths.c */
int pod_path(struct pod_session *s, const struct path *path,
	     struct task_struct *t, const char *what, const char **name);
int pod_find_mount(struct pod_session *s, struct task_struct *t,
		   struct dentry *dentry, struct vfsmount **mount);
int pod_put_file(struct pod_session *s, struct pod_buf *b,
		 const struct path *path, struct task_struct *t,
		 const char *what);

/* memory.c */
int pod_collect_memory(struct pod_session *s, struct pod_process *p);

/* vdso.c */
bool pod_in_vdso(struct task_struct *t, unsigned long address);
int pod_put_vdso(struct pod_session *s, struct pod_buf *b, struct pod_open *o,
		 struct task_struct *t, u64 vvar, u64 vvar_end);

/* pages.c */
ssize_t pod_read_pages(struct pod_session *s);
void pod_drop_pages(struct pod_session *s);

/* registers.c */
int pod_capture(struct pod_stop *stop);
void pod_put_rights(struct pod_stop *stop, struct pod_buf *b,
		    struct pod_open *o);
void pod_put_registers(struct pod_stop *stop, struct pod_buf *b,
		       struct pod_open *o);

/* rseq.c */
void pod_abort_sequence(struct pt_regs *regs);

/* signals.c */
int pod_collect_handlers(struct pod_session *s, struct pod_process *p);
void pod_put_pending(struct pod_buf *b, struct pod_open *o,
		     struct sigpending *pending, struct task_struct *t);
void pod_put_signals(struct pod_buf *b, struct pod_open *o,
		     struct task_struct *t);

/* timers.c */
int pod_put_timers(struct pod_session *s, struct pod_buf *b,
		   struct pod_open *o, struct task_struct *t);

/* attributes.c */
void pod_put_limits(struct pod_buf *b, struct pod_open *o,
		    struct task_struct *t);
void pod_put_credentials(struct pod_buf *b, struct pod_open *o,
			 struct task_struct *t);
void pod_put_scheduling(struct pod_buf *b, struct pod_open *o,
			struct task_struct *t);
void pod_put_thread_attributes(struct pod_buf *b, struct pod_open *o,
			       struct task_struct *t);
void pod_put_processor_states(struct pod_buf *b, struct pod_open *o,
			      struct task_struct *t);
void pod_put_memory_attributes(struct pod_buf *b, struct pod_open *o,
			       struct mm_struct *mm);

/* processor-time.c */
void pod_put_thread_times(struct pod_buf *b, struct pod_open *o,
			  struct task_struct *t);
void pod_put_process_times(struct pod_buf *b, struct pod_open *o,
			   struct task_struct *leader);
long pod_set_times(const struct pod_times __user *from);

/* fdinfo.c */
int pod_short_fdinfo(struct file *file, char *text, size_t room);
char *pod_fdinfo(struct file *file);
bool pod_is_anonymous(struct file *file, const char *name);

/* files.c */
int pod_collect_files(struct pod_session *s);
int pod_collect_folder(struct pod_session *s, struct pod_process *p);
int pod_check_locks(struct pod_session *s, struct file *file,
		    struct files_struct *table, struct task_struct *t);

/* Each object's file. */
struct pod_file {
	struct file *file;
	struct task_struct *task;	/* one that has it, and its number */
	unsigned int fd;
	u32 id;
};

__printf(4, 5)
int pod_refuse_file(struct pod_session *s, const struct pod_file *f,
		    const char *hint, const char *format, ...);
u32 pod_file_flags(const struct file *file);
int pod_put_place(struct pod_session *s, struct pod_buf *b,
		  struct pod_open *o, const struct pod_file *f);
int pod_put_owner(struct pod_session *s, struct pod_buf *b,
		  struct pod_open *o, const struct pod_file *f);
bool pod_has_owner(struct file *file);
int pod_dump_regular(struct pod_session *s, const struct pod_file *f);
int pod_dump_directory(struct pod_session *s, const struct pod_file *f);
int pod_dump_device(struct pod_session *s, const struct pod_file *f);
int pod_dump_pipe(struct pod_session *s, const struct pod_file *f);
bool pod_is_epoll(struct file *file);
int pod_dump_epoll(struct pod_session *s, const struct pod_file *f);
int pod_next_question(struct pod_session *s, struct pod_compare *ask);
void pod_drop_sets(struct pod_session *s);
bool pod_is_terminal(struct file *file);
int pod_dump_terminal(struct pod_session *s, const struct pod_file *f);
int pod_check_terminal(struct pod_session *s, struct task_struct *t);
bool pod_is_unix(struct file *file);
int pod_dump_unix(struct pod_session *s, const struct pod_file *f);
int pod_dump_inotify(struct pod_session *s, const struct pod_file *f);
int pod_dump_signalfd(struct pod_session *s, const struct pod_file *f);
int pod_dump_timerfd(struct pod_session *s, const struct pod_file *f);
bool pod_is_eventfd(struct file *file);
int pod_dump_eventfd(struct pod_session *s, const struct pod_file *f);

#endif
