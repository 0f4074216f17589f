// SPDX-License-Identifier: GPL-2.0
/*
 * Address spaces: their areas, what backs them, and which pages are to come.
 *
 * Areas are copied under the mmap lock and described outside of it, because a
 * file may have to be asked for over a network.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hugetlb_inline.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/pkeys.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>
#include <linux/elf.h>
#include "compat.h"
#include "session.h"

#define AREAS_A_FRAME 192
#define MOST_META (48u << 10)

enum kind { ANONYMOUS, FROM_FILE, SEGMENT, VDSO, VVAR, OTHER };

struct area {
	u64 start, end, offset;
	unsigned long flags;
	struct file *file;
	enum kind kind;
	bool touched;		/* it has pages of its own */
	bool private_zero;	/* /dev/zero, privately: anonymous memory */
	int key;
	char name[81];
};

struct areas {
	struct area *at;
	u32 count;
};

static enum kind special_kind(const char *name)
{
	if (!strcmp(name, "[vdso]"))
		return VDSO;
	return strncmp(name, "[vvar", 5) ? OTHER : VVAR;
}

static void copy_area(struct area *to, struct vm_area_struct *vma)
{
	const char *name = NULL;

	memset(to, 0, sizeof(*to));
	to->start = vma->vm_start;
	to->end = vma->vm_end;
	to->flags = vma->vm_flags;
	to->offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	to->touched = vma->anon_vma;
	to->key = vma_pkey(vma);
	if (vma->vm_file) {
		to->file = vma->vm_file;
		get_file(to->file);
		to->kind = FROM_FILE;
		to->private_zero = vma_is_anonymous(vma);
	} else {
		if (vma->vm_ops && vma->vm_ops->name)
			name = vma->vm_ops->name(vma);
		if (name) {
			strscpy(to->name, name, sizeof(to->name));
			to->kind = special_kind(name);
		} else {
			name = pod_area_name(vma);
			if (name)
				strscpy(to->name, name, sizeof(to->name));
			to->kind = vma_is_anonymous(vma) ? ANONYMOUS : OTHER;
		}
	}
}

static void drop_areas(struct areas *areas)
{
	while (areas->count)
		if (areas->at[--areas->count].file)
			fput(areas->at[areas->count].file);
	kvfree(areas->at);
	areas->at = NULL;
}

static int copy_areas(struct mm_struct *mm, struct areas *areas)
{
	struct vm_area_struct *vma;
	u32 room;

	POD_AREAS(iterator, mm);

	areas->count = 0;
	room = READ_ONCE(mm->map_count) + 16;
	areas->at = kvmalloc_array(room, sizeof(*areas->at),
				   GFP_KERNEL_ACCOUNT);
	if (!areas->at)
		return -ENOMEM;
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	pod_for_each_area(iterator, vma, mm) {
		if (areas->count == room) {
			/* Somebody outside has the same memory. */
			mmap_read_unlock(mm);
			return -EAGAIN;
		}
		copy_area(&areas->at[areas->count++], vma);
	}
	mmap_read_unlock(mm);
	return 0;
}

static int refuse_area(struct pod_session *s, struct task_struct *t,
		       const struct area *a, const char *hint, const char *why)
{
	char buffer[64];
	const char *name = a->file ?
		d_path(pod_user_path(a->file), buffer, sizeof(buffer)) :
		a->name[0] ? a->name : "anonymous";

	return pod_refuse_task(s, t, -EOPNOTSUPP, hint,
			       "memory at %llx (%s): %s", a->start,
			       IS_ERR(name) ? "a file" : name, why);
}

static int check_area(struct pod_session *s, struct task_struct *t,
		      const struct area *a)
{
	if (a->key)
		return refuse_area(s, t, a, "use --engine user",
				   "memory with a protection key (pkey_mprotect), which the module does not handle yet");
	if (a->kind == VDSO || a->kind == VVAR)
		return 0;
	if (a->kind == OTHER)
		return refuse_area(s, t, a, "",
				   "this kind of mapping is not handled");
	if (a->flags & VM_HUGETLB)
		return refuse_area(s, t, a, "",
				   "huge page memory (hugetlb) is not handled");
	if (a->flags & (VM_IO | VM_PFNMAP))
		return refuse_area(s, t, a, "",
				   "the memory of a device cannot go along");
	if (a->flags & __VM_UFFD_FLAGS)
		return refuse_area(s, t, a, "",
				   "memory under userfaultfd is not handled");
#ifdef VM_SHADOW_STACK
	if (a->flags & VM_SHADOW_STACK)
		return refuse_area(s, t, a,
				   "run the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
				   "a shadow stack is not handled");
#endif
#ifdef VM_SEALED
	if (a->flags & VM_SEALED)
		return refuse_area(s, t, a, "",
				   "sealed memory (mseal) is not handled");
#endif
	return 0;
}

