/*
 * Extended registers and segment bases: each thread loads values of its own into the x87 stack, the SSE and AVX
 * registers, MXCSR, PKRU (where the processor has them) and the registers that a system call keeps, then stays in a
 * spin or in a blocking system call, and finds them all again. FS and GS bases are checked from inside.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include "pod-test.h"

#define THREADS 6

struct __attribute__((aligned(64))) registers {
	uint8_t vector[16][32];
	uint64_t general[5]; /* rbx r12 r13 r14 r15 */
	uint8_t x87[108];    /* fsave image */
	uint32_t mxcsr, pkru;
};

static bool has_avx, has_pkru;

/* What the two threads of each kind do between load and store. */
enum activity { SPIN, SLEEP, FUTEX };

/*
 * Load everything, be busy, store everything. rdi = what to load, rsi = where to store, in between a spin of rdx
 * rounds or, with rcx >= 0, the system call rcx with arguments from the array r8.
 */
__attribute__((naked, noinline)) static long hold_sse(const struct registers *load __attribute__((unused)),
                                                      struct registers *store __attribute__((unused)),
                                                      uint64_t rounds __attribute__((unused)),
                                                      long call __attribute__((unused)),
                                                      const long *arguments __attribute__((unused))) {
#define EACH_VECTOR(ONE) ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) \
	ONE(8) ONE(9) ONE(10) ONE(11) ONE(12) ONE(13) ONE(14) ONE(15)
#define PROLOGUE                                                                                              \
	"push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"                                  \
	"push %rsi\n push %rdi\n" /* 8(%rsp) is store, 0(%rsp) is load */                                         \
	"frstor 552(%rdi)\n ldmxcsr 660(%rdi)\n"                                                                    \
	"mov %rdx, %rbp\n mov %rcx, %rax\n"                                                                         \
	"mov 512(%rdi), %rbx\n mov 520(%rdi), %r12\n mov 528(%rdi), %r13\n mov 536(%rdi), %r14\n"                   \
	"mov 544(%rdi), %r15\n"
/* A call that comes back early is told by its result; the registers must be right all the same. */
#define ACTIVITY                                                                                              \
	"test %rax, %rax\n js 1f\n"                                                                                 \
	"mov 0(%r8), %rdi\n mov 8(%r8), %rsi\n mov 16(%r8), %rdx\n mov 24(%r8), %r10\n mov 32(%r8), %r8\n xor %r9d, %r9d\n" \
	"syscall\n jmp 2f\n"                                                                                        \
	"1: pause\n dec %rbp\n jnz 1b\n xor %eax, %eax\n"                                                           \
	"2: mov 8(%rsp), %rsi\n"                                                                                    \
	"mov %rbx, 512(%rsi)\n mov %r12, 520(%rsi)\n mov %r13, 528(%rsi)\n mov %r14, 536(%rsi)\n"                   \
	"mov %r15, 544(%rsi)\n"
#define EPILOGUE                                                                                              \
	"stmxcsr 660(%rsi)\n fnsave 552(%rsi)\n"                                                                    \
	"fninit\n pushq $0x1f80\n ldmxcsr (%rsp)\n pop %rdi\n pop %rdi\n pop %rsi\n"                                \
	"pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
#define LOAD_SSE(n) "movdqa " #n "*32(%rdi), %xmm" #n "\n"
#define STORE_SSE(n) "movdqa %xmm" #n ", " #n "*32(%rsi)\n"
	__asm__(PROLOGUE EACH_VECTOR(LOAD_SSE) ACTIVITY EACH_VECTOR(STORE_SSE) EPILOGUE);
}

__attribute__((naked, noinline)) static long hold_avx(const struct registers *load __attribute__((unused)),
                                                      struct registers *store __attribute__((unused)),
                                                      uint64_t rounds __attribute__((unused)),
                                                      long call __attribute__((unused)),
                                                      const long *arguments __attribute__((unused))) {
#define LOAD_AVX(n) "vmovdqa " #n "*32(%rdi), %ymm" #n "\n"
#define STORE_AVX(n) "vmovdqa %ymm" #n ", " #n "*32(%rsi)\n"
	__asm__(PROLOGUE EACH_VECTOR(LOAD_AVX) ACTIVITY EACH_VECTOR(STORE_AVX) "vzeroupper\n" EPILOGUE);
}

static uint32_t read_pkru(void) {
	uint32_t low, high;
	__asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(low), "=d"(high) : "c"(0));
	return low;
}

static void write_pkru(uint32_t value) {
	__asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static void find_features(void) {
	unsigned a = 0, b = 0, c = 0, d = 0;
	__get_cpuid(1, &a, &b, &c, &d);
	if ((c & bit_OSXSAVE) && (c & bit_AVX)) {
		uint32_t low, high;
		__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
		has_avx = (low & 6) == 6;
	}
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) has_pkru = c & (1 << 4);
}

