/* Fills 200 MB with numbers that follow from a seed, and goes over them again and again: every byte of a large
 * memory must be the same after a restart as before.
 *
 *     cc -O2 -o rehash examples/rehash.c && ./rehash [MEGABYTES [ROUNDS]]
 *
 * Each round changes one page and compares every word of the memory with what it must hold by now. Wrong:
 * `rehash: WRONG: ...`, status 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* The last round up to `round` that changed page `page`: round r changes page (r - 1) % pages. 0: none. */
static uint64_t changed_in(uint64_t page, uint64_t round, uint64_t pages)
{
	return round < page + 1 ? 0 : round - (round - 1 - page) % pages;
}

static uint64_t word_of(uint64_t index, uint64_t changed)
{
	return mix(index * 31 + changed);
}

int main(int argc, char **argv)
{
	uint64_t megabytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 200;
	uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	uint64_t pages = megabytes * 256;
	uint64_t words = pages * 512;
	uint64_t *memory = malloc(words * sizeof *memory);
	struct timespec last = { 0, 0 };

	if (!memory || megabytes == 0) {
		fprintf(stderr, "rehash: error: no memory\n");
		return 2;
	}
	for (uint64_t i = 0; i < words; i++)
		memory[i] = word_of(i, 0);
	for (uint64_t round = 1; rounds == 0 || round <= rounds; round++) {
		uint64_t page = (round - 1) % pages;
		struct timespec now;

		for (uint64_t i = page * 512; i < page * 512 + 512; i++)
			memory[i] = word_of(i, round);
		for (uint64_t p = 0; p < pages; p++) {
			uint64_t changed = changed_in(p, round, pages);

			for (uint64_t i = p * 512; i < p * 512 + 512; i++) {
				if (memory[i] == word_of(i, changed))
					continue;
				printf("rehash: WRONG: word %" PRIu64 " in round %" PRIu64 "\n", i, round);
				return 1;
			}
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec)) {
			printf("rehash: WRONG: the clock went back in round %" PRIu64 "\n", round);
			return 1;
		}
		last = now;
		printf("round %" PRIu64 " of %" PRIu64 " MB right, pid %d\n", round, megabytes, (int)getpid());
		fflush(stdout);
		usleep(50000);
	}
	printf("rehash: done\n");
	free(memory);
	return 0;
}
