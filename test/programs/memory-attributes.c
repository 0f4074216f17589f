/*
 * What an address space is set to as a whole: locking and merging of what will be mapped, the refusal of new code,
 * registrations for memory barriers, huge pages only where advised. Each in a process of its own, beside one that has
 * none of it and must get none.
 */
#include "pod-test.h"

#define MDWE_SET 65
#define MDWE_GET 66
#define MERGE_SET 67
#define MERGE_GET 68
#define EXCEPT_ADVISED 2

enum { QUERY = 0, PRIVATE = 1 << 3, REGISTER_PRIVATE = 1 << 4, CODE = 1 << 5, REGISTER_CODE = 1 << 6,
	   REGISTRATIONS = 1 << 9 };

static long barrier(int command) {
	return syscall(SYS_membarrier, command, 0, 0);
}

static void *map(int protection) {
	void *page = mmap(NULL, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	return page;
}

struct view {
	long merge, exec_gain, huge_pages, registrations;
	bool locks, on_fault, gains, sends, sends_code;
};

static struct view look(void) {
	struct view view = {
		.merge = prctl(MERGE_GET, 0, 0, 0, 0),
		.exec_gain = prctl(MDWE_GET, 0, 0, 0, 0),
		.huge_pages = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0),
		.registrations = barrier(REGISTRATIONS),
		.sends = barrier(PRIVATE) == 0,
		.sends_code = barrier(CODE) == 0,
	};
	void *page = map(PROT_READ | PROT_WRITE);
	view.locks = pod_area_flag(page, "lo");
	/* Older kernels have no name for it in smaps. */
	unsigned char present;
	EQUAL(mincore(page, PAGE, &present), 0);
	view.on_fault = view.locks && (present & 1) == 0;
	view.gains = mprotect(page, PAGE, PROT_READ | PROT_EXEC) == 0;
	EQUAL(munmap(page, PAGE), 0);
	return view;
}

/* A kernel that lacks something (-1) has it off; one that it came to cannot have it on, which the restart tells. */
static void same(long now, long before) {
	if (now >= 0) EQUAL(now, before < 0 ? 0 : before);
}

static void check(const struct view *before) {
	struct view now = look();
	/* It came to a kernel that lacks it in the middle of the look. */
	if (prctl(MDWE_GET, 0, 0, 0, 0) != now.exec_gain) now = look();
	same(now.merge, before->merge);
	same(now.exec_gain, before->exec_gain);
	EQUAL(now.huge_pages, before->huge_pages);
	/* A kernel that tells nothing of registrations gets one more: see memory-attributes.ts. */
	if (before->registrations >= 0) same(now.registrations, before->registrations);
	EQUAL(now.locks, before->locks);
	EQUAL(now.on_fault, before->on_fault);
	EQUAL(now.gains, now.exec_gain < 0 || before->gains);
	EQUAL(now.sends, before->sends);
	EQUAL(now.sends_code, before->sends_code);
}

static void be_plain(struct view *view) {
	CHECK(!view->locks && view->gains && !view->sends && !view->sends_code);
	if (pod_break("plain")) EQUAL(barrier(REGISTER_PRIVATE), 0);
}

static void be_locked(struct view *view) {
	EQUAL(mlockall(MCL_FUTURE), 0);
	*view = look();
	CHECK(view->locks && !view->on_fault);
	if (pod_break("lock")) EQUAL(munlockall(), 0);
}

static void be_locked_on_fault(struct view *view) {
	EQUAL(mlockall(MCL_FUTURE | MCL_ONFAULT), 0);
	*view = look();
	CHECK(view->locks && view->on_fault);
	if (pod_break("on-fault")) EQUAL(mlockall(MCL_FUTURE), 0);
}

static void be_strict(struct view *view) {
	/* Linux 6.3. Merging asks for a right that root may lack too. */
	prctl(MDWE_SET, 1, 0, 0, 0);
	prctl(MERGE_SET, 1, 0, 0, 0);
	*view = look();
	if (pod_break("strict")) {
		void *page = map(PROT_READ | PROT_WRITE);
		EQUAL(prctl(PR_SET_THP_DISABLE, !view->huge_pages, 0, 0, 0), 0);
		munmap(page, PAGE);
	}
}

static void be_barrier(struct view *view) {
	if (barrier(QUERY) > 0) {
		EQUAL(barrier(REGISTER_PRIVATE), 0);
		EQUAL(barrier(REGISTER_CODE), 0);
	}
	/* Linux 6.18. */
	prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0);
	*view = look();
	CHECK(view->sends == (barrier(QUERY) > 0));
	if (pod_break("advised")) prctl(PR_SET_THP_DISABLE, view->huge_pages == 0, 0, 0, 0);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	void (*const bodies[])(struct view *) = { be_plain, be_locked, be_locked_on_fault, be_strict, be_barrier };
	static const char *const marks[] = { "plain-set", "locked-set", "on-fault-set", "strict-set", "barrier-set" };
	pid_t children[COUNT(bodies)];
	for (size_t i = 0; i < COUNT(bodies); i++) {
		children[i] = MUST(fork());
		if (children[i] != 0) continue;
		struct view view = look();
		bodies[i](&view);
		pod_mark(marks[i]);
		do check(&view);
		while (pod_child_turn());
		check(&view);
		_exit(0);
	}
	for (size_t i = 0; i < COUNT(bodies); i++) pod_await(marks[i]);
	/* What a fork inherits, and what not. */
	struct view view;
	be_barrier(&view);
	pid_t heir = MUST(fork());
	if (heir == 0) {
		struct view own = look();
		CHECK(own.sends == view.sends && own.sends_code == view.sends_code);
		pod_mark("heir-set");
		do check(&own);
		while (pod_child_turn());
		check(&own);
		_exit(0);
	}
	pod_await("heir-set");
	pod_ready();
	do check(&view);
	while (pod_turn());
	check(&view);
	for (size_t i = 0; i < COUNT(bodies); i++) pod_reap(children[i]);
	pod_reap(heir);
	pod_pass();
}
