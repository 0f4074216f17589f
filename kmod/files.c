// SPDX-License-Identifier: GPL-2.0
/*
 * Descriptor tables, working directories, and the open files behind the
 * descriptors: each once, however many descriptors lead to it. Which object
 * dumps which file is said in dump_file(); what none takes is refused.
 */
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/kdev_t.h>
#include <linux/pid.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include "compat.h"
#include "session.h"

#define ENTRIES_A_FRAME 2048

struct entry {
	struct file *file;
	u32 fd, number;
	bool close_on_exec;
};

struct table {
	struct files_struct *files;
	struct task_struct *task;
	struct entry *entries;
	u32 count, room;
};

u32 pod_file_flags(const struct file *file)
{
	return file->f_flags & ~O_LARGEFILE;
}

int pod_refuse_file(struct pod_session *s, const struct pod_file *f,
		    const char *hint, const char *format, ...)
{
	char *path = d_path(&f->file->f_path, s->page, PAGE_SIZE);
	va_list arguments;
	char why[256];

	va_start(arguments, format);
	vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	return pod_refuse_task(s, f->task, -EOPNOTSUPP, hint,
			       "descriptor %u (%s): %s", f->fd,
			       IS_ERR(path) ? "a file" : path, why);
}

/* Who gets the signals of a file, who must be in the session. */
int pod_put_owner(struct pod_session *s, struct pod_buf *b,
		  struct pod_open *o, const struct pod_file *f)
{
	struct fown_struct *owner = pod_owner(f->file);
	struct task_struct *t;
	struct pod_open inner;
	int type = 1, signal;
	struct pid *pid;
	pid_t number = 0;

	if (!owner)
		return 0;
	signal = owner->signum;
	read_lock_irq(&owner->lock);
	pid = get_pid(owner->pid);
	if (owner->pid_type == PIDTYPE_PID)
		type = 0;
	else if (owner->pid_type == PIDTYPE_PGID)
		type = 2;
	read_unlock_irq(&owner->lock);
	if (pid) {
		rcu_read_lock();
		t = pid_task(pid, PIDTYPE_PID);
		if (t && pod_in_session(s, t->group_leader))
			number = pid_nr_ns(pid, s->ns);
		rcu_read_unlock();
		put_pid(pid);
		if (!number)
			return pod_refuse_file(s, f, "use --engine user",
					       "its signals go to a process outside the session (F_SETOWN), which would be lost");
	} else if (signal) {
		type = 1;
	} else {
		return 0;
	}
	pod_field(b, o, "owner");
	inner = pod_open(b);
	POD_INT(b, &inner, "type", type);
	POD_INT(b, &inner, "pid", number);
	POD_INT(b, &inner, "signal", signal);
	pod_close_map(b, inner);
	return 0;
}

/* F_NOTIFY makes whoever asks the owner; nothing else tells of it. */
bool pod_has_owner(struct file *file)
{
	struct fown_struct *owner = pod_owner(file);

	return owner && READ_ONCE(owner->pid);
}

static bool holds(struct file_lock_context *context, struct file *file,
		  struct files_struct *table)
{
	struct file_lock *lock;
	pod_lease *lease;
	bool found = false;

	spin_lock(&context->flc_lock);
	list_for_each_entry(lock, &context->flc_flock, POD_LOCK_LINK)
		found |= pod_lock_file(lock) == file;
	list_for_each_entry(lock, &context->flc_posix, POD_LOCK_LINK)
		found |= pod_lock_file(lock) == file ||
			 pod_lock_owner(lock) == (fl_owner_t)file ||
			 (table && pod_lock_owner(lock) == (fl_owner_t)table);
	list_for_each_entry(lease, &context->flc_lease, POD_LOCK_LINK)
		found |= pod_lock_file(lease) == file;
	spin_unlock(&context->flc_lock);
	return found;
}

int pod_check_locks(struct pod_session *s, struct file *file,
		    struct files_struct *table, struct task_struct *t)
{
	struct file_lock_context *context;
	char *path;

