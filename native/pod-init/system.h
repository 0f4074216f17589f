/*
 * System calls and the few string functions pod-init needs, without a C library.
 *
 * pod-init is the process out of which a restart forks the whole session, so it must carry nothing a session
 * could trip over: no TLS block, no registered rseq area or robust list, no clear_child_tid, no heap. A C library
 * brings all of them before main() runs. Calls return -errno, as the kernel does.
 */
#ifndef POD_INIT_SYSTEM_H
#define POD_INIT_SYSTEM_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef __x86_64__
#error "pod-init knows the system call convention of x86_64 only"
#endif

static inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* sys(NAME, arguments…): pointers and integers alike, missing arguments are 0. */
#define SYS_PICK(name, a, b, c, d, e, f, ...) \
  call6(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define sys(...) SYS_PICK(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline size_t length_of(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

static inline int same(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

static inline int starts_with(const char *text, const char *prefix) {
  while (*prefix && *text == *prefix) text++, prefix++;
  return *prefix == 0;
}

/* The compiler may ask for these by name; they live in setup.c. */
void *memcpy(void *target, const void *source, size_t length);
void *memset(void *target, int value, size_t length);

/* A line of text being put together; what does not fit is cut. */
struct text {
  size_t length;
  char bytes[4352];
};

static inline void add(struct text *text, const char *more) {
  while (*more && text->length < sizeof text->bytes - 1) text->bytes[text->length++] = *more++;
  text->bytes[text->length] = 0;
}

static inline void add_number(struct text *text, long value) {
  char digits[24];
  size_t at = sizeof digits;
  unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + rest % 10);
  while (rest /= 10);
  if (value < 0) digits[--at] = '-';
  add(text, digits + at);
}

/* Decimal digits up to the first other character; `*end` is put behind them. */
static inline long read_number(const char *text, const char **end) {
  long value = 0;
  while (*text >= '0' && *text <= '9' && value < 1L << 40) value = value * 10 + (*text++ - '0');
  if (end) *end = text;
  return value;
}

#endif
