// SPDX-License-Identifier: GPL-2.0
/*
 * Memory into the stream, a frame at a time, while it is read.
 *
 * Which pages there are the page tables tell: what has no entry was never
 * written to. Those are asked for in batches; an entry that cannot be had
 * (swap that fails) ends the stream in ERROR, never in a hole. Pages that are
 * all zero are left out where a fresh mapping has them anyway; over a file
 * they are sent.
 *
 * The page tables of a stopped session do not go away under the mmap lock:
 * only the collapse of areas into huge pages and unmapping take them, and
 * both take that lock for writing.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "compat.h"
#include "session.h"

void pod_drop_pages(struct pod_session *s)
{
	while (s->batch_at < s->batch_len)
		put_page(s->batch[s->batch_at++]);
	s->batch_len = 0;
	s->batch_at = 0;
	s->run = 0;
}

/*
 * The entry at *at, or the next there is before end. Returns whether there is
 * one; *at is then its address.
 */
static bool find_entry(struct mm_struct *mm, u64 *at, u64 end)
{
	while (*at < end) {
		pgd_t *pgd = pgd_offset(mm, *at);
		p4d_t *p4d;
		pud_t *pud;
		pmd_t *pmd;
		pmd_t huge;

		if (pgd_none(*pgd)) {
			*at = pgd_addr_end(*at, end);
			continue;
		}
		p4d = p4d_offset(pgd, *at);
		if (p4d_none(*p4d)) {
			*at = p4d_addr_end(*at, end);
			continue;
		}
		pud = pud_offset(p4d, *at);
		if (pud_none(*pud)) {
			*at = pud_addr_end(*at, end);
			continue;
		}
		pmd = pmd_offset(pud, *at);
		huge = READ_ONCE(*pmd);
		if (pmd_none(huge)) {
			*at = pmd_addr_end(*at, end);
			continue;
		}
		/* A huge page, or one that is on its way. */
		if (!pmd_present(huge) || pmd_trans_huge(huge))
			return true;
		if (!pte_none(READ_ONCE(*pte_offset_kernel(pmd, *at))))
			return true;
		*at += PAGE_SIZE;
	}
	return false;
}

/* Pages that follow each other and are there. */
static u32 count_entries(struct mm_struct *mm, u64 start, u64 end)
{
	u64 at = start;

	while (at < end) {
		u64 found = at;

		if (!find_entry(mm, &found, at + PAGE_SIZE) || found != at)
			break;
		at += PAGE_SIZE;
	}
	return (at - start) >> PAGE_SHIFT;
}

/* 1: there is a batch, 0: the area is through */
static int fill_batch(struct pod_session *s, struct pod_pages *area)
{
	struct mm_struct *mm = s->mms.at[area->mm];
	u64 end;
	u32 count;
	long got;

	pod_drop_pages(s);
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	if (!area->all && !find_entry(mm, &s->address, area->end)) {
		mmap_read_unlock(mm);
		return 0;
	}
	if (s->address >= area->end) {
		mmap_read_unlock(mm);
		return 0;
	}
	end = min(area->end, s->address + POD_BATCH * PAGE_SIZE);
	count = area->all ? (end - s->address) >> PAGE_SHIFT :
			    count_entries(mm, s->address, end);
	got = pod_get_pages(mm, s->address, count, s->batch);
	mmap_read_unlock(mm);
	if (got == -EINTR || got == -ERESTARTSYS)
		return -EINTR;
	if (got <= 0)
		return pod_refuse(s, -EIO, "look into the kernel's log",
				  "memory at %llx can't be read (%ld)",
				  s->address, got);
	s->batch_len = got;
	s->batch_base = s->address;
	s->address += (u64)got << PAGE_SHIFT;
	return 1;
}

static bool is_zero(const void *page)
{
	const u64 *words = page;

	/* Most pages that are not zero show it at once. */
	return !(words[0] | words[1] | words[255] | words[511]) &&
	       !memchr_inv(page, 0, PAGE_SIZE);
}

static bool is_wanted(const struct pod_pages *area, struct page *page)
{
	return area->own ? PageAnon(page) : !is_zero(page_address(page));
}

