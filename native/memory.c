/*
 * Bulk memory of another process: read, write, which pages are worth saving, which of them are zero.
 */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

/* Through /proc/PID/mem, which (as ptrace does) reaches pages the task itself may not touch. */
static int through_mem(pid_t pid, uint64_t address, uint8_t *bytes, size_t length, bool write)
{
	char path[32];
	size_t done = 0;
	int fd, error = 0;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, (write ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		return errno;
	while (done < length) {
		ssize_t moved = write ? pwrite(fd, bytes + done, length - done, address + done) :
					pread(fd, bytes + done, length - done, address + done);

		if (moved <= 0) {
			error = moved < 0 ? errno : EFAULT;
			break;
		}
		done += moved;
	}
	close(fd);
	return error;
}

static napi_value move_memory(napi_env env, napi_callback_info info, bool write)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t pid = integer_argument(&arguments, 0);
	uint64_t address = word_argument(&arguments, 1);
	size_t length, done = 0;
	uint8_t *bytes = bytes_argument(&arguments, 2, &length);
	int error;

	if (is_throwing(env))
		return NULL;
	while (done < length) {
		struct iovec local = { .iov_base = bytes + done, .iov_len = length - done };
		struct iovec remote = { .iov_base = (void *)(address + done), .iov_len = length - done };
		ssize_t moved = write ? process_vm_writev(pid, &local, 1, &remote, 1, 0) :
					process_vm_readv(pid, &local, 1, &remote, 1, 0);

		if (moved > 0) {
			done += moved;
			continue;
		}
		if (moved < 0 && errno != EFAULT)
			return throw_errno(env, errno, write ? "process_vm_writev" : "process_vm_readv");
		error = through_mem(pid, address + done, bytes + done, length - done, write);
		if (error)
			return throw_errno(env, error, write ? "write /proc/PID/mem" : "read /proc/PID/mem");
		break;
	}
	return NULL;
}

static napi_value read_memory(napi_env env, napi_callback_info info)
{
	return move_memory(env, info, false);
}

static napi_value write_memory(napi_env env, napi_callback_info info)
{
	return move_memory(env, info, true);
}

/* A growing list of address ranges; neighbours join. */
struct ranges {
	uint64_t *word;
	size_t count, room;
};

static bool add_range(struct ranges *ranges, uint64_t start, uint64_t end)
{
	if (ranges->count && ranges->word[ranges->count - 1] == start) {
		ranges->word[ranges->count - 1] = end;
		return true;
	}
	if (ranges->count + 2 > ranges->room) {
		size_t room = ranges->room ? ranges->room * 2 : 256;
		uint64_t *word = realloc(ranges->word, room * sizeof(*word));

		if (!word)
			return false;
		ranges->word = word;
		ranges->room = room;
	}
	ranges->word[ranges->count++] = start;
	ranges->word[ranges->count++] = end;
	return true;
}

/* PAGEMAP_SCAN (Linux 6.7), Documentation/admin-guide/mm/pagemap.rst. */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_CALL _IOWR('f', 16, struct scan_argument)
#define SCAN_FILE (1 << 2)
#define SCAN_PRESENT (1 << 3)
#define SCAN_SWAPPED (1 << 4)
#define SCAN_ZERO (1 << 5)
#define REGIONS 512

static int scan_by_ioctl(int pagemap, uint64_t start, uint64_t end, bool private_only, struct ranges *ranges)
{
	struct scan_region region[REGIONS];
	uint64_t unwanted = SCAN_ZERO | (private_only ? SCAN_FILE : 0);
	struct scan_argument argument = {
		.size = sizeof(argument), .start = start, .end = end,
		.vec = (uint64_t)region, .vec_len = REGIONS,
		/* Inverted categories must be *absent*; one of present and swapped must hold. */
		.category_inverted = unwanted, .category_mask = unwanted,
		.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
		.return_mask = SCAN_PRESENT | SCAN_SWAPPED,
	};

	while (argument.start < end) {
		int found = ioctl(pagemap, SCAN_CALL, &argument);

		if (found < 0)
			return errno;
		for (int i = 0; i < found; i++)
			if (!add_range(ranges, region[i].start, region[i].end))
				return ENOMEM;
		if (argument.walk_end <= argument.start)
			return EIO;
		argument.start = argument.walk_end;
	}
	return 0;
}

