// SPDX-License-Identifier: GPL-2.0
/*
 * epoll(7). /proc/PID/fdinfo tells the entries of a set, each with the number
 * under which its file was added, which may be another file's by now. Which
 * file is meant only kcmp(2) tells, and nothing of that is exported: so who
 * dumps is asked (POD_IOC_COMPARE), one pair of an entry and an open file of
 * the session after the other, when the session stands and all else is known.
 * Only then the sets are written, behind the other files.
 */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "session.h"

/* A record's meta ends at 64 KiB. */
#define MOST_ENTRIES 1500
#define NOT_FOUND U32_MAX
/* The kernel lets sets watch each other so deep; who answers may say anything. */
#define MOST_LEVELS 6

struct pod_entry {
	u64 data;
	unsigned long inode;
	u32 device;
	u32 fd, index;		/* the how manieth under this number */
	u32 events;
	u32 tried;		/* how many files were asked for */
	u32 file;
};

struct pod_set {
	struct task_struct *task;
	u32 fd, id, flags, count;
	bool written;
	struct pod_entry *entries;
};

bool pod_is_epoll(struct file *file)
{
	return pod_is_anonymous(file, "[eventpoll]");
}

void pod_drop_sets(struct pod_session *s)
{
	while (s->set_count)
		kvfree(s->sets[--s->set_count].entries);
	kvfree(s->sets);
	s->sets = NULL;
	s->set_room = 0;
	s->set = 0;
	s->entry = 0;
}

static struct pod_set *new_set(struct pod_session *s)
{
	struct pod_set *more;
	u32 room;

	if (s->set_count == s->set_room) {
		room = s->set_room * 2 + 8;
		more = kvcalloc(room, sizeof(*more), GFP_KERNEL_ACCOUNT);
		if (!more)
			return NULL;
		if (s->set_count)
			memcpy(more, s->sets, s->set_count * sizeof(*more));
		kvfree(s->sets);
		s->sets = more;
		s->set_room = room;
	}
	return &s->sets[s->set_count++];
}