/* The frame of body[0…count): its header, its meta, its CRC. */
static int make_frame(struct pod_session *s, const char *key, u32 number,
		      u64 address)
{
	struct pod_buf meta = {};
	struct pod_open o = pod_open(&meta);
	u8 header[POD_HEADER];
	u32 crc, i;
	int error;

	POD_INT(&meta, &o, key, number);
	POD_U64(&meta, &o, "addr", address);
	pod_close_map(&meta, o);
	if (meta.error) {
		error = meta.error;
		pod_buf_free(&meta);
		return error;
	}
	crc = pod_crc(~0, meta.at, meta.len);
	for (i = 0; i < s->body_count; i++)
		crc = pod_crc(crc, s->body[i], PAGE_SIZE);
	pod_header(&s->tally, header, POD_FRAME_PAGES, POD_CRITICAL, meta.len,
		   s->body_count * PAGE_SIZE, ~crc);
	put_unaligned_le32(~crc, s->trailer);
	s->head.len = 0;
	pod_put(&s->head, header, sizeof(header));
	pod_put(&s->head, meta.at, meta.len);
	s->head_at = 0;
	s->body_at = 0;
	s->body_off = 0;
	s->trailer_at = 0;
	error = s->head.error;
	pod_buf_free(&meta);
	return error;
}

/* The next run of wanted pages of the batch. 1: a frame is ready. */
static int next_run(struct pod_session *s, struct pod_pages *area)
{
	u64 address;
	int error;

	/* What was sent is let go. */
	while (s->run) {
		put_page(s->batch[s->batch_at++]);
		s->run--;
	}
	while (s->batch_at < s->batch_len &&
	       !is_wanted(area, s->batch[s->batch_at]))
		put_page(s->batch[s->batch_at++]);
	address = s->batch_base + ((u64)s->batch_at << PAGE_SHIFT);
	while (s->batch_at + s->run < s->batch_len) {
		struct page *page = s->batch[s->batch_at + s->run];

		if (!is_wanted(area, page))
			break;
		s->body[s->run++] = page_address(page);
	}
	s->body_count = s->run;
	if (!s->run)
		return 0;
	error = make_frame(s, "mm", area->mm, address);
	return error ?: 1;
}

static int next_private(struct pod_session *s)
{
	int got;

	while (s->area < s->area_count) {
		struct pod_pages *area = &s->areas[s->area];

		if (s->address < area->start)
			s->address = area->start;
		got = next_run(s, area);
		if (got)
			return got;
		got = fill_batch(s, area);
		if (got < 0)
			return got;
		if (!got) {
			pod_drop_pages(s);
			s->area++;
			s->address = 0;
		}
		cond_resched();
	}
	return 0;
}

static int read_segment(struct pod_session *s, struct file *file)
{
	loff_t size = i_size_read(file_inode(file)), at;
	ssize_t got;

	s->copy_at = 0;
	s->copy_len = 0;
	/* Not vfs_llseek(): before 6.0 such files are not said to have places. */
	at = file->f_op->llseek(file, s->address, SEEK_DATA);
	if (at == -ENXIO)
		return 0;
	if (at < 0)
		return at;
	s->address = at & PAGE_MASK;
	s->batch_base = s->address;
	while (s->copy_len < POD_MAX_DATA) {
		at = s->address;
		if (at >= size)
			break;
		got = kernel_read(file, s->copy + s->copy_len,
				  POD_MAX_DATA - s->copy_len, &at);
		if (got < 0)
			return got;
		if (!got)
			break;
		s->copy_len += got;
		s->address += got;
	}
	/* Behind its end a mapping shows zeros. */
	memset(s->copy + s->copy_len, 0,
	       ALIGN(s->copy_len, PAGE_SIZE) - s->copy_len);
	s->copy_len = ALIGN(s->copy_len, PAGE_SIZE);
	s->address = ALIGN(s->address, PAGE_SIZE);
	return s->copy_len ? 1 : 0;
}

static int next_shared(struct pod_session *s)
{
	int got;

	if (s->segment < s->segment_files.count && !s->copy) {
		s->copy = kvmalloc(POD_MAX_DATA, GFP_KERNEL_ACCOUNT);
		if (!s->copy)
			return -ENOMEM;
	}
	while (s->segment < s->segment_files.count) {
		while (s->copy_at < s->copy_len &&
		       is_zero(s->copy + s->copy_at))
			s->copy_at += PAGE_SIZE;
		if (s->copy_at < s->copy_len) {
			u64 address = s->batch_base + s->copy_at;

			s->body_count = 0;
			while (s->copy_at < s->copy_len &&
			       !is_zero(s->copy + s->copy_at)) {
				s->body[s->body_count++] = s->copy + s->copy_at;
				s->copy_at += PAGE_SIZE;
			}
			got = make_frame(s, "shm", s->segment, address);
			return got ?: 1;
		}
		got = read_segment(s, s->segment_files.at[s->segment]);
		if (got < 0)
			return pod_refuse(s, got, "look into the kernel's log",
					  "shared memory %u can't be read (%d)",
					  s->segment, got);
		if (!got) {
			s->segment++;
			s->address = 0;
		}
		cond_resched();
	}
	return 0;
}

/* Make the next frame of pages. 1: it is there, 0: there are no more */
ssize_t pod_read_pages(struct pod_session *s)
{
	int got = next_shared(s);

	return got ?: next_private(s);
}
