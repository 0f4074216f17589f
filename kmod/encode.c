// SPDX-License-Identifier: GPL-2.0
/* MessagePack and the frames of docs/format.md, into memory. */
#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "compat.h"
#include "encode.h"
#include "kinds.h"

/* Records of a session of some hundred processes are a few MiB. */
#define MOST_BYTES (256u << 20)

void pod_buf_free(struct pod_buf *b)
{
	kvfree(b->at);
	memset(b, 0, sizeof(*b));
}

static u8 *grow(struct pod_buf *b, size_t len)
{
	u8 *bigger;
	size_t room;

	if (b->error)
		return NULL;
	if (len > MOST_BYTES - b->len) {
		b->error = -EFBIG;
		return NULL;
	}
	if (b->len + len > b->room) {
		room = max_t(size_t, b->len + len, b->room * 2 + 256);
		bigger = kvmalloc(room, GFP_KERNEL_ACCOUNT);
		if (!bigger) {
			b->error = -ENOMEM;
			return NULL;
		}
		if (b->len)
			memcpy(bigger, b->at, b->len);
		kvfree(b->at);
		b->at = bigger;
		b->room = room;
	}
	b->len += len;
	return b->at + b->len - len;
}

void pod_put(struct pod_buf *b, const void *from, size_t len)
{
	u8 *to = grow(b, len);

	if (to && len)
		memcpy(to, from, len);
}

static void put_head(struct pod_buf *b, u8 tag, u64 value, int bytes)
{
	u8 *to = grow(b, 1 + bytes);

	if (!to)
		return;
	*to++ = tag;
	if (bytes == 1)
		*to = value;
	else if (bytes == 2)
		put_unaligned_be16(value, to);
	else if (bytes == 4)
		put_unaligned_be32(value, to);
	else if (bytes == 8)
		put_unaligned_be64(value, to);
}

void pod_array(struct pod_buf *b, u32 count)
{
	if (count < 16)
		put_head(b, 0x90 | count, 0, 0);
	else if (count <= U16_MAX)
		put_head(b, 0xdc, count, 2);
	else
		put_head(b, 0xdd, count, 4);
}

void pod_bool(struct pod_buf *b, bool value)
{
	put_head(b, value ? 0xc3 : 0xc2, 0, 0);
}

void pod_int(struct pod_buf *b, s64 value)
{
	if (value >= 0) {
		if (value < 0x80)
			put_head(b, value, 0, 0);
		else if (value <= U8_MAX)
			put_head(b, 0xcc, value, 1);
		else if (value <= U16_MAX)
			put_head(b, 0xcd, value, 2);
		else if (value <= U32_MAX)
			put_head(b, 0xce, value, 4);
		else
			put_head(b, 0xcf, value, 8);
	} else if (value >= -32) {
		put_head(b, value, 0, 0);
	} else if (value >= S8_MIN) {
		put_head(b, 0xd0, value, 1);
	} else if (value >= S16_MIN) {
		put_head(b, 0xd1, value, 2);
	} else if (value >= S32_MIN) {
		put_head(b, 0xd2, value, 4);
	} else {
		put_head(b, 0xd3, value, 8);
	}
}

void pod_u64(struct pod_buf *b, u64 value)
{
	put_head(b, value > S64_MAX ? 0xcf : 0xd3, value, 8);
}

void pod_s64(struct pod_buf *b, s64 value)
{
	put_head(b, 0xd3, value, 8);
}

void pod_bin(struct pod_buf *b, const void *from, size_t len)
{
	if (len <= U8_MAX)
		put_head(b, 0xc4, len, 1);
	else if (len <= U16_MAX)
		put_head(b, 0xc5, len, 2);
	else
		put_head(b, 0xc6, len, 4);
	pod_put(b, from, len);
}

/* Length of the UTF-8 sequence at text; 0 when there is none. */
static size_t sequence(const u8 *text, size_t len)
{
	u32 value, least;
	size_t n, i;

	if (text[0] < 0x80)
		return 1;
	if (text[0] < 0xc2 || text[0] > 0xf4)
		return 0;
	n = text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
	if (len < n)
		return 0;
	value = text[0] & (0x7f >> n);
	for (i = 1; i < n; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (text[i] & 0x3f);
	}
	least = n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000;
	if (value < least || value > 0x10ffff ||
	    (value >= 0xd800 && value < 0xe000))
		return 0;
	return n;
}

bool pod_is_utf8(const char *text, size_t len)
{
	size_t at, n;

	for (at = 0; at < len; at += n) {
		n = sequence((const u8 *)text + at, len - at);
		if (!n)
			return false;
	}
	return true;
}

void pod_strn(struct pod_buf *b, const char *text, size_t len)
{
	size_t at, n, i;
	u8 *to;

	if (len < 32)
		put_head(b, 0xa0 | len, 0, 0);
	else if (len <= U8_MAX)
		put_head(b, 0xd9, len, 1);
	else
		put_head(b, 0xda, len, 2);
	to = grow(b, len);
	if (!to)
		return;
	for (at = 0; at < len; at += n) {
		n = sequence((const u8 *)text + at, len - at);
		if (!n) {
			to[at] = '?';
			n = 1;
			continue;
		}
		for (i = 0; i < n; i++)
			to[at + i] = text[at + i];
	}
}

