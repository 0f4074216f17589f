/* SPDX-License-Identifier: GPL-2.0 */
/* MessagePack and the frames of docs/format.md, into memory. */
#ifndef POD_ENCODE_H
#define POD_ENCODE_H

#include <linux/types.h>

/* Bytes that grow. An error sticks: what is put behind it is not kept. */
struct pod_buf {
	u8 *at;
	size_t len, room;
	int error;
};

void pod_buf_free(struct pod_buf *b);
void pod_put(struct pod_buf *b, const void *from, size_t len);

void pod_array(struct pod_buf *b, u32 count);
void pod_bool(struct pod_buf *b, bool value);
/* In the shortest form. */
void pod_int(struct pod_buf *b, s64 value);
/* A field that docs/records.md marks 64-bit. */
void pod_u64(struct pod_buf *b, u64 value);
void pod_s64(struct pod_buf *b, s64 value);
void pod_bin(struct pod_buf *b, const void *from, size_t len);
/* What is not UTF-8 in it becomes '?'. */
void pod_str(struct pod_buf *b, const char *text);
void pod_strn(struct pod_buf *b, const char *text, size_t len);
bool pod_is_utf8(const char *text, size_t len);

/*
 * A map or array whose number of entries shows only while it is made. Each
 * field, or element, is counted in what pod_open() gave; then it is closed.
 */
struct pod_open {
	size_t at;
	u32 count;
};

struct pod_open pod_open(struct pod_buf *b);
void pod_close_map(struct pod_buf *b, struct pod_open open);
void pod_close_array(struct pod_buf *b, struct pod_open open);

void pod_field(struct pod_buf *b, struct pod_open *o, const char *key);
#define POD_INT(b, o, key, value) (pod_field(b, o, key), pod_int(b, value))
#define POD_U64(b, o, key, value) (pod_field(b, o, key), pod_u64(b, value))
#define POD_S64(b, o, key, value) (pod_field(b, o, key), pod_s64(b, value))
#define POD_BOOL(b, o, key, value) (pod_field(b, o, key), pod_bool(b, value))
#define POD_STR(b, o, key, value) (pod_field(b, o, key), pod_str(b, value))
#define POD_BIN(b, o, key, value, len) \
	(pod_field(b, o, key), pod_bin(b, value, len))

#define POD_HEADER	16
#define POD_TRAILER	4
#define POD_MAX_META	65535
#define POD_MAX_DATA	(1u << 20)
#define POD_CRITICAL	1

/* Runs along a stream for its END. */
struct pod_tally {
	u64 frames, bytes;
	u32 crc;		/* inverted, as it runs */
};

/* crc.c */
void pod_crc_begin(void);
void pod_crc_end(void);
u32 pod_crc(u32 running, const void *from, size_t len);

/* The header of the next frame of a stream, which is then counted. */
void pod_header(struct pod_tally *t, u8 *header, u8 kind, u8 flags,
		u32 meta_len, u32 data_len, u32 body_crc);

/* A frame whose header is made by pod_number() when its place is known. */
void pod_frame(struct pod_buf *b, u8 kind, u8 flags, const struct pod_buf *meta,
	       const void *data, size_t len);
/* Give all frames in b their headers. */
void pod_number(struct pod_tally *t, struct pod_buf *b);

void pod_preamble(struct pod_tally *t, struct pod_buf *b);
void pod_end(struct pod_tally *t, struct pod_buf *b);

#endif
