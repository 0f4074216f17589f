/*
 * A look at the mounts of a pod that disturbs nobody: `pod-init --view PID user|root STEP PATH STEP PATH…` enters the
 * pod's mount namespace, copies it, and works in the copy, from the uppermost mount down. Steps: `open` takes hold of
 * the uppermost mount at PATH, without what is mounted in it; `drop` takes it away; `take` does both. The descriptors
 * are 16, 17, … in the order of the steps that make one. Then `ready` on descriptor 3, and it waits until that closes.
 */
#define _GNU_SOURCE
#include "pod-init.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#define OPEN_TREE_CLONE 1

static void enter(const char *pid, const char *space, int type) {
  struct text path = {0};
  add(&path, "/proc/"), add(&path, pid), add(&path, "/ns/"), add(&path, space);
  const long fd = must(sys(openat, AT_FDCWD, path.bytes, O_RDONLY | O_CLOEXEC), "namespace");
  must(sys(setns, fd, type), "namespace");
  sys(close, fd);
}

_Noreturn void view_mounts(char **argument) {
  const char *pid = argument[0];
  /* Opened before the first is entered: afterwards /proc is the pod's, which numbers its processes otherwise. */
  struct text path = {0};
  add(&path, "/proc/"), add(&path, pid), add(&path, "/ns/mnt");
  const long mounts = must(sys(openat, AT_FDCWD, path.bytes, O_RDONLY | O_CLOEXEC), "namespace");
  if (same(argument[1], "user")) enter(pid, "user", CLONE_NEWUSER);
  must(sys(setns, mounts, CLONE_NEWNS), "namespace");
  sys(close, mounts);
  must(sys(unshare, CLONE_NEWNS), "unshare");
  must(sys(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0), "mount /");
  int next = 16;
  for (argument += 2; argument[0] && argument[1]; argument += 2) {
    const char *step = argument[0], *where = argument[1];
    if (!same(step, "drop")) {
      const long fd = must(sys(open_tree, AT_FDCWD, where, OPEN_TREE_CLONE | O_CLOEXEC), where);
      if (fd != next) {
        must(sys(dup3, fd, next, O_CLOEXEC), where);
        sys(close, fd);
      }
      next++;
    }
    if (!same(step, "open")) must(sys(umount2, where, MNT_DETACH | UMOUNT_NOFOLLOW), where);
  }
  /* Who entered a user namespace is closed to its owner otherwise. */
  sys(prctl, PR_SET_DUMPABLE, 1);
  struct text ready = {0};
  add(&ready, "ready\n");
  report(&ready);
  char byte;
  while (sys(read, status_fd, &byte, 1) > 0) continue;
  for (;;) sys(exit_group, 0);
}