/*
 * mmap(2) made it, and it has no name anywhere; or a restart did, which can
 * only make a memfd of this name (lib/engine/user/segment-name.ts).
 */
static bool is_anonymous_segment(struct file *file)
{
	const struct qstr *name = &file->f_path.dentry->d_name;

	return (file->f_path.mnt->mnt_flags & MNT_INTERNAL) &&
	       file_inode(file)->i_sb->s_magic == TMPFS_MAGIC &&
	       (!strcmp(name->name, "dev/zero") ||
		!strcmp(name->name, "memfd:podstream-shared"));
}

static int put_segment(struct pod_session *s, struct file *file, u32 *number)
{
	struct inode *inode = file_inode(file);
	struct pod_buf meta = {};
	struct pod_open o;
	bool first;
	u32 ignored;
	int error;

	error = pod_number_of(&s->segments, inode, number, &first);
	if (error || !first)
		return error;
	error = pod_number_of(&s->segment_files, file, &ignored, &first);
	if (error)
		return error;
	get_file(file);
	s->ask.memory += (u64)inode->i_blocks << 9;
	o = pod_open(&meta);
	POD_INT(&meta, &o, "id", *number);
	POD_U64(&meta, &o, "size", i_size_read(inode));
	POD_STR(&meta, &o, "origin", "anonymous");
	pod_close_map(&meta, o);
	pod_frame_to(s, POD_SECTION_SHM, POD_FRAME_SHM, &meta, NULL, 0);
	return 0;
}

/* kind and what belongs to it */
static int put_backing(struct pod_session *s, struct pod_buf *b,
		       struct pod_open *o, struct task_struct *t,
		       struct area *a)
{
	bool shared = a->flags & VM_MAYSHARE;
	struct mm_struct *mm = t->mm;
	umode_t mode;
	char what[48];
	u32 number;
	int error;

	if (a->kind == VDSO || a->kind == VVAR) {
		POD_STR(b, o, "kind", a->kind == VDSO ? "vdso" : "vvar");
		return 0;
	}
	if (a->kind == ANONYMOUS || a->private_zero) {
		a->kind = ANONYMOUS;
		if (shared)
			return refuse_area(s, t, a, "",
					   "shared memory without a name");
		POD_STR(b, o, "kind", "anonymous");
		if (a->file)
			return 0;
		if (a->start <= mm->start_stack && a->end >= mm->start_stack)
			POD_BOOL(b, o, "stack", true);
		else if (a->start <= mm->brk && a->end >= mm->start_brk)
			POD_BOOL(b, o, "heap", true);
		else if (a->name[0])
			POD_STR(b, o, "name", a->name);
		return 0;
	}
	if (shared && is_anonymous_segment(a->file)) {
		a->kind = SEGMENT;
		error = put_segment(s, a->file, &number);
		POD_STR(b, o, "kind", "shm");
		POD_INT(b, o, "shm", number);
		POD_U64(b, o, "offset", a->offset);
		return error;
	}
	mode = file_inode(a->file)->i_mode;
	if (!S_ISREG(mode))
		return refuse_area(s, t, a, "",
				   "the memory of a device cannot go along");
	snprintf(what, sizeof(what), "memory at %llx", a->start);
	error = pod_check_locks(s, a->file, NULL, t);
	if (error)
		return error;
	POD_STR(b, o, "kind", "file");
	pod_field(b, o, "file");
	error = pod_put_file(s, b, pod_user_path(a->file), t, what);
	POD_U64(b, o, "offset", a->offset);
	if (shared)
		POD_INT(b, o, "maxProt", a->flags & VM_MAYWRITE ? 7 : 5);
	return error;
}

