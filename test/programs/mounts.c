/*
 * Mounts made inside: a tmpfs with all kinds of files (open, mapped, watched, deleted, a bound socket, the working
 * folder), one over a folder that is not empty, two over each other, one read-only, one shared; bind mounts of a
 * folder and of a file, an overlay with a removed and a changed file, another /proc, and a mount of the pod's that was
 * changed. Not a trace of them outside the pod.
 * As: root
 * Via: pod
 */
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include "pod-test.h"

#define LARGE (3 * 1024 * 1024 + 77)
#define HOLE (64L * 1024 * 1024)

static pod_path_t names[16];
static int next_name;

/* A path in the work folder; good for sixteen calls. */
static const char *at(const char *name) {
	return pod_path(names[next_name++ % 16], name);
}

static void put(const char *name, const char *text, mode_t mode) {
	int fd = MUST(open(at(name), O_CREAT | O_EXCL | O_WRONLY, 0600));
	EQUAL(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	EQUAL(fchmod(fd, mode), 0);
	EQUAL(close(fd), 0);
}

static bool has(const char *name, const char *text) {
	char found[64] = "";
	int fd = open(at(name), O_RDONLY);
	if (fd < 0) return false;
	ssize_t got = read(fd, found, sizeof found - 1);
	close(fd);
	return got == (ssize_t)strlen(text) && memcmp(found, text, (size_t)got) == 0;
}

static struct stat look(const char *name) {
	struct stat stat;
	CHECKF(lstat(at(name), &stat) == 0, "%s", name);
	return stat;
}

static void mount_tmpfs(const char *name, unsigned long flags, const char *options) {
	EQUAL(mount("mine", at(name), "tmpfs", flags, options), 0);
}

static unsigned long flags_of(const char *name) {
	struct statvfs found;
	EQUAL(statvfs(at(name), &found), 0);
	return found.f_flag;
}

/* The line of mountinfo, of the uppermost mount there. */
static void find_mount(const char *where, char *line, size_t size) {
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *text = NULL, place[4096];
	size_t room = 0;
	*line = 0;
	while (getline(&text, &room, file) > 0)
		if (sscanf(text, "%*s %*s %*s %*s %4095s", place) == 1 && strcmp(place, where) == 0)
			snprintf(line, size, "%s", text);
	free(text);
	fclose(file);
	CHECKF(*line, "nothing is mounted on %s", where);
}

static unsigned char byte_of(size_t i) {
	return (unsigned char)(i * 7 + i / 4096);
}

int main(int argc, char **argv) {
	pod_begin(argc, argv);
	umask(022);
	const char *folders[] = {"m", "bound", "stack", "ro", "shared", "over", "proc", "few"};
	for (size_t i = 0; i < COUNT(folders); i++) EQUAL(mkdir(at(folders[i]), 0755), 0);
	put("bound-file", "", 0644);

	/* Options show that it is made as it was. */
	mount_tmpfs("m", MS_NOSUID | MS_NOATIME, "size=20m,nr_inodes=300,mode=1750");
	EQUAL(mkdir(at("m/folder"), 0), 0);
	put("m/folder/inner", "inner", 04751);
	EQUAL(lchown(at("m/folder/inner"), 12, 34), 0);
	EQUAL(chmod(at("m/folder/inner"), 04751), 0);
	EQUAL(setxattr(at("m/folder/inner"), "trusted.pod", "value\0more", 10, 0), 0);
	EQUAL(link(at("m/folder/inner"), at("m/second")), 0);
	EQUAL(symlink("folder/../nowhere \n", at("m/link")), 0);
	EQUAL(lchown(at("m/link"), 55, 66), 0);
	EQUAL(mkfifo(at("m/fifo"), 0600), 0);
	EQUAL(chmod(at("m/fifo"), 0620), 0);
	EQUAL(mknod(at("m/null"), S_IFCHR | 0604, makedev(1, 3)), 0);
	int large = MUST(open(at("m/large"), O_CREAT | O_RDWR, 0640));
	EQUAL(ftruncate(large, LARGE), 0);
	unsigned char *mapped = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_SHARED, large, 0);
	CHECK(mapped != MAP_FAILED);
	for (size_t i = 0; i < LARGE; i++) mapped[i] = byte_of(i);
	EQUAL(lseek(large, 4711, SEEK_SET), 4711);
	int hole = MUST(open(at("m/hole"), O_CREAT | O_WRONLY, 0600));
	EQUAL(pwrite(hole, "end", 3, HOLE), 3);
	EQUAL(close(hole), 0);
	int deleted = MUST(open(at("m/deleted"), O_CREAT | O_RDWR, 0600));
	EQUAL(write(deleted, "gone", 4), 4);
	EQUAL(unlink(at("m/deleted")), 0);
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "../socket"};
	EQUAL(chdir(at("m/folder")), 0);
	int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	EQUAL(bind(listener, (struct sockaddr *)&name, sizeof name), 0);
	EQUAL(listen(listener, 4), 0);
	strcpy(name.sun_path, "../stale");
	int stale = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	EQUAL(bind(stale, (struct sockaddr *)&name, sizeof name), 0);
	EQUAL(close(stale), 0);
	int watch = MUST(inotify_init1(IN_NONBLOCK));
	/* A dump reads the files, which some watches would tell; it changes nothing. */
	const unsigned changes = IN_ALL_EVENTS & ~(IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE);
	MUST(inotify_add_watch(watch, at("m/folder"), changes));
	MUST(inotify_add_watch(watch, at("m/large"), changes));
	/* Over a folder that is not empty, with another in it. */
	EQUAL(mkdir(at("m/covered"), 0755), 0);
	put("m/covered/below", "below", 0644);
	mount_tmpfs("m/covered", 0, "");
	EQUAL(mkdir(at("m/covered/deeper"), 0755), 0);
	mount_tmpfs("m/covered/deeper", 0, "");
	put("m/covered/deeper/file", "deeper", 0644);

	mount_tmpfs("stack", 0, "");
	put("stack/first", "first", 0644);
	mount_tmpfs("stack", MS_NOEXEC, "");
	put("stack/second", "second", 0644);

	EQUAL(mount(at("m/folder"), at("bound"), NULL, MS_BIND, NULL), 0);
	EQUAL(mount(NULL, at("bound"), NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOATIME, NULL), 0);
	EQUAL(mount(at("m/large"), at("bound-file"), NULL, MS_BIND, NULL), 0);

	mount_tmpfs("ro", 0, "");
	put("ro/file", "read only", 0400);
	EQUAL(mount("mine", at("ro"), "tmpfs", MS_REMOUNT | MS_RDONLY, ""), 0);

	mount_tmpfs("shared", 0, "");
	EQUAL(mount(NULL, at("shared"), NULL, MS_SHARED, NULL), 0);

	/* A pod on an overlay can't have another one over tmpfs in some kernels, but it can have none at all. */
	mount_tmpfs("few", 0, "");
	const char *layers[] = {"few/lower", "few/upper", "few/work"};
	for (size_t i = 0; i < COUNT(layers); i++) EQUAL(mkdir(at(layers[i]), 0755), 0);
	put("few/lower/kept", "kept", 0644);
	put("few/lower/removed", "removed", 0644);
	put("few/lower/changed", "changed", 0644);
	char options[4 * 4096];
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", at("few/lower"), at("few/upper"),
	         at("few/work"));
	bool overlay = mount("overlay", at("over"), "overlay", 0, options) == 0;
	CHECKF(overlay || errno == ENODEV, "overlay");
	if (overlay) {
		EQUAL(unlink(at("over/removed")), 0);
		int fd = MUST(open(at("over/changed"), O_WRONLY | O_TRUNC));
		EQUAL(write(fd, "otherwise", 9), 9);
		EQUAL(close(fd), 0);
		put("over/new", "new", 0640);
	}
	EQUAL(mount("proc", at("proc"), "proc", MS_NOSUID, "hidepid=2"), 0);
	EQUAL(mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_NOATIME, NULL), 0);
	struct timespec times[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
	EQUAL(utimensat(AT_FDCWD, at("m/second"), times, 0), 0);
	EQUAL(utimensat(AT_FDCWD, at("m/link"), times, AT_SYMLINK_NOFOLLOW), 0);
	EQUAL(utimensat(AT_FDCWD, at("m/covered"), times, 0), 0);
	char scrap[4096];
	while (read(watch, scrap, sizeof scrap) > 0) continue;

	pod_ready();
	if (pod_break("content")) mapped[5000] ^= 1;
	if (pod_break("covered")) EQUAL(umount2(at("m/covered/deeper"), MNT_DETACH), 0);
	if (pod_break("stack")) EQUAL(umount2(at("stack"), MNT_DETACH), 0);
	if (pod_break("mode")) EQUAL(chmod(at("m/folder/inner"), 0700), 0);
	if (pod_break("writable")) EQUAL(mount(NULL, at("bound"), NULL, MS_REMOUNT | MS_BIND, NULL), 0);
	long turns = 0;
	while (pod_turn()) {
		turns++;
		EQUAL(pwrite(deleted, &turns, sizeof turns, 8), (ssize_t)sizeof turns);
		const struct inotify_event *event = (struct inotify_event *)scrap;
		if (read(watch, scrap, sizeof scrap) > 0 && pod_damage[0] == 0)
			FAIL("watch %d tells 0x%x %s", event->wd, event->mask, event->len ? event->name : "");
	}

	struct stat inner = look("m/folder/inner"), second = look("m/second");
	EQUAL(inner.st_ino, second.st_ino);
	EQUAL(inner.st_nlink, 2);
	EQUAL(inner.st_mode, S_IFREG | 04751);
	EQUAL(inner.st_uid, 12);
	EQUAL(inner.st_gid, 34);
	EQUAL(inner.st_mtim.tv_sec, 1100000000);
	EQUAL(inner.st_mtim.tv_nsec, 987654321);
	EQUAL(inner.st_atim.tv_sec, 1000000000);
	char value[32];
	EQUAL(getxattr(at("m/second"), "trusted.pod", value, sizeof value), 10);
	EQUAL(memcmp(value, "value\0more", 10), 0);
	CHECK(has("m/second", "inner"));
	EQUAL(look("m").st_mode, S_IFDIR | 01750);
	EQUAL(look("m/folder").st_mode, S_IFDIR);
	EQUAL(look("m/link").st_uid, 55);
	EQUAL(look("m/link").st_mtim.tv_nsec, 987654321);
	ssize_t length = readlink(at("m/link"), scrap, sizeof scrap);
	EQUAL(length, (ssize_t)strlen("folder/../nowhere \n"));
	EQUAL(look("m/fifo").st_mode, S_IFIFO | 0620);
	EQUAL(look("m/null").st_mode, S_IFCHR | 0604);
	EQUAL(look("m/null").st_rdev, makedev(1, 3));
	EQUAL(look("m/stale").st_mode & S_IFMT, S_IFSOCK);
	struct stat by_name = look("m/large"), by_fd;
	EQUAL(fstat(large, &by_fd), 0);
	EQUAL(by_name.st_ino, by_fd.st_ino);
	EQUAL(by_name.st_dev, by_fd.st_dev);
	EQUAL(by_name.st_size, LARGE);
	EQUAL(lseek(large, 0, SEEK_CUR), 4711);
	for (size_t i = 0; i < LARGE; i++) CHECKF(mapped[i] == byte_of(i), "byte %zu", i);
	mapped[LARGE / 2] = 'x';
	char byte;
	EQUAL(pread(large, &byte, 1, LARGE / 2), 1);
	EQUAL(byte, 'x');
	struct stat sparse = look("m/hole");
	EQUAL(sparse.st_size, HOLE + 3);
	CHECKF(sparse.st_blocks < 64, "%ld blocks", (long)sparse.st_blocks);
	EQUAL(pread(deleted, scrap, 4, 0), 4);
	EQUAL(memcmp(scrap, "gone", 4), 0);
	long counted;
	EQUAL(pread(deleted, &counted, sizeof counted, 8), (ssize_t)sizeof counted);
	EQUAL(counted, turns);
	char here[4096];
	CHECK(getcwd(here, sizeof here));
	EQUAL(strcmp(here, at("m/folder")), 0);
	strcpy(name.sun_path, "../socket");
	int client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	EQUAL(connect(client, (struct sockaddr *)&name, sizeof name), 0);
	int server = MUST(accept(listener, NULL, NULL));
	EQUAL(write(client, "hi", 2), 2);
	EQUAL(read(server, scrap, 2), 2);
	EQUAL(read(watch, scrap, sizeof scrap), -1);
	put("m/folder/news", "", 0644);
	CHECK(read(watch, scrap, sizeof scrap) > 0);

	struct statfs room;
	EQUAL(statfs(at("m"), &room), 0);
	EQUAL(room.f_blocks * (unsigned long)room.f_bsize, 20UL << 20);
	EQUAL(room.f_files, 300);
	EQUAL(flags_of("m") & (ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME | ST_RDONLY), ST_NOSUID | ST_NOATIME);
	CHECK(has("m/covered/deeper/file", "deeper"));
	EQUAL(look("m/covered").st_mtim.tv_sec, 1100000000);
	EQUAL(umount(at("m/covered/deeper")), 0);
	EQUAL(umount(at("m/covered")), 0);
	CHECK(has("m/covered/below", "below"));
	CHECK(has("stack/second", "second"));
	EQUAL(flags_of("stack") & ST_NOEXEC, ST_NOEXEC);
	EQUAL(umount(at("stack")), 0);
	CHECK(has("stack/first", "first"));
	EQUAL(flags_of("stack") & ST_NOEXEC, 0);
	EQUAL(umount(at("stack")), 0);
	EQUAL(access(at("stack/first"), F_OK), -1);

	EQUAL(look("bound/inner").st_ino, inner.st_ino);
	EQUAL(flags_of("bound") & (ST_RDONLY | ST_NODEV), ST_RDONLY | ST_NODEV);
	EQUAL(open(at("bound/try"), O_CREAT | O_WRONLY, 0600), -1);
	EQUAL(errno, EROFS);
	EQUAL(look("bound-file").st_ino, by_fd.st_ino);
	CHECK(has("ro/file", "read only"));
	EQUAL(look("ro/file").st_mode, S_IFREG | 0400);
	EQUAL(open(at("ro/try"), O_CREAT | O_WRONLY, 0600), -1);
	EQUAL(errno, EROFS);
	char line[8192];
	find_mount(at("shared"), line, sizeof line);
	CHECKF(strstr(line, " shared:"), "%s", line);
	find_mount(at("m"), line, sizeof line);
	CHECKF(!strstr(line, " shared:") && strstr(line, " mine "), "%s", line);
	if (overlay) {
		CHECK(has("over/kept", "kept"));
		CHECK(has("over/changed", "otherwise"));
		CHECK(has("few/lower/changed", "changed"));
		CHECK(has("over/new", "new"));
		EQUAL(look("over/new").st_mode, S_IFREG | 0640);
		EQUAL(access(at("over/removed"), F_OK), -1);
		EQUAL(look("few/upper/removed").st_rdev, 0);
		put("over/removed", "again", 0600);
	}
	CHECK(has("proc/self/comm", "mounts\n"));
	find_mount(at("proc"), line, sizeof line);
	CHECKF(strstr(line, "hidepid="), "%s", line);
	struct statvfs changed;
	EQUAL(statvfs("/proc", &changed), 0);
	EQUAL(changed.f_flag & ST_NOATIME, ST_NOATIME);
	pod_pass();
}
