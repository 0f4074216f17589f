// SPDX-License-Identifier: GPL-2.0
/*
 * The vdso: where a task has it, what tells it from another kernel's, and its
 * functions. Its bytes are read from the task, which may have changed its own
 * copy, so nothing in them is believed.
 */
#include <linux/elf.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <asm/vdso.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
#include <crypto/sha2.h>
#else
#include <crypto/sha.h>
#endif
#include "session.h"

#define MOST_FUNCTIONS 64
#define MOST_BYTES (256u << 10)

static bool find(struct mm_struct *mm, u64 *start, u64 *size)
{
	if (!mm || !mm->context.vdso || !mm->context.vdso_image)
		return false;
	*start = (__force u64)mm->context.vdso;
	*size = mm->context.vdso_image->size;
	return true;
}

bool pod_in_vdso(struct task_struct *t, unsigned long address)
{
	u64 start, size;

	return find(t->mm, &start, &size) && address - start < size;
}

static void put_functions(struct pod_buf *b, struct pod_open *o, const u8 *at,
			  u64 size)
{
	const Elf64_Ehdr *head = (const Elf64_Ehdr *)at;
	u64 strings = 0, symbols = 0, place, where, end;
	struct pod_open list, function;
	u32 i, k, len, room;

	pod_field(b, o, "functions");
	list = pod_open(b);
	for (i = 0; i < head->e_phnum; i++) {
		const Elf64_Phdr *part;

		place = head->e_phoff + (u64)i * sizeof(*part);
		if (place > size - sizeof(*part) || (place & 7))
			break;
		part = (const Elf64_Phdr *)(at + place);
		if (part->p_type != PT_DYNAMIC)
			continue;
		for (k = 0; k < 64; k++) {
			const Elf64_Dyn *entry;

			where = part->p_vaddr + k * sizeof(*entry);
			if (where > size - sizeof(*entry) || (where & 7))
				break;
			entry = (const Elf64_Dyn *)(at + where);
			if (entry->d_tag == DT_NULL)
				break;
			if (entry->d_tag == DT_STRTAB)
				strings = entry->d_un.d_ptr;
			if (entry->d_tag == DT_SYMTAB)
				symbols = entry->d_un.d_ptr;
		}
	}
	/* The linker puts the names right behind the symbols. */
	end = min(strings, size);
	if (symbols & 7)
		end = 0;
	for (place = symbols; symbols && place < end &&
	     end - place >= sizeof(Elf64_Sym) && list.count < MOST_FUNCTIONS;
	     place += sizeof(Elf64_Sym)) {
		const Elf64_Sym *symbol = (const Elf64_Sym *)(at + place);

		if (ELF_ST_TYPE(symbol->st_info) != STT_FUNC ||
		    !symbol->st_value || symbol->st_value > 1u << 20)
			continue;
		where = strings + symbol->st_name;
		if (where >= size)
			continue;
		room = min_t(u64, size - where, 64);
		len = strnlen(at + where, room);
		function = pod_open(b);
		pod_field(b, &function, "name");
		pod_strn(b, at + where, len);
		POD_INT(b, &function, "offset", symbol->st_value);
		pod_close_map(b, function);
		list.count++;
	}
	pod_close_array(b, list);
}

/* vdso of MM, when there is one; vvar…vvar_end is where its data lie. */
int pod_put_vdso(struct pod_session *s, struct pod_buf *b, struct pod_open *o,
		 struct task_struct *t, u64 vvar, u64 vvar_end)
{
	u8 digest[32];
	struct pod_open v;
	u64 start, size;
	u8 *bytes;

	if (!find(t->mm, &start, &size))
		return 0;
	if (size < sizeof(Elf64_Ehdr) || size > MOST_BYTES)
		return -EINVAL;
	bytes = kvmalloc(size, GFP_KERNEL_ACCOUNT);
	if (!bytes)
		return -ENOMEM;
	if (access_process_vm(t, start, bytes, size, FOLL_FORCE) != size) {
		kvfree(bytes);
		return pod_refuse_task(s, t, -EFAULT, "",
				       "its vdso can't be read");
	}
	sha256(bytes, size, digest);
	pod_field(b, o, "vdso");
	v = pod_open(b);
	POD_BIN(b, &v, "digest", digest, sizeof(digest));
	put_functions(b, &v, bytes, size);
	POD_U64(b, &v, "start", start);
	POD_U64(b, &v, "size", size);
	POD_U64(b, &v, "vvarStart", vvar_end ? vvar : start);
	POD_U64(b, &v, "vvarSize", vvar_end ? vvar_end - vvar : 0);
	pod_close_map(b, v);
	kvfree(bytes);
	return 0;
}