/* Of madvise(2), in the order of the records. */
static const struct {
	unsigned long flag;
	const char *name;
} advice[] = {
	{ VM_DONTCOPY, "dontfork" },
	{ VM_WIPEONFORK, "wipeonfork" },
	{ VM_HUGEPAGE, "hugepage" },
	{ VM_NOHUGEPAGE, "nohugepage" },
	{ VM_DONTDUMP, "dontdump" },
	{ VM_MERGEABLE, "mergeable" },
	{ VM_SEQ_READ, "sequential" },
	{ VM_RAND_READ, "random" },
};

/* MAP_DROPPABLE: empty at any time, and so after a restart. */
static bool is_droppable(const struct area *a)
{
#ifdef VM_DROPPABLE
	return a->flags & VM_DROPPABLE;
#else
	return false;
#endif
}

static void put_sticky(struct pod_buf *b, struct pod_open *o,
		       const struct area *a)
{
	unsigned long all = 0;
	struct pod_open list;
	int i;

	if (a->kind == VDSO || a->kind == VVAR)
		return;
	if (is_droppable(a))
		POD_BOOL(b, o, "droppable", true);
	if (a->flags & VM_GROWSDOWN)
		POD_BOOL(b, o, "growsDown", true);
	if (a->flags & VM_LOCKED)
		POD_BOOL(b, o, "locked", true);
	if (a->flags & VM_LOCKONFAULT)
		POD_BOOL(b, o, "lockOnFault", true);
	if (a->flags & VM_NORESERVE)
		POD_BOOL(b, o, "noReserve", true);
	for (i = 0; i < ARRAY_SIZE(advice); i++)
		all |= advice[i].flag;
	if (!(a->flags & all))
		return;
	pod_field(b, o, "advice");
	list = pod_open(b);
	for (i = 0; i < ARRAY_SIZE(advice); i++) {
		if (!(a->flags & advice[i].flag))
			continue;
		pod_str(b, advice[i].name);
		list.count++;
	}
	pod_close_array(b, list);
}

static int put_area(struct pod_session *s, struct pod_buf *b,
		    struct task_struct *t, struct area *a)
{
	struct pod_open o = pod_open(b);
	int error;

	POD_U64(b, &o, "start", a->start);
	POD_U64(b, &o, "end", a->end);
	POD_INT(b, &o, "prot", (a->flags & VM_READ ? 1 : 0) |
		(a->flags & VM_WRITE ? 2 : 0) | (a->flags & VM_EXEC ? 4 : 0));
	POD_BOOL(b, &o, "shared", a->flags & VM_MAYSHARE);
	error = put_backing(s, b, &o, t, a);
	put_sticky(b, &o, a);
	pod_close_map(b, o);
	return error;
}

static int note_pages(struct pod_session *s, u32 mm, const struct area *a)
{
	struct pod_pages *more;
	u32 room;

	if ((a->flags & VM_MAYSHARE) || a->kind == VVAR || is_droppable(a) ||
	    (a->kind != VDSO && !a->touched))
		return 0;
	if (s->area_count == s->area_room) {
		room = s->area_room * 2 + 64;
		more = kvmalloc_array(room, sizeof(*more), GFP_KERNEL_ACCOUNT);
		if (!more)
			return -ENOMEM;
		if (s->area_count)
			memcpy(more, s->areas, s->area_count * sizeof(*more));
		kvfree(s->areas);
		s->areas = more;
		s->area_room = room;
	}
	s->areas[s->area_count++] = (struct pod_pages) {
		.start = a->start,
		.end = a->end,
		.mm = mm,
		.all = a->kind == VDSO,
		.own = a->kind == FROM_FILE,
	};
	return 0;
}

static int put_areas(struct pod_session *s, struct pod_process *p,
		     struct areas *areas)
{
	u32 at = 0;
	int error;

	while (at < areas->count) {
		struct pod_buf meta = {};
		struct pod_open o = pod_open(&meta), list;

		POD_INT(&meta, &o, "mm", p->mm);
		pod_field(&meta, &o, "areas");
		list = pod_open(&meta);
		while (at < areas->count && list.count < AREAS_A_FRAME &&
		       meta.len < MOST_META) {
			struct area *a = &areas->at[at];

			error = put_area(s, &meta, p->leader, a);
			if (!error)
				error = note_pages(s, p->mm, a);
			if (error) {
				pod_buf_free(&meta);
				return error;
			}
			at++;
			list.count++;
		}
		pod_close_array(&meta, list);
		pod_close_map(&meta, o);
		pod_frame_to(s, POD_SECTION_MM, POD_FRAME_AREAS, &meta, NULL, 0);
	}
	return 0;
}

