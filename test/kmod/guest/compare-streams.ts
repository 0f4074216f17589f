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

type Meta = Record<string, unknown>;

/** By record: what is of the moment, or of the engine. */
const different: Record<string, readonly string[]> = {
  hello: ['engine', 'imageId', 'clocks', 'memory'],
  process: ['processorTime'],
  thread: ['processorTime'],
};

interface Content {
  records: string[];
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
      const data = frame.data.length > 0 ? ` ${createHash('sha256').update(frame.data).digest('hex')}` : '';
      content.records.push(`${name} ${toText(meta)}${data}`);
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

function differences(user: Content, kmod: Content): string[] {
  const found: string[] = [];
  const only = (who: string, mine: readonly string[], theirs: readonly string[]) => {
    for (const each of mine) if (!theirs.includes(each)) found.push(`only ${who}: ${each}`);
  };
  only('user', user.records, kmod.records);
  only('kmod', kmod.records, user.records);
  const places = new Set([...user.pages.keys(), ...kmod.pages.keys()]);
  for (const place of places)
    if (user.pages.get(place) !== kmod.pages.get(place))
      found.push(`page ${place}: user ${user.pages.get(place)}, kmod ${kmod.pages.get(place)}`);
  if (kmod.pages.size === 0) found.push('the module sends no pages');
  return found;
}

export async function compareStreams(): Promise<string> {
  // Three processes: a wait and two reads, of a FIFO and of a pipe. None has a time-out, whose rest is of the moment.
  const script = 'mkfifo /tmp/compare-fifo; exec 3<>/tmp/compare-fifo; cat <&3 | cat >/dev/null; exit 3';
  const session = spawn('/run/busybox', ['sh', '-c', script], {
    detached: true,
    stdio: 'ignore',
    cwd: '/',
  });
  try {
    await sleep(1000);
    const image = (engine: string) => {
      const path = `/tmp/compare-${engine}`;
      execFileSync('/run/busybox', [
        'sh',
        '-c',
        `"$0" --engine ${engine} ${session.pid} > ${path}`,
        join(packageRoot(), 'dist/bin/pod-dump'),
      ]);
      return read(readFileSync(path));
    };
    // The first dump leaves its traces: a call that the kernel has begun again.
    image('user');
    const found = differences(image('user'), image('kmod'));
    return found.length === 0 ? 'ok' : found.join('\n').slice(0, 20_000);
  } finally {
    process.kill(-session.pid!, 'SIGKILL');
  }
}
