/**
 * `npm run bench [-- NAME…] [--runs N] [--quick]`: run the benchmarks (filters, dump, restart, tree, start-up, life,
 * overhead, memory; all by default) and print Markdown. --quick takes small sizes, to try the benchmarks themselves.
 */
import { parseArgs } from 'node:util';
import { benchLife, benchStartUp } from './commands.ts';
import { benchDump, benchSmallDump } from './dump.ts';
import { benchFilters } from './filters.ts';
import { machine, showTime, watchMachine } from './harness.ts';
import { benchOverhead } from './overhead.ts';
import { benchPeakMemory } from './peak-memory.ts';
import { benchRestart } from './restart.ts';
import { Bench } from './session.ts';
import { benchTree } from './tree.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { runs: { type: 'string', default: '5' }, quick: { type: 'boolean', default: false } },
});
const runs = Number(values.runs);
const { quick } = values;
const sizes = quick ? [8, 50] : [50, 1024];

const benches: Record<string, (bench: Bench) => Promise<string>> = {
  filters: async (bench) => {
    const { bytes, times, sizes } = await benchFilters(bench, { runs, mebibytes: quick ? 60 : 640 });
    return `An image of ${bytes} bytes, ${runs} pairs of runs.\n\n${times}\n\n${sizes}`;
  },
  dump: async (bench) => {
    const rows = await benchDump(bench, { runs, sizes });
    return `${rows}\n\nWith 1 MiB of memory the session is stopped for ${showTime(await benchSmallDump(bench, runs))}.`;
  },
  restart: (bench) => benchRestart(bench, { runs, sizes }),
  tree: (bench) => {
    const trees = [
      { processes: quick ? 20 : 200, threads: 0 },
      { processes: 1, threads: quick ? 100 : 1000 },
    ];
    return benchTree(bench, { runs, trees });
  },
  'start-up': (bench) => benchStartUp(bench, 2 * runs),
  life: (bench) => benchLife(bench, runs),
  overhead: (bench) => benchOverhead(bench, 30 * runs),
  memory: async (bench) => {
    const { bytes, table } = await benchPeakMemory(bench, quick ? 200 : 2048);
    return `An image of ${bytes} bytes.\n\n${table}`;
  },
};

const wanted = positionals.length > 0 ? positionals : Object.keys(benches);
const unknown = wanted.find((name) => !(name in benches));
if (unknown !== undefined || !(runs >= 1)) {
  console.error(
    unknown === undefined
      ? 'bench: error: --runs wants a number above 0'
      : `bench: error: there is no benchmark ${unknown}\nbench: hint: ${Object.keys(benches).join(', ')}`,
  );
  process.exit(2);
}

console.log(`${machine()}; ${new Date().toISOString().slice(0, 16)}Z\n`);
const bench = new Bench();
process.env['POD_RUNTIME_DIR'] = bench.environment['POD_RUNTIME_DIR'];
try {
  for (const name of wanted) {
    const watched = watchMachine();
    const text = await benches[name]!(bench);
    console.log(`## ${name}\n\n${text}\n\n(${watched()})\n`);
  }
} finally {
  bench.close();
}
