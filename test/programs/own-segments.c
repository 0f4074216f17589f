/* Segments of its own (modify_ldt), as emulators of other systems have: refused. */
#include <asm/ldt.h>
#include "pod-test.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	struct user_desc segment = { .entry_number = 3, .base_addr = 0x1000, .limit = 15, .seg_32bit = 1 };
	EQUAL(syscall(SYS_modify_ldt, 1, &segment, sizeof segment), 0);
	pod_ready();
	if (pod_break("segment")) {
		segment.limit = 31;
		EQUAL(syscall(SYS_modify_ldt, 1, &segment, sizeof segment), 0);
	}
	while (pod_turn()) continue;
	uint32_t limit;
	unsigned char right;
	__asm__("lsl %2, %0; setz %1" : "=r"(limit), "=r"(right) : "r"(3 << 3 | 7) : "cc");
	EQUAL(right, 1);
	EQUAL(limit, 15);
	pod_pass();
}
