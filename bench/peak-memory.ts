/** The most memory each command ever has, with a large image; by /usr/bin/time, workers and children included. */
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../native/package-root.ts';
import { table } from './harness.ts';
import type { Bench } from './session.ts';

/** What issue 2 allows, kB. */
const allowed = 150_000;

export async function benchPeakMemory(
  bench: Bench,
  mebibytes: number,
): Promise<{ bytes: number; table: string }> {
  const rows: string[][] = [];
  const at = (name: string) => bench.path(name);
  const measure = (what: string, command: string, input?: string, output?: string) => {
    const peak = bench.peak(command, input, output);
    rows.push([what, `${(peak / 1000).toFixed(0)} MB`, peak < allowed ? 'yes' : '**no**']);
  };
  const [key, pub] = [at('key'), at('pub')];
  bench.run(`age-keygen -o ${key} 2>/dev/null && age-keygen -y ${key} > ${pub}`);
  const holder = await bench.hold('large', mebibytes, 'noise');
  measure('pod-dump', 'pod-dump --then kill large', undefined, at('image'));
  bench.forget('large');
  const bytes = statSync(at('image')).size;
  measure('pod-filter upgrade-2.6, nothing to do', 'pod-filter upgrade-2.6', at('image'));
  measure('pod-filter relocate', 'pod-filter relocate /nowhere=/elsewhere', at('image'));
  measure('pod-filter compress', 'pod-filter compress', at('image'), at('compressed'));
  measure('pod-filter encrypt', `pod-filter encrypt -R ${pub}`, at('image'), at('encrypted'));
  measure('pod-filter compress encrypt', `pod-filter compress encrypt -R ${pub}`, at('image'), at('both'));
  measure('pod-filter --undo compress', 'pod-filter --undo compress', at('compressed'));
  measure('pod-filter --undo encrypt', `pod-filter --undo encrypt -i ${key}`, at('encrypted'));
  measure('pod-filter --undo, both', `pod-filter --undo -i ${key}`, at('both'));
  rmSync(at('compressed'));
  rmSync(at('encrypted'));
  measure('pod-store', `pod-store ${at('drive')}`, at('both'));
  measure('pod-load', `pod-load ${at('drive')}`);
  rmSync(at('drive'), { recursive: true });
  measure('pod-inspect', 'pod-inspect', at('image'));
  bench.adopt('large');
  measure('pod-restart', 'pod-restart -d', at('image'));
  await holder.goesOn();
  bench.end('large');
  bench.adopt('large');
  measure('pod-restart, layers undone', `pod-restart -d -i ${key}`, at('both'));
  rmSync(at('image'));
  rmSync(at('both'));
  await holder.goesOn();
  measure('pod suspend, compress and encrypt', `pod suspend large ${at('drive')} -R ${pub}`);
  measure('pod resume', `pod resume -d ${at('drive')} -i ${key}`);
  await holder.goesOn();
  bench.end('large');
  rmSync(at('drive'), { recursive: true });
  const older = `${process.execPath} ${join(packageRoot(), 'dist/esm/test/tools/make-stream.js')} --semantics 2.4`;
  bench.run(`${older} --size ${mebibytes}M`, undefined, at('older'));
  measure('pod-filter upgrade-2.6, from 2.4', 'pod-filter upgrade-2.6', at('older'));
  rmSync(at('older'));
  return { bytes, table: table(['', 'peak', 'under 150 MB'], rows) };
}
