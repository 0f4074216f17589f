/** What is checked before any task is made: the machine, and the files that must be there. */
import { readFileSync, statSync } from 'node:fs';
import type { Records } from '../../image/record.ts';
import { PodError } from '../../stream/error.ts';
import { PROT, pageSize } from './abi.ts';
import type { ImageRecords } from './image-records.ts';
import { checkInheritance, inheritedMemory } from './inheritance.ts';
import { checkKeys, protectionKeys } from './objects/protection-keys.ts';
import { broughtAlong } from './places/build-places.ts';

/** Flags of /proc/cpuinfo that programs see by CPUID and choose code by; the rest is the kernel's own business. */
const programFeatures =
  /^(sse|sse2|pni|ssse3|sse4_1|sse4_2|sse4a|avx|avx2|avx512.*|avx_.*|f16c|fma|fma4|xop|bmi1|bmi2|abm|lzcnt|popcnt|movbe|aes|vaes|pclmulqdq|vpclmulqdq|sha_ni|gfni|adx|rdrand|rdseed|fsgsbase|clflushopt|clwb|cx16|lahf_lm|erms|fsrm|amx.*|xsave.*|rtm|hle|rdtscp|rdpid|movdiri|movdir64b|serialize|mmx|fxsr|cmov|pku|ospke)$/;

/** Kernel features this engine can build on; an image that requires another is from the future. */
const knownFeatures = new Set([
  'futex-lists',
  'epoll',
  'eventfd',
  'timerfd',
  'signalfd',
  'inotify',
  'pidfd',
  'posix-timers',
  'rseq',
  'waitid',
  'memfd',
  'mapped-locks',
  'descriptors-in-flight',
  'places',
  'seccomp',
  'socket-backlog',
  'split-threads',
  'sysv-semaphores',
  'sysv-queues',
  'own-network',
  'kept-connections',
  'thread-groups',
  inheritedMemory,
  protectionKeys,
]);

export function checkMachine(hello: Records['hello']): void {
  if (hello.semantics !== '2.6') {
    throw new PodError(
      'cannot-restart',
      `the image has the semantics of kernel ${hello.semantics}`,
      'send it through pod-filter upgrade-2.6 first',
    );
  }
  if (hello.arch !== 'x86_64')
    throw new PodError('cannot-restart', `the image is of a ${hello.arch} session, this machine is x86_64`);
  if (hello.pageSize !== pageSize)
    throw new PodError(
      'cannot-restart',
      `the image has pages of ${hello.pageSize} bytes, this machine ${pageSize}`,
    );
  const here = new Set(cpuFlags());
  const missing = hello.cpuFeatures.filter((flag) => programFeatures.test(flag) && !here.has(flag));
  if (missing.length > 0) {
    throw new PodError(
      'cannot-restart',
      `this processor lacks ${missing.join(', ')}, which the session may use`,
      'restart on a processor that has them (--ignore-cpu when you know the session does not use them)',
    );
  }
  const atHand = memoryAtHand();
  if ((hello.memory ?? 0n) > atHand) {
    throw new PodError(
      'cannot-restart',
      `the session needs ${hello.memory! >> 20n} MiB of memory, ${atHand >> 20n} MiB are at hand`,
      'end other programs first',
    );
  }
  const unknown = hello.requires.filter((feature) => !knownFeatures.has(feature));
  if (unknown.length > 0)
    throw new PodError(
      'cannot-restart',
      `the image needs ${unknown.join(', ')}, which this podstream does not know`,
      'update podstream',
    );
}

export function cpuFlags(): string[] {
  const line = readFileSync('/proc/cpuinfo', 'latin1')
    .split('\n')
    .find((each) => each.startsWith('flags'));
  return (line ?? '')
    .slice((line ?? '').indexOf(':') + 1)
    .trim()
    .split(/\s+/);
}

/** Bytes of memory that can be had without swapping. */
export function memoryAtHand(): bigint {
  const match = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'latin1'));
  return BigInt(match?.[1] ?? 0) * 1024n;
}

/** FXSAVE, and the header that XSAVE puts behind it. */
const legacyState = 512;
const xsaveHeader = 64;

/** What only this engine needs to be right: locked memory that is to be had, registers in a form it can load. */
export function checkTasks(image: ImageRecords): void {
  checkInheritance(image);
  checkKeys(image);
  const atHand = memoryAtHand();
  // Locked memory is there at once, whether it was ever touched or not.
  let locked = 0n;
  for (const { areas } of image.spaces.values()) {
    for (const area of areas)
      if (area.locked && !area.lockOnFault && (area.prot & PROT.write) !== 0) locked += area.end - area.start;
  }
  if (locked > atHand) {
    throw new PodError(
      'cannot-restart',
      `the session holds ${locked >> 20n} MiB of memory locked (mlock), ${atHand >> 20n} MiB are at hand`,
      'end other programs first',
    );
  }
  for (const { threads } of image.processes.values()) {
    for (const { record, extended } of threads) {
      if (extended.length === legacyState || extended.length >= legacyState + xsaveHeader) continue;
      throw new PodError(
        'damaged',
        `thread ${record.tid} has ${extended.length} bytes of extended registers, which no processor has`,
        'the stream was damaged or made by a hostile program; load it again or use an older generation',
      );
    }
  }
}

/**
 * Files that are mapped, run or worked in; `root` is the pod's root seen from here, in which the `places` of the image
 * are made or not yet.
 */
export function checkFiles(image: ImageRecords, root: string, places: 'made' | 'planned'): void {
  const named = carriedPaths(image);
  const along = places === 'made' ? () => false : broughtAlong(image);
  const carried = { has: (path: string) => named.has(path) || along(path) };
  for (const { record, areas } of image.spaces.values()) {
    if (record.exeShm === undefined && !carried.has(record.exe.path))
      checkFile(root, record.exe.path, record.exe.size, true);
    for (const area of areas) {
      if (area.kind !== 'file' || !area.file || carried.has(area.file.path)) continue;
      checkFile(root, area.file.path, area.file.size, !area.shared);
    }
  }
}

/** Paths of files that are in the image: of the pod's own /dev/shm. */
export function carriedPaths(image: Pick<ImageRecords, 'segments'>): Set<string> {
  return new Set(
    [...image.segments.values()].flatMap(({ origin, path }) =>
      origin === 'named' && path !== undefined ? [path] : [],
    ),
  );
}

const checkedAlready = new Set<string>();

/** A mapped program or library must be the very file; its size tells a different build without reading it. */
function checkFile(root: string, path: string, expected: bigint | undefined, exact: boolean): void {
  const key = `${root}\0${path}\0${expected}`;
  if (checkedAlready.has(key)) return;
  checkedAlready.add(key);
  let found: bigint;
  try {
    found = statSync(`${root}${path}`, { bigint: true }).size;
  } catch (cause) {
    throw new PodError(
      'cannot-restart',
      `${path} is not here`,
      'the session needs this file; bring it along (--root), or map it elsewhere with pod-filter relocate',
      { cause },
    );
  }
  if (expected === undefined || found === expected || (!exact && found > expected)) return;
  throw new PodError(
    'cannot-restart',
    `${path} is another file: ${expected} bytes expected, ${found} found`,
    'the session needs the very file it was using; install the same version',
  );
}