	/* Paired with the release that publishes it (fs/locks.c). */
	context = smp_load_acquire(&file_inode(file)->i_flctx);
	if (!context || !holds(context, file, table))
		return 0;
	path = d_path(pod_user_path(file), s->page, PAGE_SIZE);
	return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
			       "it holds a lock or lease on %s, which the module does not handle yet",
			       IS_ERR(path) ? "a file" : path);
}

static int dump_file(struct pod_session *s, const struct pod_file *f)
{
	umode_t mode = file_inode(f->file)->i_mode;
	int error;

	error = pod_check_locks(s, f->file, f->task->files, f->task);
	if (error)
		return error;
	if (pod_is_eventfd(f->file))
		return pod_dump_eventfd(s, f);
	if (pod_is_epoll(f->file))
		return pod_dump_epoll(s, f);
	if (pod_is_anonymous(f->file, "[timerfd]"))
		return pod_dump_timerfd(s, f);
	if (pod_is_anonymous(f->file, "[signalfd]"))
		return pod_dump_signalfd(s, f);
	if (pod_is_anonymous(f->file, "inotify"))
		return pod_dump_inotify(s, f);
	if (S_ISREG(mode))
		return pod_dump_regular(s, f);
	if ((f->file->f_mode & FMODE_PATH) && !S_ISDIR(mode))
		return pod_refuse_file(s, f, "use --engine user",
				       "only its place is open (O_PATH), which the module does not handle yet");
	if (f->file->f_mode & FMODE_PATH)
		return pod_dump_regular(s, f);
	if (S_ISDIR(mode))
		return pod_dump_directory(s, f);
	if (pod_is_terminal(f->file))
		return pod_dump_terminal(s, f);
	if (S_ISCHR(mode) || S_ISBLK(mode))
		return pod_dump_device(s, f);
	if (S_ISFIFO(mode))
		return pod_dump_pipe(s, f);
	if (pod_is_unix(f->file))
		return pod_dump_unix(s, f);
	return pod_refuse_file(s, f, "use --engine user",
			       "the module does not handle this kind of object yet");
}

/* Under files_struct.file_lock. */
static int take(const void *to, struct file *file, unsigned int fd)
{
	struct table *table = (struct table *)to;
	struct fdtable *fdt = files_fdtable(table->files);

	if (table->count < table->room) {
		get_file(file);
		table->entries[table->count] = (struct entry) {
			.file = file,
			.fd = fd,
			.close_on_exec = test_bit(fd, fdt->close_on_exec),
		};
	}
	table->count++;
	return 0;
}

static void drop_table(struct table *table)
{
	u32 i;

	for (i = 0; i < min(table->count, table->room); i++)
		fput(table->entries[i].file);
	kvfree(table->entries);
	table->entries = NULL;
	table->count = 0;
}

static int read_table(struct table *table)
{
	for (table->room = 256;; table->room = table->count + 64) {
		table->count = 0;
		table->entries = kvmalloc_array(table->room,
						sizeof(*table->entries),
						GFP_KERNEL_ACCOUNT);
		if (!table->entries)
			return -ENOMEM;
		iterate_fd(table->files, 0, take, table);
		if (table->count <= table->room)
			return 0;
		drop_table(table);
	}
}

static void put_table(struct pod_session *s, const struct table *table, u32 id)
{
	u32 at = 0;

	/* An empty table is a table too. */
	do {
		struct pod_buf meta = {};
		struct pod_open o = pod_open(&meta), list, entry;

		POD_INT(&meta, &o, "id", id);
		pod_field(&meta, &o, "entries");
		list = pod_open(&meta);
		for (; at < table->count && list.count < ENTRIES_A_FRAME; at++) {
			entry = pod_open(&meta);
			POD_INT(&meta, &entry, "fd", table->entries[at].fd);
			POD_INT(&meta, &entry, "file",
				table->entries[at].number);
			if (table->entries[at].close_on_exec)
				POD_BOOL(&meta, &entry, "closeOnExec", true);
			pod_close_map(&meta, entry);
			list.count++;
		}
		pod_close_array(&meta, list);
		pod_close_map(&meta, o);
		pod_frame_to(s, POD_SECTION_TABLES, POD_FRAME_FD_TABLE, &meta,
			     NULL, 0);
	} while (at < table->count);
}

