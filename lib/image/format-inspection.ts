/** What pod-inspect shows: facts of a stream as text for a person, or as plain values for JSON. */
import { printable } from '../stream/printable.ts';
import type { AddressSpaceFacts, ImageFacts, KindFacts, OuterFacts, ProcessFacts } from './inspect.ts';
import type { Records } from './record.ts';

export interface Inspection {
  /** Names of the layers that were taken off, outermost first. */
  opened: string[];
  outer: OuterFacts;
  image?: ImageFacts;
  /** Why the inside was not looked at. */
  closed?: string;
  /** Set by --verify. */
  verified?: true;
}

/** For JSON: 64-bit numbers as numbers where they are exact, addresses in hex, byte strings in hex. */
export function plainInspection(inspection: Inspection): unknown {
  return JSON.parse(
    JSON.stringify(inspection, (key, value: unknown) => {
      if (typeof value === 'bigint') {
        if (key === 'start' || key === 'end') return `0x${value.toString(16)}`;
        // Times since the epoch are above 2^53; all times alike, so that a script meets one type.
        if (key.endsWith('Ns')) return value.toString();
        return value <= Number.MAX_SAFE_INTEGER && value >= Number.MIN_SAFE_INTEGER
          ? Number(value)
          : value.toString();
      }
      if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
      return value;
    }),
  );
}

export function formatInspection(inspection: Inspection): string {
  const { outer, image, opened, closed } = inspection;
  const hello = image?.hello ?? outer.hello;
  const lines: string[] = [];
  const imageId = hello?.imageId ?? outer.layer?.imageId ?? 'unknown';
  const pod = hello?.pod ?? outer.layer?.pod;
  lines.push(`image ${imageId}${pod === undefined ? '' : ` of pod ${text(pod)}`}`);
  lines.push(`stream ${size(outer.bytes)}${layerLine(outer, opened)}`);
  if (closed !== undefined) lines.push(`closed: ${closed}`);
  if (hello) lines.push(...helloLines(hello));
  if (image) {
    lines.push('', 'processes', ...treeLines(image));
    for (const space of image.addressSpaces) lines.push('', ...mapLines(space, image.processes));
    if (image.places.length > 0) {
      lines.push('', 'mounts and files that travel');
      for (const { what, saved } of image.places) lines.push(`  ${text(what)}, ${size(saved)} saved`);
    }
    if (image.sharedMemory.length > 0) {
      lines.push('', 'shared memory');
      for (const { id, origin, name, size: bytes, saved } of image.sharedMemory) {
        lines.push(`  shm ${id}  ${origin} ${text(name)}  ${size(bytes)}, ${size(saved)} saved`);
      }
    }
    lines.push('', 'files', ...fileLines(image));
    lines.push('', 'sizes by kind', ...sizeLines(image.kinds));
  } else {
    lines.push('', 'sizes by kind', ...sizeLines(outer.kinds));
  }
  if (inspection.verified) {
    lines.push(
      '',
      image ? 'verified: whole, and its records fit together' : 'verified: whole, as far as can be seen',
    );
  }
  return `${lines.join('\n')}\n`;
}

function layerLine(outer: OuterFacts, opened: string[]): string {
  const { layer } = outer;
  if (!layer)
    return opened.length === 0 ? ', no layers' : `, without frames around: ${opened.map(text).join(', ')}`;
  const params = Object.keys(layer.params).length > 0 ? ` ${text(JSON.stringify(layer.params))}` : '';
  const [, ...inside] = opened;
  const names = [`${text(layer.filter)} ${text(layer.version)}${params}`, ...inside.map(text)];
  return `, layers (outermost first): ${names.join(', ')}${opened.length === 0 ? ', …' : ''}`;
}

function helloLines(hello: Records['hello']): string[] {
  const made = new Date(Number(hello.clocks.realtimeNs / 1_000_000n));
  const when = Number.isNaN(made.getTime()) ? 'an unknown time' : made.toISOString();
  const lines = [
    `made ${when} by ${text(hello.producer)}, ${hello.engine} engine, on ${text(hello.kernel)} ${text(hello.arch)}, pages of ${hello.pageSize}`,
    `semantics ${hello.semantics}${hello.requires.length > 0 ? `, requires ${hello.requires.map(text).join(', ')}` : ''}`,
  ];
  if (hello.history.length > 0) {
    lines.push(
      `turned by ${hello.history.map((each) => `${text(each.filter)} ${text(each.version)}`).join(', ')}`,
    );
  }
  for (const loss of hello.losses ?? []) lines.push(`will be lost: ${text(loss)}`);
  return lines;
}

