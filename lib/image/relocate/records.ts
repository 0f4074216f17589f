/** The paths of each record. A function returns the record it got when no path of it changed. */
import type { Area } from '../model.ts';
import type { Records } from '../record.ts';
import { cannotRelocate, type PathRules } from './rules.ts';

/** Longest path in sockaddr_un: 108 bytes with its NUL. */
const longestSocketPath = 107;

/** Records with a `path` of their own (a pipe's and a terminal's may be missing). */
export function relocatePath<Located extends { id: number; path?: string }>(
  record: Located,
  kind: string,
  rules: PathRules,
): Located {
  if (record.path === undefined) return record;
  const path = rules.apply(record.path, `${kind} ${record.id}`);
  return path === record.path ? record : { ...record, path };
}

/** A memfd has a name, no path. */
export function relocateRegular(regular: Records['regular'], rules: PathRules): Records['regular'] {
  return regular.memfd === undefined ? relocatePath(regular, 'regular', rules) : regular;
}

/** What lies in /dev/shm of the pod stays there. */
export function relocateMemory(shm: Records['shm'], rules: PathRules): Records['shm'] {
  return shm.origin === 'named' ? shm : relocatePath(shm, 'shm', rules);
}

/** Where it is, and what a bind mount shows. */
export function relocatePlace(place: Records['place'], rules: PathRules): Records['place'] {
  const moved = relocatePath(place, 'place', rules);
  const { mount } = place;
  if (mount?.type !== 'bind' || mount.source === undefined) return moved;
  const source = rules.apply(mount.source, `place ${place.id}`);
  return source === mount.source ? moved : { ...moved, mount: { ...mount, source } };
}

export function relocatePod(pod: Records['pod'], rules: PathRules): Records['pod'] {
  const root = rules.apply(pod.root, 'the root of the session');
  return root === pod.root ? pod : { ...pod, root };
}

export function relocateFs(fs: Records['fs'], rules: PathRules): Records['fs'] {
  const owner = `filesystem context ${fs.id}`;
  const [cwd, root] = [rules.apply(fs.cwd, owner), rules.apply(fs.root, owner)];
  return cwd === fs.cwd && root === fs.root ? fs : { ...fs, cwd, root };
}

export function relocateExecutable(mm: Records['mm'], rules: PathRules): Records['mm'] {
  if (mm.exe.path.startsWith('/memfd:')) return mm;
  const path = rules.apply(mm.exe.path, `the executable of address space ${mm.id}`);
  return path === mm.exe.path ? mm : { ...mm, exe: { ...mm.exe, path } };
}

export function relocateAreas(record: Records['areas'], rules: PathRules): Records['areas'] {
  const areas = record.areas.map((area): Area => {
    if (!area.file) return area;
    const owner = `area 0x${area.start.toString(16)} of address space ${record.mm}`;
    const path = rules.apply(area.file.path, owner);
    return path === area.file.path ? area : { ...area, file: { ...area.file, path } };
  });
  return areas.every((area, index) => area === record.areas[index]) ? record : { ...record, areas };
}

export function relocateWatches(inotify: Records['inotify'], rules: PathRules): Records['inotify'] {
  const watches = inotify.watches.map((watch) => {
    const path = rules.apply(watch.path, `inotify ${inotify.id}`);
    return path === watch.path ? watch : { ...watch, path };
  });
  return watches.every((watch, index) => watch === inotify.watches[index])
    ? inotify
    : { ...inotify, watches };
}

/** Bound paths; abstract names and relative ones stay. */
export function relocateSocket(socket: Records['unix-socket'], rules: PathRules): Records['unix-socket'] {
  const { address } = socket;
  if (address?.[0] !== 0x2f) return socket;
  const end = address.indexOf(0);
  const old = Buffer.from(end < 0 ? address : address.subarray(0, end));
  const path = old.toString('utf8');
  const owner = `unix-socket ${socket.id}`;
  const moved = rules.apply(path, owner);
  if (moved === path) return socket;
  if (!Buffer.from(path, 'utf8').equals(old)) throw cannotRelocate(owner, 'its path is not UTF-8');
  const bytes = Buffer.from(moved, 'utf8');
  if (bytes.length > longestSocketPath)
    throw cannotRelocate(
      owner,
      `its new path has ${bytes.length} bytes, a socket's has at most ${longestSocketPath}`,
    );
  return { ...socket, address: new Uint8Array(end < 0 ? bytes : [...bytes, 0]) };
}