#define ENTRY_PRESENT (1ULL << 63)
#define ENTRY_SWAPPED (1ULL << 62)
#define ENTRY_FILE (1ULL << 61)
#define ENTRIES 4096
#define PAGE 4096

static int scan_by_read(int pagemap, uint64_t start, uint64_t end, bool private_only, struct ranges *ranges)
{
	static uint64_t entry[ENTRIES];

	for (uint64_t at = start; at < end;) {
		uint64_t wanted = (end - at) / PAGE;
		ssize_t length = pread(pagemap, entry, (wanted < ENTRIES ? wanted : ENTRIES) * 8, at / PAGE * 8);

		if (length <= 0)
			return length < 0 ? errno : EIO;
		for (ssize_t i = 0; i < length / 8; i++, at += PAGE) {
			if (!(entry[i] & (ENTRY_PRESENT | ENTRY_SWAPPED)))
				continue;
			if (private_only && (entry[i] & ENTRY_FILE))
				continue;
			if (!add_range(ranges, at, at + PAGE))
				return ENOMEM;
		}
	}
	return 0;
}

static napi_value scan_pages(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	int pagemap = integer_argument(&arguments, 0);
	uint64_t start = word_argument(&arguments, 1);
	uint64_t end = word_argument(&arguments, 2);
	struct ranges ranges = { 0 };
	bool private_only = false;
	napi_value buffer, array;
	void *target;
	int error;

	napi_get_value_bool(env, arguments.value[3], &private_only);
	if (is_throwing(env))
		return NULL;
	error = scan_by_ioctl(pagemap, start, end, private_only, &ranges);
	if (error == ENOTTY || error == EINVAL) {
		ranges.count = 0;
		error = scan_by_read(pagemap, start, end, private_only, &ranges);
	}
	if (error) {
		free(ranges.word);
		return throw_errno(env, error, "page scan");
	}
	napi_create_arraybuffer(env, ranges.count * 8, &target, &buffer);
	if (ranges.count)
		memcpy(target, ranges.word, ranges.count * 8);
	free(ranges.word);
	napi_create_typedarray(env, napi_biguint64_array, ranges.count, buffer, 0, &array);
	return array;
}

/* Most pages that are not zero show it in their first words; a zero page is read whole, at memory speed. */
static bool is_zero(const uint8_t *page, size_t size)
{
	const uint64_t *word = (const uint64_t *)page;

	for (size_t i = 0; i < size / 8; i += 8)
		if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] | word[i + 7])
			return false;
	return true;
}

static napi_value non_zero_runs(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	size_t length, count = 0, pages;
	uint8_t *bytes = bytes_argument(&arguments, 0, &length);
	int64_t size = integer_argument(&arguments, 1);
	napi_value buffer, array;
	uint32_t *run, *target;

	if (is_throwing(env))
		return NULL;
	if (size < 64 || size % 64 || length % size)
		return throw_errno(env, EINVAL, "nonZeroRuns");
	pages = length / size;
	run = malloc((pages + 2) * sizeof(*run));
	if (!run)
		return throw_errno(env, ENOMEM, "nonZeroRuns");
	for (size_t page = 0; page < pages; page++) {
		if (is_zero(bytes + page * size, size))
			continue;
		if (count && run[count - 1] == page) {
			run[count - 1] = page + 1;
		} else {
			run[count++] = page;
			run[count++] = page + 1;
		}
	}
	napi_create_arraybuffer(env, count * sizeof(*run), (void **)&target, &buffer);
	if (count)
		memcpy(target, run, count * sizeof(*run));
	free(run);
	napi_create_typedarray(env, napi_uint32_array, count, buffer, 0, &array);
	return array;
}

void export_memory(napi_env env, napi_value exports)
{
	export_function(env, exports, "readMemory", read_memory);
	export_function(env, exports, "writeMemory", write_memory);
	export_function(env, exports, "scanPages", scan_pages);
	export_function(env, exports, "nonZeroRuns", non_zero_runs);
}
