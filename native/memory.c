/*
 * Bulk memory of another process: read, write, which pages are worth saving, which of them are zero, and which are
 * not the same in two processes.
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

/* Quickly; what can't be had so through /proc/PID/mem. Names the call that failed. */
static int move_range(pid_t pid, uint64_t address, uint8_t *bytes, size_t length, bool write, const char **call)
{
	size_t done = 0;

	while (done < length) {
		struct iovec local = { .iov_base = bytes + done, .iov_len = length - done };
		struct iovec remote = { .iov_base = (void *)(address + done), .iov_len = length - done };
		ssize_t moved = write ? process_vm_writev(pid, &local, 1, &remote, 1, 0) :
					process_vm_readv(pid, &local, 1, &remote, 1, 0);

		if (moved > 0) {
			done += moved;
			continue;
		}
		*call = write ? "process_vm_writev" : "process_vm_readv";
		if (moved < 0 && errno != EFAULT)
			return errno;
		*call = write ? "write /proc/PID/mem" : "read /proc/PID/mem";
		return through_mem(pid, address + done, bytes + done, length - done, write);
	}
	return 0;
}

static napi_value move_memory(napi_env env, napi_callback_info info, bool write)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t pid = integer_argument(&arguments, 0);
	uint64_t address = word_argument(&arguments, 1);
	size_t length;
	uint8_t *bytes = bytes_argument(&arguments, 2, &length);
	const char *call;
	int error;

	if (is_throwing(env))
		return NULL;
	error = move_range(pid, address, bytes, length, write, &call);
	return error ? throw_errno(env, error, call) : NULL;
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

