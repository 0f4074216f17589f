/*
 * A message without a byte at the head of a queue, where every look sees it: dumped as often as one likes.
 */
#include <stddef.h>

static const size_t sizes[] = { 0, 5, 7 };

#include "unix-empty.h"