void pod_str(struct pod_buf *b, const char *text)
{
	pod_strn(b, text, strlen(text));
}

void pod_field(struct pod_buf *b, struct pod_open *o, const char *key)
{
	o->count++;
	pod_str(b, key);
}

/* The longest head of a container is kept free and closed up at the end. */
#define LONGEST_HEAD 3

struct pod_open pod_open(struct pod_buf *b)
{
	struct pod_open open = { .at = b->len };

	grow(b, LONGEST_HEAD);
	return open;
}

static void close_with(struct pod_buf *b, struct pod_open open, u8 small,
		       u8 large)
{
	u8 *head = b->at + open.at;

	if (b->error)
		return;
	if (WARN_ON_ONCE(open.count > U16_MAX)) {
		b->error = -EOVERFLOW;
	} else if (open.count < 16) {
		head[0] = small | open.count;
		memmove(head + 1, head + LONGEST_HEAD,
			b->len - open.at - LONGEST_HEAD);
		b->len -= LONGEST_HEAD - 1;
	} else {
		head[0] = large;
		put_unaligned_be16(open.count, head + 1);
	}
}

void pod_close_map(struct pod_buf *b, struct pod_open open)
{
	close_with(b, open, 0x80, 0xde);
}

void pod_close_array(struct pod_buf *b, struct pod_open open)
{
	close_with(b, open, 0x90, 0xdc);
}

void pod_header(struct pod_tally *t, u8 *header, u8 kind, u8 flags,
		u32 meta_len, u32 data_len, u32 body_crc)
{
	u8 both[8];

	header[0] = kind;
	header[1] = flags;
	put_unaligned_le16(meta_len, header + 2);
	put_unaligned_le32(data_len, header + 4);
	put_unaligned_le32(t->frames, header + 8);
	put_unaligned_le32(~pod_crc(~0, header, 12), header + 12);
	memcpy(both, header + 12, 4);
	put_unaligned_le32(body_crc, both + 4);
	t->crc = pod_crc(t->crc, both, 8);
	t->frames++;
	t->bytes += POD_HEADER + meta_len + (u64)data_len + POD_TRAILER;
}

void pod_frame(struct pod_buf *b, u8 kind, u8 flags, const struct pod_buf *meta,
	       const void *data, size_t len)
{
	u8 *to;

	if (meta->error && !b->error)
		b->error = meta->error;
	if (meta->len > POD_MAX_META || len > POD_MAX_DATA) {
		if (!b->error)
			b->error = -EMSGSIZE;
		return;
	}
	to = grow(b, POD_HEADER + meta->len + len + POD_TRAILER);
	if (!to)
		return;
	memset(to, 0, POD_HEADER);
	to[0] = kind;
	to[1] = flags;
	put_unaligned_le16(meta->len, to + 2);
	put_unaligned_le32(len, to + 4);
	to += POD_HEADER;
	memcpy(to, meta->at, meta->len);
	if (len)
		memcpy(to + meta->len, data, len);
	put_unaligned_le32(~pod_crc(~0, to, meta->len + len),
			   to + meta->len + len);
}

void pod_number(struct pod_tally *t, struct pod_buf *b)
{
	size_t at = 0;

	if (b->error)
		return;
	while (at < b->len) {
		u8 *frame = b->at + at;
		u32 meta_len = get_unaligned_le16(frame + 2);
		u32 data_len = get_unaligned_le32(frame + 4);
		size_t body = POD_HEADER + meta_len + data_len;

		pod_header(t, frame, frame[0], frame[1], meta_len, data_len,
			   get_unaligned_le32(frame + body));
		at += body + POD_TRAILER;
	}
}

void pod_preamble(struct pod_tally *t, struct pod_buf *b)
{
	static const u8 preamble[16] = {
		0x89, 'P', 'O', 'D', '\r', '\n', 0x1a, '\n', 1,
	};

	t->frames = 0;
	t->bytes = sizeof(preamble);
	t->crc = ~0;
	pod_put(b, preamble, sizeof(preamble));
}

void pod_end(struct pod_tally *t, struct pod_buf *b)
{
	struct pod_buf meta = {};
	struct pod_buf frame = {};
	struct pod_open o = pod_open(&meta);

	POD_U64(&meta, &o, "frames", t->frames);
	POD_U64(&meta, &o, "bytes", t->bytes);
	POD_INT(&meta, &o, "crc", (u32)~t->crc);
	pod_close_map(&meta, o);
	pod_frame(&frame, POD_FRAME_END, POD_CRITICAL, &meta, NULL, 0);
	pod_number(t, &frame);
	if (frame.error)
		b->error = frame.error;
	else
		pod_put(b, frame.at, frame.len);
	pod_buf_free(&meta);
	pod_buf_free(&frame);
}
