/**
 * Compressing and encrypting a real image against `zstd -1 -T2 | age` on the same bytes, and back again.
 *
 * The image is the dump of a process with mixed contents (bench/memory.c); it lies in memory, so that both read it
 * from there, and both write there.
 */
import { rmSync, statSync } from 'node:fs';
import { compare, showRate, showRatio, table } from './harness.ts';
import type { Bench } from './session.ts';

/** `bytes` of the image, and the tables of times and sizes. */
export async function benchFilters(
  bench: Bench,
  options: { runs: number; mebibytes: number },
): Promise<{ bytes: number; times: string; sizes: string }> {
  await bench.hold('mixed', options.mebibytes, 'mixed');
  const image = bench.path('image');
  bench.take('mixed', image);
  const [key, pub] = [bench.path('filters.key'), bench.path('filters.pub')];
  bench.run(`age-keygen -o ${key} 2>/dev/null && age-keygen -y ${key} > ${pub}`);
  const bytes = statSync(image).size;
  const rows: string[][] = [];
  const sizes = new Map<string, number>();

  /** Time two shell lines on one input; their outputs stay in `keep` and are measured. */
  const duel = async (what: string, ours: string, peer: string, keep: { input?: [string, string] } = {}) => {
    const [oursIn, peerIn] = keep.input ?? [image, image];
    const [oursOut, peerOut] = [bench.path('ours.out'), bench.path('peer.out')];
    const pair = await compare(
      options.runs,
      () => bench.run(ours, oursIn, oursOut),
      () => bench.run(peer, peerIn, peerOut),
    );
    sizes.set(ours, statSync(oursOut).size).set(peer, statSync(peerOut).size);
    rows.push([
      what,
      `\`${peer.replace(pub, 'PUB').replace(key, 'KEY').replace('|', '\\|')}\``,
      showRate(bytes, pair.ours),
      showRate(bytes, pair.peer),
      showRatio(pair),
    ]);
  };

  const stock = `zstd -q -1 -T2 -c | age -R ${pub}`;
  const one = `pod-filter compress encrypt -R ${pub}`;
  const two = `pod-filter compress | pod-filter encrypt -R ${pub}`;
  const zstd = 'zstd -q -1 -T2 -c';
  await duel('compress and encrypt, one process', one, stock);
  await duel('compress \\| encrypt, two processes', two, stock);
  await duel('compress alone', 'pod-filter compress', zstd);
  await duel('encrypt alone', `pod-filter encrypt -R ${pub}`, `age -R ${pub}`);
  const [sealed, stockSealed] = [bench.path('sealed'), bench.path('stock-sealed')];
  bench.run(one, image, sealed);
  bench.run(stock, image, stockSealed);
  const stockBack = `age -d -i ${key} | zstd -q -d -c`;
  const input: [string, string] = [sealed, stockSealed];
  await duel('both undone, one process', `pod-filter --undo -i ${key}`, stockBack, { input });
  bench.run(`cmp ${image} ${bench.path('ours.out')} && cmp ${image} ${bench.path('peer.out')}`);
  await duel(
    'both undone, two processes',
    `pod-filter --undo encrypt -i ${key} | pod-filter --undo compress`,
    stockBack,
    { input },
  );
  for (const name of ['image', 'ours.out', 'peer.out', 'sealed', 'stock-sealed']) rmSync(bench.path(name));

  const size = (line: string, what: string) => {
    const length = sizes.get(line)!;
    return [what, String(length), `${((100 * length) / bytes).toFixed(2)} %`];
  };
  return {
    bytes,
    times: table(['', 'peer', 'podstream', 'peer', 'ratio'], rows),
    sizes: table(
      ['', 'bytes', 'of the image'],
      [
        ['the image', String(bytes), '100 %'],
        size('pod-filter compress', 'compress'),
        size(zstd, '`zstd -1 -T2`'),
        size(one, 'compress encrypt'),
        size(stock, '`zstd -1 -T2 \\| age`'),
      ],
    ),
  };
}