/** The tree, children indented below their parents; a child whose parent is not there stands at the left. */
function treeLines({ processes, addressSpaces }: ImageFacts): string[] {
  const saved = new Map(addressSpaces.map((space) => [space.id, space.saved]));
  const pids = new Set(processes.map(({ pid }) => pid));
  const children = new Map<number, ProcessFacts[]>();
  for (const process of processes) {
    // A damaged tree may hold cycles: only parents that came before count, so that the walk ends.
    const parent = pids.has(process.ppid) && process.ppid !== process.pid ? process.ppid : 0;
    children.set(parent, [...(children.get(parent) ?? []), process]);
  }
  const lines: string[] = [];
  const seen = new Set<number>();
  const waiting = (children.get(0) ?? []).map((process) => ({ process, depth: 0 })).reverse();
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const { process, depth } = next;
    if (seen.has(process.pid)) continue;
    seen.add(process.pid);
    const threads = process.threads > 1 ? `, ${process.threads} threads` : '';
    const memory =
      process.mm === undefined ? '' : `, memory ${process.mm} (${size(saved.get(process.mm) ?? 0)})`;
    const state = process.state === 'alive' ? '' : `, ${process.state}`;
    const groups = `session ${process.sid} group ${process.pgid}`;
    lines.push(
      `  ${'  '.repeat(Math.min(depth, 40))}${process.pid} ${text(process.comm)}  ${groups}${state}${threads}${memory}`,
    );
    for (const child of (children.get(process.pid) ?? []).toReversed()) {
      waiting.push({ process: child, depth: depth + 1 });
    }
  }
  return lines;
}

function mapLines(space: AddressSpaceFacts, processes: ProcessFacts[]): string[] {
  const users = processes.filter((process) => process.mm === space.id).map(({ pid }) => pid);
  const lines = [
    `memory ${space.id} of ${users.join(', ') || 'nobody'}: ${text(space.exe)}, ${space.areas.length} areas, ${size(space.size)}, ${size(space.saved)} saved`,
  ];
  for (const { start, end, access, what, saved } of space.areas) {
    const range = `${hex(start)}-${hex(end)}`;
    lines.push(
      `  ${range} ${access} ${size(end - start).padStart(8)} ${size(saved).padStart(8)}  ${text(what)}`.trimEnd(),
    );
  }
  return lines;
}

function fileLines({ descriptors, openFiles, processes }: ImageFacts): string[] {
  const byId = new Map(openFiles.map((file) => [file.id, file]));
  const users = new Map<number, number[]>();
  for (const { pid, files } of processes) {
    if (files !== undefined) users.set(files, [...(users.get(files) ?? []), pid]);
  }
  const lines: string[] = [];
  let table: number | undefined;
  for (const descriptor of descriptors) {
    if (descriptor.table !== table) {
      table = descriptor.table;
      lines.push(`  of ${users.get(table)?.join(', ') ?? 'nobody'}`);
    }
    const file = byId.get(descriptor.file);
    const content = file && file.content > 0 ? `, ${size(file.content)} with it` : '';
    const what = file ? `${file.kind} ${text(file.what)}${content}` : 'missing';
    lines.push(`    ${String(descriptor.fd).padStart(4)} → ${String(descriptor.file).padEnd(4)} ${what}`);
  }
  return lines;
}

function sizeLines(kinds: KindFacts[]): string[] {
  return kinds.map(
    ({ kind, frames, bytes }) => `  ${size(bytes).padStart(9)}  ${String(frames).padStart(7)} × ${kind}`,
  );
}

const text = (value: string) => printable(value, 300);
const hex = (address: bigint) => address.toString(16).padStart(12, '0');

/** Bytes with a binary unit: 17.3M. */
function size(bytes: number | bigint): string {
  let value = Number(bytes);
  for (const unit of ['', 'K', 'M', 'G', 'T', 'P']) {
    if (value < 1024 || unit === 'P')
      return unit === '' || value >= 100 ? `${Math.round(value)}${unit}` : `${value.toFixed(1)}${unit}`;
    value /= 1024;
  }
  return String(bytes);
}
