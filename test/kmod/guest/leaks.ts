/**
 * Memory that the module still has while no dump is open. The kernel, started with slub_debug, knows who allocated
 * what; a name in brackets stands behind addresses of a module.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const mark = /\[pod\]/;
/** Functions by which others get their memory. */
const allocator =
  /^(_*kv?m?z?alloc|_*kmem_cache_alloc|_*slab|_*krealloc|kmemdup|kstrdup|_*kmalloc|memdup|_*kvmalloc|set_track)/;

/** Linux 5.10 has them among the caches' attributes, later ones in debugfs. */
function traceFiles(): string[] {
  const debug = '/sys/kernel/debug';
  if (!existsSync(join(debug, 'slab')))
    try {
      execFileSync('/run/busybox', ['mount', '-t', 'debugfs', 'debugfs', debug], { stdio: 'ignore' });
    } catch {
      // It is there, and has none.
    }
  const [folder, name] = existsSync(join(debug, 'slab'))
    ? [join(debug, 'slab'), 'alloc_traces']
    : ['/sys/kernel/slab', 'alloc_calls'];
  return readdirSync(folder)
    .map((cache) => join(folder, cache, name))
    .filter((path) => existsSync(path));
}

/** Objects by who allocated them, and areas of the kernel's address space. */
export function readAllocations(): Map<string, number> {
  const found = new Map<string, number>();
  const add = (who: string, count: number) => found.set(who, (found.get(who) ?? 0) + count);
  const files = traceFiles();
  let read = 0;
  for (const path of files) {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      // A cache that is not tracked, or has just gone.
      continue;
    }
    read += 1;
    // `COUNT FUNCTION[ [MODULE]] age=…`; later kernels have the way there below it, a line a caller.
    let count = 0;
    for (const line of text.split('\n')) {
      const first = /^\s*(\d+) (?=\S+\+)/.exec(line);
      if (first) count = Number(first[1]);
      const [call] = /[a-z_]\S*\+0x\S+(?: \[\w+\])?/i.exec(line) ?? [];
      // Whoever asked an allocator counts, not the allocator.
      if (count === 0 || call === undefined || allocator.test(call)) continue;
      if (mark.test(call)) add(call.replace(/\/0x\w+/, ''), count);
      count = 0;
    }
  }
  if (read === 0) throw new Error('this kernel tells nobody who allocates: slub_debug=U is missing');
  for (const line of readFileSync('/proc/vmallocinfo', 'utf8').split('\n'))
    if (mark.test(line)) add(line.replace(/^\S+\s+/, ''), 1);
  return found;
}