/* As a BigUint64Array, and free; or throw. */
static napi_value give_ranges(napi_env env, struct ranges *ranges, int error, const char *what)
{
	napi_value buffer, array = NULL;
	void *target;

	if (error) {
		throw_errno(env, error, what);
	} else {
		napi_create_arraybuffer(env, ranges->count * 8, &target, &buffer);
		if (ranges->count)
			memcpy(target, ranges->word, ranges->count * 8);
		napi_create_typedarray(env, napi_biguint64_array, ranges->count, buffer, 0, &array);
	}
	free(ranges->word);
	return array;
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

#define SCAN_GUARD (1 << 8)

/* Guard regions: madvise(2), MADV_GUARD_INSTALL. A kernel that can't tell of them here (before 6.16) tells of none. */
static napi_value scan_guards(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	int pagemap = integer_argument(&arguments, 0);
	struct scan_region region[REGIONS];
	struct scan_argument argument = {
		.size = sizeof(argument), .start = word_argument(&arguments, 1), .end = word_argument(&arguments, 2),
		.vec = (uint64_t)region, .vec_len = REGIONS,
		.category_mask = SCAN_GUARD, .return_mask = SCAN_GUARD,
	};
	struct ranges ranges = { 0 };
	int error = 0;

	if (is_throwing(env))
		return NULL;
	while (!error && argument.start < argument.end) {
		int found = ioctl(pagemap, SCAN_CALL, &argument);

		if (found < 0) {
			error = errno == ENOTTY || errno == EINVAL ? 0 : errno;
			break;
		}
		for (int i = 0; i < found && !error; i++)
			if (!add_range(&ranges, region[i].start, region[i].end))
				error = ENOMEM;
		if (argument.walk_end <= argument.start)
			error = EIO;
		argument.start = argument.walk_end;
	}
	return give_ranges(env, &ranges, error, "page scan");
}

static napi_value scan_pages(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	int pagemap = integer_argument(&arguments, 0);
	uint64_t start = word_argument(&arguments, 1);
	uint64_t end = word_argument(&arguments, 2);
	struct ranges ranges = { 0 };
	bool private_only = false;
	int error;

	napi_get_value_bool(env, arguments.value[3], &private_only);
	if (is_throwing(env))
		return NULL;
	error = scan_by_ioctl(pagemap, start, end, private_only, &ranges);
	if (error == ENOTTY || error == EINVAL) {
		ranges.count = 0;
		error = scan_by_read(pagemap, start, end, private_only, &ranges);
	}
	return give_ranges(env, &ranges, error, "page scan");
}

#define ENTRY_ALONE (1ULL << 56)
/* Page frame, or place in swap; zero where the reader may not know it. */
#define ENTRY_PLACE ((1ULL << 55) - 1)

enum likeness { SAME, DIFFERENT, UNKNOWN };

static bool is_own(uint64_t entry)
{
	return (entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) && !(entry & ENTRY_FILE);
}

/* Pages that never were one after a fork are not the same, whatever is in them. */
static enum likeness compare_entries(uint64_t a, uint64_t b)
{
	if (!is_own(a) && !is_own(b))
		return SAME;
	if (!is_own(a) || !is_own(b))
		return DIFFERENT;
	if ((a & ENTRY_PLACE) && (b & ENTRY_PLACE))
		return (a & (ENTRY_PLACE | ENTRY_SWAPPED)) == (b & (ENTRY_PLACE | ENTRY_SWAPPED)) ? SAME : DIFFERENT;
	return (a | b) & ENTRY_ALONE ? DIFFERENT : UNKNOWN;
}

/*
 * process_vm_readv pins what it reads, and to be pinned a page must belong to one process alone: the kernel would
 * give the process a copy of each page that it shares since a fork. /proc/PID/mem leaves them shared, but is slower.
 */
static bool may_be_pinned(uint64_t entry)
{
	return !is_own(entry) || ((entry & ENTRY_PRESENT) && (entry & ENTRY_ALONE));
}

static int read_sharing(pid_t pid, int pagemap, uint64_t address, uint8_t *bytes, size_t length, const char **call)
{
	static uint64_t entry[ENTRIES];

	for (size_t done = 0; done < length;) {
		size_t pages = (length - done) / PAGE < ENTRIES ? (length - done) / PAGE : ENTRIES;
		ssize_t got = pread(pagemap, entry, pages * 8, (address + done) / PAGE * 8);

		*call = "read /proc/PID/pagemap";
		if (got != (ssize_t)(pages * 8))
			return got < 0 ? errno : EIO;
		for (size_t i = 0; i < pages;) {
			bool pin = may_be_pinned(entry[i]);
			size_t first = i++;
			int error;

			while (i < pages && may_be_pinned(entry[i]) == pin)
				i++;
			*call = "read /proc/PID/mem";
			if (pin)
				error = move_range(pid, address + done, bytes + done, (i - first) * PAGE, false, call);
			else
				error = through_mem(pid, address + done, bytes + done, (i - first) * PAGE, false);
			if (error)
				return error;
			done += (i - first) * PAGE;
		}
	}
	return 0;
}

static napi_value read_pages(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	pid_t pid = integer_argument(&arguments, 0);
	int pagemap = integer_argument(&arguments, 1);
	uint64_t address = word_argument(&arguments, 2);
	size_t length;
	uint8_t *bytes = bytes_argument(&arguments, 3, &length);
	const char *call;
	int error;

	if (is_throwing(env))
		return NULL;
	if (address % PAGE || length % PAGE)
		return throw_errno(env, EINVAL, "readPages");
	error = read_sharing(pid, pagemap, address, bytes, length, &call);
	return error ? throw_errno(env, error, call) : NULL;
}

#define COMPARED 64

/* A run of pages that only their contents can tell apart. */
static int compare_contents(const pid_t pid[2], uint64_t at, uint64_t end, struct ranges *ranges)
{
	static uint8_t bytes[2][COMPARED * PAGE];

	while (at < end) {
		size_t length = end - at < sizeof(bytes[0]) ? end - at : sizeof(bytes[0]);

		for (int i = 0; i < 2; i++) {
			int error = through_mem(pid[i], at, bytes[i], length, false);

			if (error)
				return error;
		}
		for (size_t offset = 0; offset < length; offset += PAGE)
			if (memcmp(bytes[0] + offset, bytes[1] + offset, PAGE) &&
			    !add_range(ranges, at + offset, at + offset + PAGE))
				return ENOMEM;
		at += length;
	}
	return 0;
}

/*
 * The kernel moves pages between frames (compaction) also while their processes stand still: one process's page may
 * lie where the other's lay a moment ago. Frames are only compared when those of the first are the same before and
 * after the second's were read.
 */
enum { LOOKS = 3 };

static enum likeness likeness_at(uint64_t entry[LOOKS][ENTRIES], size_t page)
{
	enum likeness found = compare_entries(entry[0][page], entry[1][page]);

	return found == SAME && entry[0][page] != entry[2][page] ? UNKNOWN : found;
}

static int find_differing(const pid_t pid[2], const int pagemap[2], uint64_t start, uint64_t end,
			  struct ranges *ranges)
{
	static uint64_t entry[LOOKS][ENTRIES];

	for (uint64_t at = start; at < end;) {
		size_t pages = (end - at) / PAGE < ENTRIES ? (end - at) / PAGE : ENTRIES;

		for (int look = 0; look < LOOKS; look++) {
			ssize_t length = pread(pagemap[look % 2], entry[look], pages * 8, at / PAGE * 8);

			if (length != (ssize_t)(pages * 8))
				return length < 0 ? errno : EIO;
		}
		for (size_t i = 0; i < pages;) {
			enum likeness found = likeness_at(entry, i);
			size_t first = i++;

			while (i < pages && likeness_at(entry, i) == found)
				i++;
			if (found == DIFFERENT && !add_range(ranges, at + first * PAGE, at + i * PAGE))
				return ENOMEM;
			if (found == UNKNOWN) {
				int error = compare_contents(pid, at + first * PAGE, at + i * PAGE, ranges);

				if (error)
					return error;
			}
		}
		at += pages * PAGE;
	}
	return 0;
}

static napi_value differing_pages(napi_env env, napi_callback_info info)
{
	struct arguments arguments = get_arguments(env, info);
	const pid_t pid[2] = { integer_argument(&arguments, 0), integer_argument(&arguments, 2) };
	const int pagemap[2] = { integer_argument(&arguments, 1), integer_argument(&arguments, 3) };
	uint64_t start = word_argument(&arguments, 4);
	uint64_t end = word_argument(&arguments, 5);
	struct ranges ranges = { 0 };
	int error;

	if (is_throwing(env))
		return NULL;
	error = find_differing(pid, pagemap, start, end, &ranges);
	return give_ranges(env, &ranges, error, "page comparison");
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
	export_function(env, exports, "scanGuards", scan_guards);
	export_function(env, exports, "readPages", read_pages);
	export_function(env, exports, "scanPages", scan_pages);
	export_function(env, exports, "differingPages", differing_pages);
	export_function(env, exports, "nonZeroRuns", non_zero_runs);
}
