/*
 * A message without a byte at the head of a queue, where every look sees it: dumped as often as one likes.
 */
#include <stddef.h>

static const size_t sizes[] = { 0, 5, 7 };

#include "unix-empty.h"

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	fill_queues();
	pod_ready();
	if (pod_break("head")) take_messages(0, 1);
	if (pod_break("middle")) take_messages(1, 2);
	if (pod_break("one-more")) EQUAL(send(pairs[1][0], "", 0, 0), 0);
	while (pod_turn()) continue;
	check_queues();
	pod_pass();
}