static u32 count_lines(const char *text)
{
	u32 lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

/* Entries under one number follow each other in no order but this. */
static u32 count_before(const struct pod_set *set, u32 fd)
{
	u32 i, count = 0;

	for (i = 0; i < set->count; i++)
		count += set->entries[i].fd == fd;
	return count;
}

static int read_entries(struct pod_set *set, const char *text)
{
	const char *line;

	for (line = text; *line; line = strchr(line, '\n') + 1) {
		struct pod_entry *entry = &set->entries[set->count];
		unsigned long long data;
		long long position;

		if (sscanf(line, "tfd: %u events: %x data: %llx pos:%lli ino:%lx sdev:%x",
			   &entry->fd, &entry->events, &data, &position,
			   &entry->inode, &entry->device) != 6 ||
		    !strchr(line, '\n'))
			return -EOPNOTSUPP;
		entry->data = data;
		entry->file = NOT_FOUND;
		entry->index = count_before(set, entry->fd);
		set->count++;
	}
	return 0;
}

int pod_dump_epoll(struct pod_session *s, const struct pod_file *f)
{
	char *text = pod_fdinfo(f->file);
	struct pod_set *set;
	u32 lines;
	int error;

	if (IS_ERR(text))
		return pod_refuse_file(s, f, "use --engine user",
				       "this kernel does not tell what it watches (%ld)",
				       PTR_ERR(text));
	lines = count_lines(text);
	if (lines > MOST_ENTRIES) {
		kvfree(text);
		return pod_refuse_file(s, f, "",
				       "it watches %u files, more than the %u an image can say",
				       lines, MOST_ENTRIES);
	}
	set = new_set(s);
	if (set) {
		*set = (struct pod_set) {
			.task = f->task,
			.fd = f->fd,
			.id = f->id,
			.flags = pod_file_flags(f->file),
			.entries = kvcalloc(lines + 1, sizeof(*set->entries),
					    GFP_KERNEL_ACCOUNT),
		};
	}
	error = set && set->entries ? read_entries(set, text) : -ENOMEM;
	kvfree(text);
	if (error)
		return pod_refuse_file(s, f, "use --engine user",
				       "what it watches can't be told (%d)",
				       error);
	s->needs |= POD_NEEDS_EPOLL;
	return 0;
}

/*
 * The next file that the entry may mean: first those that have its number in
 * the process of the set, then all others. Each is tried once.
 */
static const struct pod_place *next_place(struct pod_session *s,
					  const struct pod_set *set,
					  struct pod_entry *entry, u32 *file)
{
	u32 all = s->place_count;

	while (entry->tried < 2 * all) {
		const struct pod_place *place;
		bool likely;

		*file = entry->tried % all;
		place = &s->places[*file];
		likely = place->task == set->task && place->fd == entry->fd;
		if (likely == (entry->tried++ < all) &&
		    place->inode == entry->inode &&
		    place->device == entry->device)
			return place;
	}
	return NULL;
}

static int put_set(struct pod_session *s, struct pod_set *set, u32 level)
{
	struct pod_buf meta = {};
	struct pod_open o, list, each;
	int error;
	u32 i, k;

	if (set->written)
		return 0;
	if (level > MOST_LEVELS)
		return pod_refuse_task(s, set->task, -EOPNOTSUPP, "",
				       "descriptor %u (an epoll set): the answers make it part of more sets than the kernel allows",
				       set->fd);
	set->written = true;
	/* A set inside a set comes before it. */
	for (i = 0; i < set->count; i++) {
		for (k = 0; k < s->set_count; k++) {
			if (s->sets[k].id != set->entries[i].file)
				continue;
			error = put_set(s, &s->sets[k], level + 1);
			if (error)
				return error;
		}
	}
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", set->id);
	POD_INT(&meta, &o, "flags", set->flags);
	pod_field(&meta, &o, "entries");
	list = pod_open(&meta);
	for (i = 0; i < set->count; i++) {
		const struct pod_entry *entry = &set->entries[i];

		each = pod_open(&meta);
		POD_INT(&meta, &each, "fd", entry->fd);
		POD_INT(&meta, &each, "file", entry->file);
		POD_INT(&meta, &each, "events", entry->events);
		POD_U64(&meta, &each, "data", entry->data);
		pod_close_map(&meta, each);
		list.count++;
	}
	pod_close_array(&meta, list);
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_SETS, POD_FRAME_EPOLL, &meta, NULL, 0);
	return 0;
}

/*
 * What is to be asked next, after the answer to what was asked last. -ENODATA:
 * all is known, and the sets are written.
 */
int pod_next_question(struct pod_session *s, struct pod_compare *ask)
{
	u32 file, i;
	int error;

	for (; s->set < s->set_count; s->set++, s->entry = 0) {
		struct pod_set *set = &s->sets[s->set];

		for (; s->entry < set->count; s->entry++) {
			struct pod_entry *entry = &set->entries[s->entry];
			const struct pod_place *place;

			if (ask->answer == POD_SAME) {
				entry->file = s->asked;
				ask->answer = POD_NO_ANSWER;
				continue;
			}
			ask->answer = POD_NO_ANSWER;
			place = next_place(s, set, entry, &file);
			if (!place)
				return pod_refuse_task(s, set->task,
						       -EOPNOTSUPP,
						       "the file is kept open by something outside the session: end that first",
						       "descriptor %u (an epoll set): it still watches a file that was descriptor %u and that no process of the session has open any more",
						       set->fd, entry->fd);
			s->asked = file;
			ask->pid = task_tgid_vnr(place->task);
			ask->fd = place->fd;
			ask->set_pid = task_tgid_vnr(set->task);
			ask->set = set->fd;
			ask->watched = entry->fd;
			ask->index = entry->index;
			return 0;
		}
	}
	for (i = 0; i < s->set_count; i++) {
		error = put_set(s, &s->sets[i], 1);
		if (error)
			return error;
	}
	return s->sections[POD_SECTION_SETS].error ?: -ENODATA;
}