static void make_values(struct registers *values, uint64_t seed) {
	memset(values, 0, sizeof *values);
	pod_fill(values->vector, sizeof values->vector, seed);
	if (!has_avx)
		for (int i = 0; i < 16; i++) memset(values->vector[i] + 16, 0, 16);
	pod_fill(values->general, sizeof values->general, seed + 1000);
	/* An empty x87, then eight numbers, round down and single precision where the seed says so. */
	uint16_t *x87 = (uint16_t *)values->x87;
	static const uint16_t modes[] = { 0x037f, 0x077f, 0x0b7f, 0x0c7f, 0x027f, 0x037f };
	x87[0] = modes[seed % COUNT(modes)];
	x87[4] = 0; /* tags: all valid */
	for (int i = 0; i < 8; i++) {
		uint8_t *number = values->x87 + 28 + i * 10;
		uint64_t mantissa = pod_mix(seed + (uint64_t)i) | 1UL << 63;
		uint16_t exponent = (uint16_t)(0x3fff + i + (seed & 7));
		memcpy(number, &mantissa, 8);
		memcpy(number + 8, &exponent, 2);
	}
	static const uint32_t controls[] = { 0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0 };
	values->mxcsr = controls[seed % COUNT(controls)];
	/* Key 0 stays allowed: it is what all memory has. */
	values->pkru = 0x55555554 & ~(3u << (2 * (seed % 7 + 1)));
}

static _Atomic bool over;
static _Atomic uint64_t rounds[THREADS];
static uint32_t futex_word = 7;

static void check_same(const struct registers *found, const struct registers *expected, size_t index) {
	for (size_t i = 0; i < 16; i++)
		CHECKF(memcmp(found->vector[i], expected->vector[i], has_avx ? 32 : 16) == 0, "thread %zu: %cmm%zu changed", index,
		       has_avx ? 'y' : 'x', i);
	for (size_t i = 0; i < 5; i++)
		CHECKF(found->general[i] == expected->general[i], "thread %zu: general register %zu changed", index, i);
	EQUAL(*(uint16_t *)found->x87, *(uint16_t *)expected->x87);
	CHECKF(memcmp(found->x87 + 28, expected->x87 + 28, 80) == 0, "thread %zu: an x87 register changed", index);
	/* Sticky exception flags may come up, the control bits may not change. */
	EQUAL(found->mxcsr & ~0x3fu, expected->mxcsr & ~0x3fu);
}

static _Thread_local uint64_t thread_local_value;

static void *run(void *argument) {
	size_t index = (size_t)argument;
	enum activity activity = index % 3;
	static uint64_t gs_block[THREADS][8];
	gs_block[index][0] = pod_mix(index);
	EQUAL(syscall(SYS_arch_prctl, ARCH_SET_GS, gs_block[index]), 0);
	unsigned long fs_base;
	EQUAL(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_base), 0);
	thread_local_value = index + 5;
	struct registers values, found;
	for (uint64_t round = 0; !over; round++) {
		make_values(&values, index * 1000 + (index == 5 ? 0 : round));
		/* One thread with every register in its initial state. */
		if (index == 5) memset(values.vector, 0, sizeof values.vector), values.mxcsr = 0x1f80;
		memset(&found, 0xee, sizeof found);
		if (has_pkru) write_pkru(values.pkru);
		struct timespec rest = { .tv_nsec = 30 * MILLISECOND };
		long sleep_arguments[5] = { (long)&rest, 0 };
		long futex_arguments[5] = { (long)&futex_word, 0 /* FUTEX_WAIT */, 7, (long)&rest };
		long result = (has_avx ? hold_avx : hold_sse)(
		    &values, &found, 300000, activity == SLEEP ? SYS_nanosleep : activity == FUTEX ? SYS_futex : -1,
		    activity == FUTEX ? futex_arguments : sleep_arguments);
		uint32_t pkru = has_pkru ? read_pkru() : values.pkru;
		EQUAL(result, activity == FUTEX ? -ETIMEDOUT : 0);
		if (round == 5 && index == 1) {
			if (pod_break("vector")) found.vector[9][3] ^= 1;
			if (pod_break("x87")) found.x87[40] ^= 1;
			if (pod_break("mxcsr")) found.mxcsr ^= 0x8000;
			if (pod_break("general")) found.general[2] ^= 1;
			if (pod_break("pkru")) pkru ^= has_pkru ? 1u << 4 : 1;
			if (pod_break("gs")) CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, gs_block[0]) == 0);
			if (pod_break("call-result")) result = -EINTR;
			EQUAL(result, 0);
		}
		check_same(&found, &values, index);
		EQUAL(pkru, values.pkru);
		uint64_t through_gs;
		__asm__ volatile("mov %%gs:0, %0" : "=r"(through_gs));
		CHECKF(through_gs == gs_block[index][0], "thread %zu: the gs base changed", index);
		unsigned long base;
		EQUAL(syscall(SYS_arch_prctl, ARCH_GET_FS, &base), 0);
		CHECKF(base == fs_base, "thread %zu: the fs base changed", index);
		EQUAL(thread_local_value, index + 5);
		rounds[index]++;
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	find_features();
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++) EQUAL(pthread_create(&threads[i], NULL, run, (void *)i), 0);
	for (size_t i = 0; i < THREADS; i++) EVENTUALLY(rounds[i] > 6);
	pod_ready();
	while (pod_turn()) continue;
	for (size_t i = 0; i < THREADS; i++) {
		uint64_t before = rounds[i];
		EVENTUALLY(rounds[i] > before + 5);
	}
	over = true;
	for (size_t i = 0; i < THREADS; i++) EQUAL(pthread_join(threads[i], NULL), 0);
	pod_pass();
}
