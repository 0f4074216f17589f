/** All places of a session: what it mounted, what lies in what ends with the pod, and what the user wants along. */
import { closeSync, readlinkSync } from 'node:fs';
import { posix } from 'node:path';
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { type Mount, readMounts } from '../../../runtime/mount-list.ts';
import { PodError } from '../../../stream/error.ts';
import type { DumpTarget } from '../../engine.ts';
import { O, SYS } from '../abi.ts';
import { closeLocal, codeOf } from '../objects/local-calls.ts';
import { belowRoot } from '../objects/paths.ts';
import { dataRanges } from '../page-source.ts';
import { type PageWriter, writePages } from '../write-pages.ts';
import { cString, type PlacedFile } from './attributes.ts';
import { changedMounts, hostMounts } from './changed-mounts.ts';
import { describeChanges, describeMounts, type FoundPlace, inOrder, viewSteps } from './collect-mounts.ts';
import { viewMounts } from './mount-view.ts';
import { beneath, openBeneath } from './open-beneath.ts';
import { type FileSource, FileWalker, openSame } from './walk-files.ts';

type Place = Records['place'];

export interface Places {
  records: { name: 'place'; meta: Place }[];
  /** Bytes of files that will take memory, and of those that will not. */
  bytes: { memory: number; disk: number };
  /** Contents, in the order of their numbers. */
  write(out: PageWriter): void;
  close(): void;
}

/** What pod-init puts there itself: see setup.c. */
const ownDevices = new Set(
  'null zero full tty random urandom ptmx pts shm fd stdin stdout stderr'
    .split(' ')
    .map((name) => `/dev/${name}`),
);

/** Trees of the kernel's. */
const kernels = /^\/(proc|sys|dev)(\/|$)/;

/** `withFiles`: paths in the pod, absolute. */
export function collectPlaces(
  target: DumpTarget,
  firstPid: number,
  withFiles: readonly string[],
  loss: (sentence: string) => void,
): Places {
  const pid = target.init ?? firstPid;
  const walker = new FileWalker();
  const held: number[] = [];
  const all = readMounts(pid);
  const mounts = new Set(all.map(({ where }) => where));
  const before = target.mounts?.before;
  const found: FoundPlace[] = [];
  const walked: { place: FoundPlace; files: PlacedFile[] }[] = [];
  try {
    const wanted = resolvePaths(pid, withFiles, target.rooted);
    const made = before ? madeMounts(target, all, before) : { own: [], changed: [], gone: [] };
    for (const path of wanted) {
      for (const mount of all) {
        const { where } = mount;
        if (where === path || !beneath(where, path) || kernels.test(where) || made.own.includes(mount))
          continue;
        loss(`${where} is mounted in ${path} and stays here`);
      }
      found.push({ path, tree: `/proc/${pid}/root${path}` });
    }
    const ordered = inOrder(made.own);
    // Without a mount of its own it hides nothing of the pod's.
    const hidden = new Set(ordered.map(({ where }) => where));
    const kept = target.rooted
      ? ['/dev', '/dev/shm'].filter((path) => mounts.has(path) && !made.gone.includes(path))
      : [];
    if (kept.some((path) => hidden.has(path)))
      throw new PodError(
        'cannot-checkpoint',
        `the session mounted something over ${kept.find((path) => hidden.has(path))}`,
        'unmount it before the dump',
      );
    for (const path of kept) found.push({ path, tree: `/proc/${pid}/root${path}` });
    found.push(...describeChanges(made));
    if (ordered.length > 0) {
      held.push(...viewMounts(pid, viewSteps(ordered)));
      const byId = new Map(ordered.toReversed().map((mount, index) => [mount.id, held[index]!]));
      const given = new Set(
        [...hostMounts(undefined), ...all.filter((mount) => !made.own.includes(mount))].map(
          ({ device }) => device,
        ),
      );
      found.push(...describeMounts(ordered, byId, { pid, all, given }));
    }
    for (const place of found) {
      const { tree, path } = place;
      const options = place.mount ? {} : { mounts, ...(path === '/dev' ? { omit: ownDevices } : {}) };
      const files = tree === undefined ? [] : walker.walk(tree, path, options);
      // Nothing in what the pod has by itself.
      if (kept.includes(path) && !place.mount && files.length <= 1) continue;
      walked.push({ place, files });
    }
  } catch (cause) {
    for (const fd of held) closeLocal(fd);
    throw cause;
  }
  const disk = new Set(
    walked
      .filter(({ place }) => !place.mount && !kernels.test(place.path))
      .flatMap(({ files }) => files.flatMap(({ file }) => (file === undefined ? [] : [file]))),
  );
  const sum = (onDisk: boolean) =>
    walker.sources
      .filter(({ file }) => disk.has(file) === onDisk)
      .reduce((total, { stored }) => total + Number(stored), 0);
  return {
    records: walked.flatMap(({ place, files }, id) => recordsOf(id, place, files)),
    bytes: { memory: sum(false), disk: sum(true) },
    write: (out) => {
      for (const source of walker.sources) if (source.size > 0n) writeContents(out, source);
    },
    close: () => {
      for (const fd of held.splice(0)) closeLocal(fd);
    },
  };
}

