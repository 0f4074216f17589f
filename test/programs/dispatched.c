/*
 * System calls that a thread hands to a handler of its own, as Wine does: refused.
 *
 * Since: 5.11
 */
#include "pod-test.h"

#define DISPATCH 59

static volatile char selector;

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	EQUAL(prctl(DISPATCH, 1, 0, 0, &selector), 0);
	pod_ready();
	if (pod_break("dispatch")) prctl(DISPATCH, 0, 0, 0, 0), selector = 1;
	while (pod_turn()) continue;
	EQUAL(selector, 0);
	pod_pass();
}
