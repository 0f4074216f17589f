/*
 * Nothing but computing, in several threads: a hand-written loop keeps every general register busy with a value
 * that depends on all steps before, and checks that flags survive between the instruction that sets them and the
 * one that reads them. It makes no system call for long stretches, so a dump always finds it in the middle.
 * Build: -mno-red-zone
 */
#include "pod-test.h"

#define THREADS 3
#define STEPS 400000UL

struct state {
	uint64_t r[14]; /* rax rbx rcx rdx rsi rbp r8..r15 */
	uint64_t flag_errors;
};

/*
 * One step for every register: x = rotate(x, 7) * 5 + k, the registers chained. The flags: carry, zero, sign,
 * overflow, parity and direction are set by hand and read back some instructions later.
 */
__attribute__((noinline)) static void run_steps(struct state *state, uint64_t steps) {
	__asm__ volatile(
	    "push %%rbp\n"
	    "push %%rdi\n"
	    "push %%rsi\n" /* the count stays on the stack: every register is in use */
	    "mov 0(%%rdi), %%rax\n"
	    "mov 8(%%rdi), %%rbx\n"
	    "mov 16(%%rdi), %%rcx\n"
	    "mov 24(%%rdi), %%rdx\n"
	    "mov 32(%%rdi), %%rsi\n"
	    "mov 40(%%rdi), %%rbp\n"
	    "mov 48(%%rdi), %%r8\n"
	    "mov 56(%%rdi), %%r9\n"
	    "mov 64(%%rdi), %%r10\n"
	    "mov 72(%%rdi), %%r11\n"
	    "mov 80(%%rdi), %%r12\n"
	    "mov 88(%%rdi), %%r13\n"
	    "mov 96(%%rdi), %%r14\n"
	    "mov 104(%%rdi), %%r15\n"
	    "1:\n"
	    "rol $7, %%rax\n lea 1(%%rax,%%rax,4), %%rax\n xor %%rax, %%rbx\n"
	    "rol $7, %%rbx\n lea 2(%%rbx,%%rbx,4), %%rbx\n xor %%rbx, %%rcx\n"
	    "rol $7, %%rcx\n lea 3(%%rcx,%%rcx,4), %%rcx\n xor %%rcx, %%rdx\n"
	    "rol $7, %%rdx\n lea 4(%%rdx,%%rdx,4), %%rdx\n xor %%rdx, %%rsi\n"
	    "rol $7, %%rsi\n lea 5(%%rsi,%%rsi,4), %%rsi\n xor %%rsi, %%rbp\n"
	    "rol $7, %%rbp\n lea 6(%%rbp,%%rbp,4), %%rbp\n xor %%rbp, %%r8\n"
	    "rol $7, %%r8\n lea 7(%%r8,%%r8,4), %%r8\n xor %%r8, %%r9\n"
	    "rol $7, %%r9\n lea 8(%%r9,%%r9,4), %%r9\n xor %%r9, %%r10\n"
	    "rol $7, %%r10\n lea 9(%%r10,%%r10,4), %%r10\n xor %%r10, %%r11\n"
	    "rol $7, %%r11\n lea 10(%%r11,%%r11,4), %%r11\n xor %%r11, %%r12\n"
	    "rol $7, %%r12\n lea 11(%%r12,%%r12,4), %%r12\n xor %%r12, %%r13\n"
	    "rol $7, %%r13\n lea 12(%%r13,%%r13,4), %%r13\n xor %%r13, %%r14\n"
	    "rol $7, %%r14\n lea 13(%%r14,%%r14,4), %%r14\n xor %%r14, %%r15\n"
	    "rol $7, %%r15\n lea 14(%%r15,%%r15,4), %%r15\n xor %%r15, %%rax\n"
	    /* carry, zero and parity on, sign and overflow off, direction on; then moves, which touch no flag */
	    "std\n xor %%edi, %%edi\n stc\n"
	    "mov %%rax, %%rdi\n mov %%rdi, %%rax\n mov %%r15, %%rdi\n mov %%rdi, %%r15\n"
	    "mov %%rbx, %%rdi\n mov %%rdi, %%rbx\n mov %%r14, %%rdi\n mov %%rdi, %%r14\n"
	    "jnc 2f\n jnz 2f\n js 2f\n jo 2f\n jnp 2f\n"
	    "pushf\n pop %%rdi\n cld\n test $0x400, %%edi\n jz 3f\n"
	    /* the opposite: 0x7f + 1 in eight bits is sign and overflow */
	    "mov $0x7f, %%dil\n add $1, %%dil\n"
	    "mov %%rax, %%rdi\n mov %%rdi, %%rax\n mov %%r15, %%rdi\n mov %%rdi, %%r15\n"
	    "mov %%rbx, %%rdi\n mov %%rdi, %%rbx\n mov %%r14, %%rdi\n mov %%rdi, %%r14\n"
	    "jc 3f\n jz 3f\n jns 3f\n jno 3f\n"
	    "jmp 4f\n"
	    "2: cld\n"
	    "3: mov 8(%%rsp), %%rdi\n incq 112(%%rdi)\n"
	    "4: decq 0(%%rsp)\n jnz 1b\n"
	    "pop %%rdi\n"
	    "pop %%rdi\n"
	    "mov %%rax, 0(%%rdi)\n"
	    "mov %%rbx, 8(%%rdi)\n"
	    "mov %%rcx, 16(%%rdi)\n"
	    "mov %%rdx, 24(%%rdi)\n"
	    "mov %%rsi, 32(%%rdi)\n"
	    "mov %%rbp, 40(%%rdi)\n"
	    "mov %%r8, 48(%%rdi)\n"
	    "mov %%r9, 56(%%rdi)\n"
	    "mov %%r10, 64(%%rdi)\n"
	    "mov %%r11, 72(%%rdi)\n"
	    "mov %%r12, 80(%%rdi)\n"
	    "mov %%r13, 88(%%rdi)\n"
	    "mov %%r14, 96(%%rdi)\n"
	    "mov %%r15, 104(%%rdi)\n"
	    "pop %%rbp\n"
	    : "+D"(state), "+S"(steps)
	    :
	    : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}

/* The same in C. */
static void run_model(struct state *state, uint64_t steps) {
	while (steps--)
		for (int i = 0; i < 14; i++) {
			uint64_t x = state->r[i];
			x = (x << 7) | (x >> 57);
			x = x * 5 + (uint64_t)i + 1;
			state->r[i] = x;
			state->r[(i + 1) % 14] ^= x;
		}
}

static _Atomic bool over;
static _Atomic uint64_t rounds[THREADS];

static void *compute(void *argument) {
	size_t index = (size_t)argument;
	struct state start;
	for (uint64_t round = 0; !over; round++) {
		for (size_t i = 0; i < 14; i++) start.r[i] = pod_mix(index * 100 + round * 1000 + i);
		start.flag_errors = 0;
		struct state asm_state = start, model = start;
		run_steps(&asm_state, STEPS);
		if (pod_break("register") && index == 1 && round == 5) asm_state.r[11] ^= 1UL << 40;
		if (pod_break("flags") && index == 2 && round == 5) asm_state.flag_errors++;
		run_model(&model, STEPS);
		for (size_t i = 0; i < 14; i++)
			CHECKF(asm_state.r[i] == model.r[i], "thread %zu round %lu: register %zu is %lx, should be %lx", index,
			       round, i, asm_state.r[i], model.r[i]);
		EQUAL(asm_state.flag_errors, 0);
		rounds[index]++;
	}
	return NULL;
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++) EQUAL(pthread_create(&threads[i], NULL, compute, (void *)i), 0);
	for (size_t i = 0; i < THREADS; i++) EVENTUALLY(rounds[i] > 0);
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
