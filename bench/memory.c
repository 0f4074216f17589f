/*
 * A process of a given size, to be dumped and restarted; and the limit a restart is measured by.
 *
 *     memory hold MIB FILE [noise]   fill MIB of memory, then sit there, counting its own heartbeats
 *     memory fault MIB               map MIB, write a word into each page, print the nanoseconds that took
 *     memory fill MIB                the same, but copy a page into each
 *
 * The contents of `hold` go by blocks of 64 KiB, as heaps do: words (2 in 5), tables of counters and pointers (1 in
 * 5), noise (1 in 5), zeros that were written (1 in 5; an image leaves these out). With `noise` a block is noise or
 * counters by turns and nothing is zero: as many bytes in the image as in memory.
 *
 * `hold` writes the address of struct beat, and that of its memory, into FILE. The bench reads and resets it from outside, so that nothing has to be
 * said to the program: the longest gap between two beats is the time the session stood still.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 65536
#define PAGE 4096

struct beat {
	volatile uint64_t count, longest_gap_ns;
};

static uint64_t state = 88172645463325252ULL;

static uint64_t random_word(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

/* Words of a made-up language of 4096, the frequent ones more often. */
static void fill_words(char *block)
{
	static char word[4096][12];
	size_t at = 0;

	if (!word[0][0])
		for (int i = 0; i < 4096; i++) {
			int length = 2 + random_word() % 8;

			for (int j = 0; j < length; j++)
				word[i][j] = 'a' + random_word() % 26;
		}
	while (at < BLOCK) {
		uint64_t dice = random_word();
		const char *next = word[(dice & 0xfff) >> (dice >> 12 & 7)];
		size_t length = strlen(next);

		if (length > BLOCK - at)
			length = BLOCK - at;
		memcpy(block + at, next, length);
		at += length;
		if (at < BLOCK)
			block[at++] = (dice >> 20) % 12 ? ' ' : '\n';
	}
}

static void fill_table(uint64_t *block)
{
	for (size_t i = 0; i < BLOCK / 8; i += 4) {
		block[i] = i;
		block[i + 1] = 0x00007f3a00000000ULL + (random_word() & 0xfffff0);
		block[i + 2] = random_word() & 0xff;
		block[i + 3] = 0;
	}
}

static void fill_noise(uint64_t *block)
{
	for (size_t i = 0; i < BLOCK / 8; i++)
		block[i] = random_word();
}

static void *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("memory: mmap");
		exit(1);
	}
	return memory;
}

static void hold(size_t size, const char *path, int noise)
{
	char *memory = map(size);
	struct beat *beat = map(PAGE);
	uint64_t last;
	FILE *file;

	for (size_t at = 0, block = 0; at < size; at += BLOCK, block++) {
		unsigned kind = noise ? (block % 2 ? 3 : 2) : block % 5;

		if (kind < 2)
			fill_words(memory + at);
		else if (kind == 2)
			fill_table((uint64_t *)(memory + at));
		else if (kind == 3)
			fill_noise((uint64_t *)(memory + at));
		else
			memset(memory + at, 0, BLOCK);
	}
	file = fopen(path, "w");
	if (!file || fprintf(file, "%p %p\n", (void *)beat, (void *)memory) < 0 || fclose(file)) {
		perror("memory: the file");
		exit(1);
	}
	last = now();
	for (;;) {
		struct timespec nap = { .tv_nsec = 500000 };
		uint64_t gap, time;

		nanosleep(&nap, NULL);
		time = now();
		gap = time - last;
		if (gap > beat->longest_gap_ns)
			beat->longest_gap_ns = gap;
		beat->count++;
		last = time;
	}
}

static void fault(size_t size, int copy)
{
	static char page[PAGE];
	uint64_t start = now();
	char *memory = map(size);

	memset(page, 1, PAGE);
	for (size_t at = 0; at < size; at += PAGE) {
		if (copy)
			memcpy(memory + at, page, PAGE);
		else
			memory[at] = 1;
	}
	printf("%llu\n", (unsigned long long)(now() - start));
}

int main(int count, char **argument)
{
	size_t size = count > 2 ? strtoull(argument[2], NULL, 10) << 20 : 0;

	if (size && count > 3 && !strcmp(argument[1], "hold"))
		hold(size, argument[3], count > 4);
	else if (size && !strcmp(argument[1], "fault"))
		fault(size, 0);
	else if (size && !strcmp(argument[1], "fill"))
		fault(size, 1);
	else {
		fprintf(stderr, "memory: error: memory hold MIB FILE [noise] | fault MIB | fill MIB\n");
		return 2;
	}
	return 0;
}
