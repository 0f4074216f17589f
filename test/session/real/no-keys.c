/* For programs that take memory protection keys where the processor has them, which a dump refuses: there are none. */
#include <errno.h>

int pkey_alloc(unsigned flags, unsigned rights) {
	(void)flags;
	(void)rights;
	errno = ENOSYS;
	return -1;
}