function madeMounts(target: DumpTarget, all: readonly Mount[], before: readonly string[]) {
  const changes = changedMounts(all, before, hostMounts(target.mounts?.root));
  // pid 1 of a confined pod covers parts of /proc after its mounts were listed, and nobody else can.
  const seen = (where: string) => !target.confined || !beneath(where, '/proc');
  return {
    own: changes.made.filter(({ where }) => seen(where)),
    changed: changes.changed.filter(({ where }) => seen(where)),
    gone: changes.gone,
  };
}

/** As the pod has them, without links; each once, none in another. */
function resolvePaths(pid: number, paths: readonly string[], rooted: boolean): string[] {
  const root = `/proc/${pid}/root`;
  const folder = Number(native().syscall(SYS.open, cString(root), O.path | O.directory | O.cloexec));
  try {
    const found = paths.map((path) => {
      let fd: number;
      try {
        fd = openBeneath(folder, path, O.path, 'links');
      } catch (cause) {
        throw new PodError(
          'usage',
          `${path} of --with-files can't be found in the session (${codeOf(cause)})`,
        );
      }
      const place = belowRoot(pid, readlinkSync(`/proc/self/fd/${fd}`));
      closeSync(fd);
      if (kernels.test(place) || (place === '/' && !rooted))
        throw new PodError(
          'usage',
          `${path} can't go along: it is the machine's`,
          'name the folders that the session works in',
        );
      return place;
    });
    const sorted = [...new Set(found)].sort();
    return sorted.filter((path) => !sorted.some((other) => other !== path && beneath(path, other)));
  } finally {
    closeLocal(folder);
  }
}

/** Names of a frame: well below the 64 KiB that its meta may have. */
const mostNames = 256;
const mostBytes = 40_000;

function recordsOf(id: number, { path, mount }: FoundPlace, files: readonly PlacedFile[]): Places['records'] {
  const records: Places['records'] = [];
  let names: PlacedFile[] = [];
  let bytes = 0;
  const add = (last: boolean) => {
    const meta: Place = {
      id,
      path,
      ...(records.length === 0 && mount ? { mount } : {}),
      ...(names.length > 0 || !mount ? { files: names } : {}),
    };
    if (!last || names.length > 0 || records.length === 0) records.push({ name: 'place', meta });
    names = [];
    bytes = 0;
  };
  for (const file of files) {
    const size = sizeOf(file);
    if (size > mostBytes)
      throw new PodError(
        'cannot-checkpoint',
        `${posix.join(path, file.name)} has attributes of ${size} bytes`,
      );
    if (names.length === mostNames || bytes + size > mostBytes) add(false);
    names.push(file);
    bytes += size;
  }
  add(true);
  return records;
}

const sizeOf = ({ name, target, attributes }: PlacedFile): number =>
  110 +
  Buffer.byteLength(name) +
  Buffer.byteLength(target ?? '') +
  (attributes ?? []).reduce((sum, each) => sum + 20 + each.name.length + each.value.length, 0);

const page = 4096n;

function writeContents(out: PageWriter, source: FileSource): void {
  const fd = openSame(source);
  try {
    const end = ((source.size + page - 1n) / page) * page;
    const ranges = BigUint64Array.from(dataRanges(fd, 0n, end) ?? [0n, end]);
    const key = { file: source.file };
    writePages(out, { key, fd, start: 0n, end, shift: 0n, wanted: 'all' }, ranges);
    closeSync(openSame(source));
  } finally {
    closeSync(fd);
  }
}