/* Up to and with the pair that ends it. */
static size_t auxv_length(const struct mm_struct *mm)
{
	size_t words = 0;

	do {
		words += 2;
	} while (words + 2 <= AT_VECTOR_SIZE && mm->saved_auxv[words - 2]);
	return words * sizeof(mm->saved_auxv[0]);
}

static int put_space(struct pod_session *s, struct pod_process *p,
		     const struct areas *areas)
{
	struct task_struct *t = p->leader;
	struct mm_struct *mm = t->mm;
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);
	u64 vvar = U64_MAX, vvar_end = 0;
	struct file *exe;
	u32 i;
	int error;

	for (i = 0; i < areas->count; i++) {
		if (areas->at[i].kind != VVAR)
			continue;
		vvar = min(vvar, areas->at[i].start);
		vvar_end = max(vvar_end, areas->at[i].end);
	}
	POD_INT(&meta, &o, "id", p->mm);
	POD_U64(&meta, &o, "startCode", mm->start_code);
	POD_U64(&meta, &o, "endCode", mm->end_code);
	POD_U64(&meta, &o, "startStack", mm->start_stack);
	POD_U64(&meta, &o, "startData", mm->start_data);
	POD_U64(&meta, &o, "endData", mm->end_data);
	POD_U64(&meta, &o, "startBrk", mm->start_brk);
	POD_U64(&meta, &o, "brk", mm->brk);
	POD_U64(&meta, &o, "argStart", mm->arg_start);
	POD_U64(&meta, &o, "argEnd", mm->arg_end);
	POD_U64(&meta, &o, "envStart", mm->env_start);
	POD_U64(&meta, &o, "envEnd", mm->env_end);
	POD_BIN(&meta, &o, "auxv", mm->saved_auxv, auxv_length(mm));
	rcu_read_lock();
	exe = rcu_dereference(mm->exe_file);
	if (exe)
		get_file(exe);
	rcu_read_unlock();
	if (!exe) {
		pod_buf_free(&meta);
		return pod_refuse_task(s, t, -EOPNOTSUPP, "",
				       "it has no executable file");
	}
	pod_field(&meta, &o, "exe");
	error = pod_put_file(s, &meta, pod_user_path(exe), t, "its executable");
	fput(exe);
	POD_INT(&meta, &o, "dumpable", pod_dumpable(t));
	pod_put_memory_attributes(&meta, &o, mm);
	if (!error)
		error = pod_put_vdso(s, &meta, &o, t, vvar, vvar_end);
	pod_close_map(&meta, o);
	if (error) {
		pod_buf_free(&meta);
		return error;
	}
	pod_frame_to(s, POD_SECTION_MM, POD_FRAME_MM, &meta, NULL, 0);
	return 0;
}

static int check_space(struct pod_session *s, struct task_struct *t)
{
	if (pod_has_tags(t->mm))
		return pod_refuse_task(s, t, -EOPNOTSUPP,
				       "run the program without them",
				       "tagged addresses (LAM) are not handled");
#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
	/* Key 0 is everybody's. */
	if (t->mm->context.pkey_allocation_map & ~1)
		return pod_refuse_task(s, t, -EOPNOTSUPP, "use --engine user",
				       "it has memory protection keys (pkey_alloc), which the module does not handle yet");
#endif
	return 0;
}

int pod_collect_memory(struct pod_session *s, struct pod_process *p)
{
	struct mm_struct *mm = p->leader->mm;
	struct areas areas = {};
	bool first;
	int error;
	u32 i;

	error = pod_number_of(&s->mms, mm, &p->mm, &first);
	if (error || !first)
		return error;
	mmget(mm);
	s->ask.memory += (u64)(get_mm_counter(mm, MM_ANONPAGES) +
			       get_mm_counter(mm, MM_SWAPENTS)) << PAGE_SHIFT;
	error = check_space(s, p->leader);
	if (!error)
		error = copy_areas(mm, &areas);
	for (i = 0; i < areas.count && !error; i++)
		error = check_area(s, p->leader, &areas.at[i]);
	if (!error)
		error = put_space(s, p, &areas);
	if (!error)
		error = put_areas(s, p, &areas);
	drop_areas(&areas);
	return error;
}
