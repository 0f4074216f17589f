// SPDX-License-Identifier: GPL-2.0
/*
 * The CRC of the stream, which runs over every byte of a session's memory.
 *
 * From Linux 6.14 on crc32_le() uses what the processor has for it. Before, it
 * goes through tables, and the processor's way (PCLMULQDQ) can only be had as
 * a hash of the crypto API. It is asked for by the name of its driver, so that
 * there is that one or none, and it is tried before it is believed: a wrong
 * sum would make every image a damaged one. Where there is none, and for what
 * is short, crc32_le() serves.
 */
#include <linux/crc32.h>
#include <linux/version.h>
#include "encode.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
#include <crypto/hash.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/printk.h>

/* Below this the way to it costs more than it saves. */
#define LONG_ENOUGH 256

static struct crypto_shash *processor;

/* Its state is the running CRC and nothing else. */
static bool by_processor(struct crypto_shash *tfm, u32 *running,
			 const void *from, size_t len)
{
	SHASH_DESC_ON_STACK(desc, tfm);
	u32 crc = *running;

	desc->tfm = tfm;
	if (crypto_shash_import(desc, &crc) ||
	    crypto_shash_update(desc, from, len) ||
	    crypto_shash_export(desc, &crc))
		return false;
	*running = crc;
	return true;
}

static bool is_right(struct crypto_shash *tfm)
{
	u8 *some = (u8 *)__get_free_page(GFP_KERNEL);
	u32 running = ~0, i;
	bool right;

	if (!some)
		return false;
	for (i = 0; i < PAGE_SIZE; i++)
		some[i] = i * i >> 3;
	/* A page, as almost always; and what no block of it fits into. */
	right = by_processor(tfm, &running, some, PAGE_SIZE) &&
		running == crc32_le(~0, some, PAGE_SIZE) &&
		by_processor(tfm, &running, some + 3, PAGE_SIZE - 10) &&
		running == crc32_le(crc32_le(~0, some, PAGE_SIZE), some + 3,
				    PAGE_SIZE - 10);
	free_page((unsigned long)some);
	return right;
}

void pod_crc_begin(void)
{
	struct crypto_shash *tfm = crypto_alloc_shash("crc32-pclmul", 0, 0);

	if (IS_ERR(tfm))
		return;
	if (crypto_shash_statesize(tfm) == sizeof(u32) && is_right(tfm)) {
		processor = tfm;
		return;
	}
	pr_warn("pod: crc32-pclmul is not used, as it does not give CRC-32\n");
	crypto_free_shash(tfm);
}

void pod_crc_end(void)
{
	if (processor)
		crypto_free_shash(processor);
}

u32 pod_crc(u32 running, const void *from, size_t len)
{
	if (processor && len >= LONG_ENOUGH &&
	    by_processor(processor, &running, from, len))
		return running;
	return crc32_le(running, from, len);
}
#else
void pod_crc_begin(void)
{
}

void pod_crc_end(void)
{
}

u32 pod_crc(u32 running, const void *from, size_t len)
{
	return crc32_le(running, from, len);
}
#endif
