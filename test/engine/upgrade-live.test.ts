/**
 * A live session goes back to Linux 2.4 and forward again: pod-dump | as-2.4 | pod-filter upgrade-2.6 |
 * pod-restart. The program of the session made its threads the LinuxThreads way and goes on checking itself.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { type House, makeHouse, users } from '../pod/house.ts';
import { buildProgram, readProgram } from '../tools/programs.ts';
import { checkReferences, metaOf, metasOf, readImage } from '../tools/records.ts';
import { makeProgramFolder, RunningProgram } from '../tools/running-program.ts';

const as24 = `"${process.execPath}" "${join(packageRoot(), 'dist/esm/test/tools/as-2.4.js')}"`;

/** A shell line as the house's user; the exit status of each stage. */
function runPipeline(house: House, line: string): { stages: number[]; stderr: string } {
  const [program, ...args] = house.line('pod-ps');
  // The commands run as who runs pod-ps; what stands before node in its line makes it so.
  const prefix = [program, ...args].slice(0, [program, ...args].indexOf(process.execPath));
  const shell = [...prefix, 'bash', '-c', `${line}; echo "\${PIPESTATUS[@]}"`];
  const result = spawnSync(shell[0]!, shell.slice(1), { env: house.env, cwd: '/', timeout: 120_000 });
  return {
    stages: result.stdout.toString().trim().split('\n').at(-1)!.split(' ').map(Number),
    stderr: result.stderr.toString(),
  };
}

/** Pids of a process or thread in all pid namespaces it is in; the innermost last. */
function pidsOf(path: string): number[] {
  const line = /^NSpid:\t(.*)$/m.exec(readFileSync(`${path}/status`, 'latin1'))!;
  return line[1]!.split('\t').map(Number);
}

const innerPid = (path: string): number => pidsOf(path).at(-1)!;
const sorted = (numbers: number[]): number[] => numbers.sort((a, b) => a - b);

async function startProgram(
  house: House,
  name: string,
  ...options: string[]
): Promise<{ running: RunningProgram; executable: string }> {
  const executable = await buildProgram(readProgram(name));
  const running = new RunningProgram(makeProgramFolder(name));
  // 2.4 knew terminals, but this is about threads: nothing is open but what the program opens.
  const line = ['exec', executable, running.folder, ...options, '<&-', '>&-', '2>&-'].join(' ');
  const started = house.run('pod-run', ['--name', 'old', '-d', '--', 'sh', '-c', line]);
  if (started.status !== 0) throw new Error(started.stderr);
  await running.ready();
  await running.beatOn();
  return { running, executable };
}

function readTasks(running: RunningProgram): number[] {
  return readFileSync(join(running.folder, 'pids'), 'utf8').trim().split(' ').map(Number);
}

interface Mode {
  name: string;
  program: string[];
  filter: string;
  processes: number;
}

const modes: Mode[] = [
  { name: 'LinuxThreads stay processes', program: [], filter: 'upgrade-2.6', processes: 5 },
  {
    name: '--merge-threads makes them threads',
    program: ['--no-signals'],
    filter: 'upgrade-2.6 --merge-threads',
    processes: 1,
  },
];

t.setTimeout(300_000);
for (const user of users) {
  for (const mode of modes) {
    t.test(`${mode.name}, as ${user}`, async (t) => {
      const house = makeHouse(t, user);
      const { running } = await startProgram(house, 'linuxthreads', ...mode.program);
      t.teardown(() => running.remove());
      const tasks = readTasks(running);
      t.equal(tasks.length, 5);
      const image = join(house.folder, 'image');
      const dumped = runPipeline(
        house,
        `pod-dump --then kill old | ${as24} | pod-filter ${mode.filter} > "${image}"`,
      );
      t.same(dumped.stages, [0, 0, 0], dumped.stderr);
      t.same(running.pids(), [], 'the session is gone');
      const before = running.beats;

      const bytes = readFileSync(image);
      checkReferences(bytes);
      const records = readImage(bytes);
      t.same(
        metaOf(records, 'hello').history.map((line) => line.filter),
        ['as-2.4', 'upgrade-2.6'],
      );
      t.equal(metaOf(records, 'hello').semantics, '2.6');
      t.equal(metasOf(records, 'process').length, mode.processes);
      t.same(sorted(metasOf(records, 'thread').map((thread) => thread.tid)), tasks);

      const restarted = runPipeline(house, `pod-restart -d < "${image}"`);
      t.same(restarted.stages, [0], restarted.stderr);
      await running.beatOn(10);
      t.ok(running.beats > before, 'it goes on');
      const [session] = house.ps();
      t.equal(session?.processes, mode.processes);
      const host = session!.mainHost;
      const parts =
        mode.processes === 1
          ? readdirSync(`/proc/${host}/task`).map((tid) => innerPid(`/proc/${host}/task/${tid}`))
          : taskTree(host).map((pid) => innerPid(`/proc/${pid}`));
      t.same(sorted(parts), tasks, 'with the old pids');
      t.equal(await running.finish(), 'ok', 'and finds everything right');
    });
  }
}

/** A process and what descends from it, host pids. */
function taskTree(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
  return [pid, ...children.trim().split(' ').filter(Boolean).map(Number).flatMap(taskTree)];
}

t.test('what cannot go there or back is refused, and the session goes on', async (t) => {
  const house = makeHouse(t, users[0]!);
  const { running } = await startProgram(house, 'linuxthreads');
  t.teardown(() => running.remove());
  const merged = runPipeline(
    house,
    `pod-dump old | ${as24} | pod-filter upgrade-2.6 --merge-threads | cat > /dev/null`,
  );
  t.same(merged.stages, [0, 0, 32, 0]);
  t.match(merged.stderr, /pod-filter.*: error: cannot upgrade process \d+: .* handler for signal 32/);
  t.match(merged.stderr, /hint: leave out --merge-threads/);
  const twice = runPipeline(house, `pod-dump old | ${as24} | ${as24} | cat > /dev/null`);
  t.same(twice.stages, [0, 0, 2, 0], twice.stderr);
  const old = runPipeline(house, `pod-dump old | ${as24} | pod-restart -d --name new`);
  t.same(old.stages.at(-1), 12, 'an image of 2.4 is not restarted as it is');
  t.match(old.stderr, /upgrade-2\.6/);
  await running.beatOn(5);
  t.equal(await running.finish(), 'ok');
});

t.test('a program with the C library of today cannot go back', async (t) => {
  const house = makeHouse(t, users[0]!);
  const { running } = await startProgram(house, 'compute');
  t.teardown(() => running.remove());
  const { stages, stderr } = runPipeline(house, `pod-dump old | ${as24} | cat > /dev/null`);
  t.same(stages, [0, 32, 0], stderr);
  t.match(stderr, /as-2\.4: error: thread \d+ has .*, which 2\.4 lacked/);
  await running.beatOn(5);
  t.equal(await running.finish(), 'ok');
});