static int read_tables(struct pod_session *s, struct table *tables)
{
	bool first;
	u32 i, k;
	int error;

	for (i = 0; i < s->count; i++) {
		struct pod_process *p = &s->processes[i];
		struct table *table;

		if (p->zombie)
			continue;
		error = pod_number_of(&s->tables, p->leader->files, &p->files,
				      &first);
		if (error)
			return error;
		if (!first)
			continue;
		table = &tables[p->files];
		table->files = p->leader->files;
		table->task = p->leader;
		error = read_table(table);
		if (error)
			return error;
		for (k = 0; k < table->count; k++) {
			error = pod_number_of(&s->files, table->entries[k].file,
					      &table->entries[k].number, &first);
			if (error)
				return error;
		}
	}
	return 0;
}

static void note_place(struct pod_session *s, const struct pod_file *f)
{
	struct inode *inode = file_inode(f->file);

	s->places[s->place_count++] = (struct pod_place) {
		.task = f->task,
		.fd = f->fd,
		.inode = inode->i_ino,
		.device = inode->i_sb->s_dev,
	};
}

/* All tables are read first: a pipe asks who has its other end. */
int pod_collect_files(struct pod_session *s)
{
	struct table *tables;
	u32 i, k, next = 0;
	int error;

	tables = kvcalloc(s->count, sizeof(*tables), GFP_KERNEL_ACCOUNT);
	if (!tables)
		return -ENOMEM;
	error = read_tables(s, tables);
	s->next_file = s->files.count;
	if (!error) {
		s->places = kvcalloc(s->files.count + 1, sizeof(*s->places),
				     GFP_KERNEL_ACCOUNT);
		if (!s->places)
			error = -ENOMEM;
	}
	for (i = 0; i < s->tables.count && !error; i++) {
		for (k = 0; k < tables[i].count && !error; k++) {
			struct entry *entry = &tables[i].entries[k];
			struct pod_file f = {
				.file = entry->file,
				.task = tables[i].task,
				.fd = entry->fd,
				.id = entry->number,
			};

			/* Numbers are given in this order: new ones are next. */
			if (entry->number == next) {
				next++;
				note_place(s, &f);
				error = dump_file(s, &f);
			} else {
				/* Locks of a process are its table's. */
				error = pod_check_locks(s, f.file,
							tables[i].files,
							f.task);
			}
		}
		if (!error)
			put_table(s, &tables[i], i);
	}
	for (i = 0; i < s->count; i++)
		drop_table(&tables[i]);
	kvfree(tables);
	for (i = 0; i < s->count && !error; i++)
		if (!s->processes[i].zombie)
			error = pod_check_terminal(s, s->processes[i].leader);
	return error;
}

/* FS; and that paths of this session start at the root of its mounts. */
int pod_collect_folder(struct pod_session *s, struct pod_process *p)
{
	struct fs_struct *fs = p->leader->fs;
	struct path root, cwd;
	struct pod_buf meta = {};
	struct pod_open o;
	const char *name;
	bool first;
	int error, mask;

	error = pod_number_of(&s->folders, fs, &p->fs, &first);
	if (error || !first)
		return error;
	get_fs_root(fs, &root);
	get_fs_pwd(fs, &cwd);
	mask = READ_ONCE(fs->umask);
	o = pod_open(&meta);
	name = d_path(&root, s->page, PAGE_SIZE);
	if (IS_ERR(name) || strcmp(name, "/"))
		error = pod_refuse_task(s, p->leader, -EOPNOTSUPP,
					"use --engine user",
					"its root directory (%s) is not that of its mounts, which the module does not handle yet",
					IS_ERR(name) ? "?" : name);
	if (!error)
		error = pod_path(s, &cwd, p->leader, "its working directory",
				 &name);
	if (!error) {
		POD_INT(&meta, &o, "id", p->fs);
		POD_STR(&meta, &o, "cwd", name);
		POD_STR(&meta, &o, "root", "/");
		POD_INT(&meta, &o, "umask", mask);
		pod_close_map(&meta, o);
		pod_frame_to(s, POD_SECTION_SHARED, POD_FRAME_FS, &meta, NULL,
			     0);
	} else {
		pod_buf_free(&meta);
	}
	path_put(&root);
	path_put(&cwd);
	return error;
}
