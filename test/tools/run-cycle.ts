/**
 * By hand: `node dist/esm/test/tools/run-cycle.js PROGRAM [MODE [root|nobody [pod|pid]]]`, e.g.
 * `run-cycle.js pipes restart root pod`; `all` runs every program. POD_TEST_KEEP=1 keeps the folder with the images.
 */
import { type CycleOptions, cycle, type Mode } from './cycle.ts';
import { listPrograms } from './programs.ts';

const [name = 'all', mode = 'restart', as = 'root', via = 'pod'] = process.argv.slice(2);
const options = { mode: mode as Mode, as, via } as CycleOptions;
for (const program of listPrograms()) {
  if (name !== 'all' && !name.split(',').includes(program.name)) continue;
  if (program.lacking !== undefined) {
    console.log(`ok ${program.name} # SKIP ${program.lacking}`);
    continue;
  }
  const report = await cycle(program, options);
  console.log(report === 'ok' ? `ok ${program.name}` : `not ok ${report}`);
  if (report !== 'ok') process.exitCode = 1;
}
