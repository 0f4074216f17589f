/**
 * The same quiet session dumped by the module and by the user engine: the streams differ in the fields that
 * docs/kmod.md lists, and in nothing else.
 */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { kindName } from '../../../lib/stream/kind.ts';
import { StreamParser } from '../../../lib/stream/stream-parser.ts';
import { packageRoot } from '../../../native/package-root.ts';
import { compared } from '../programs.ts';
import { startPlain } from './plain-session.ts';

type Meta = Record<string, unknown>;

/** By record: what is of the moment, or of the engine. */
const different: Record<string, readonly string[]> = {
  hello: ['engine', 'imageId', 'clocks', 'memory'],
  process: ['processorTime'],
  thread: ['processorTime'],
};

interface Entry {
  name: string;
  meta: Meta;
  /** Of the data, if there are any. */
  data: string | undefined;
}

interface Content {
  records: Entry[];
  /** Page by page: which address space or segment, where, what. */
  pages: Map<string, string>;
}

const toText = (value: unknown) =>
  JSON.stringify(value, (_key, each: unknown) =>
    typeof each === 'bigint'
      ? `${each}n`
      : each instanceof Uint8Array
        ? Buffer.from(each).toString('hex')
        : each && typeof each === 'object' && !Array.isArray(each)
          ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
          : each,
  );

/** Before Linux 6.3 nobody is told of a registration for global memory barriers: the user engine takes it as given. */
const globalBarriers = 4;
const barriersAreTold = (() => {
  const [major, minor] = release().split('.').map(Number) as [number, number];
  return major > 6 || (major === 6 && minor >= 3);
})();

const pageSize = 4096;
const zeros = Buffer.alloc(pageSize);

function read(image: Uint8Array): Content {
  const content: Content = { records: [], pages: new Map() };
  const parser = new StreamParser({
    frame(frame) {
      const name = kindName(frame.kind);
      if (name === undefined || name === 'end') return;
      const meta = { ...(frame.meta as Meta) };
      if (name === 'pages') {
        for (let at = 0; at < frame.data.length; at += pageSize) {
          const page = frame.data.subarray(at, at + pageSize);
          if (zeros.equals(page)) continue;
          const place = `${meta['mm'] ?? 'shm'} ${meta['shm'] ?? ''} ${((meta['addr'] as bigint) + BigInt(at)).toString(16)}`;
          content.pages.set(place, createHash('sha256').update(page).digest('hex'));
        }
        return;
      }
      for (const field of different[name] ?? []) delete meta[field];
      if (name === 'mm' && !barriersAreTold) {
        const rest = Number(meta['membarrier'] ?? 0) & ~globalBarriers;
        if (rest === 0) delete meta['membarrier'];
        else meta['membarrier'] = rest;
      }
      const data = frame.data.length > 0 ? createHash('sha256').update(frame.data).digest('hex') : undefined;
      content.records.push({ name, meta, data });
    },
    end() {},
    abort(cause) {
      throw cause;
    },
  });
  parser.write(image);
  parser.end();
  return content;
}

function onlyIn(user: readonly Entry[], kmod: readonly Entry[]): string[] {
  const [ours, theirs] = [user, kmod].map((entries) =>
    entries.map(({ name, meta, data }) => [name, toText(meta), data ?? ''].join(' ')),
  ) as [string[], string[]];
  return [
    ...ours.filter((each) => !theirs.includes(each)).map((each) => `only user: ${each}`),
    ...theirs.filter((each) => !ours.includes(each)).map((each) => `only kmod: ${each}`),
  ];
}

function differences(user: Content, kmod: Content): string[] {
  const found = onlyIn(user.records, kmod.records);
  const places = new Set([...user.pages.keys(), ...kmod.pages.keys()]);
  for (const place of places)
    if (user.pages.get(place) !== kmod.pages.get(place))
      found.push(`page ${place}: user ${user.pages.get(place)}, kmod ${kmod.pages.get(place)}`);
  if (kmod.pages.size === 0) found.push('the module sends no pages');
  return found;
}

function imageOf(engine: string, pid: number): Content {
  const path = `/tmp/compare-${engine}`;
  execFileSync('/run/busybox', [
    'sh',
    '-c',
    `"$0" --engine ${engine} ${pid} > ${path}`,
    join(packageRoot(), 'dist/bin/pod-dump'),
  ]);
  return read(readFileSync(path));
}

export async function compareStreams(): Promise<string> {
  const found = await compareQuiet();
  for (const [program, kinds] of Object.entries(compared))
    found.push(...(await compareObjects(program, kinds)));
  return found.length === 0 ? 'ok' : found.join('\n').slice(0, 20_000);
}

/** Files by a descriptor instead of a number, which is another while the program has one more file open. */
function filesByDescriptor(records: readonly Entry[]): (value: unknown) => unknown {
  const names = new Map<unknown, string>();
  for (const { name, meta } of records) {
    if (name !== 'fd-table') continue;
    for (const { fd, file } of meta['entries'] as { fd: number; file: number }[])
      if (!names.has(file)) names.set(file, `${fd} in table ${meta['id']}`);
  }
  const translate = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(translate);
    if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, each]) =>
        ['id', 'file', 'peer'].includes(key) ? [key, names.get(each)] : [key, translate(each)],
      ),
    );
  };
  return translate;
}

async function compareObjects(program: string, kinds: (typeof compared)[string]): Promise<string[]> {
  const session = await startPlain(program);
  try {
    const chosen = ({ records }: Content) => {
      const some = records.filter(({ name }) => name in kinds);
      if (some.length === 0) throw new Error(`${program} has no ${Object.keys(kinds).join(', ')}`);
      const nameFiles = filesByDescriptor(records);
      return some.map(({ name, meta, data }) => ({
        name,
        meta: nameFiles(
          Object.fromEntries(Object.entries(meta).filter(([key]) => !kinds[name]!.includes(key))),
        ) as Meta,
        data,
      }));
    };
    const [user, kmod] = ['user', 'kmod'].map((engine) => chosen(imageOf(engine, session.pid)));
    return onlyIn(user!, kmod!).map((each) => `${program}: ${each}`);
  } finally {
    await session.running.remove();
  }
}

async function compareQuiet(): Promise<string[]> {
  // Three processes: a wait and two reads, of a FIFO and of a pipe. None has a time-out, whose rest is of the moment.
  const script = 'mkfifo /tmp/compare-fifo; exec 3<>/tmp/compare-fifo; cat <&3 | cat >/dev/null; exit 3';
  const session = spawn('/run/busybox', ['sh', '-c', script], {
    detached: true,
    stdio: 'ignore',
    cwd: '/',
  });
  try {
    await sleep(1000);
    // The first dump leaves its traces: a call that the kernel has begun again.
    imageOf('user', session.pid!);
    return differences(imageOf('user', session.pid!), imageOf('kmod', session.pid!));
  } finally {
    process.kill(-session.pid!, 'SIGKILL');
  }
}
