/** node, whose event loop is an epoll set of pipes and event counters: dumped by the module, ended, restarted. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Collector } from '../../../lib/filter/check/sample.ts';
import { dumpSession, findSession } from '../../../lib/session/dump-session.ts';
import { restartSession } from '../../../lib/session/restart-session.ts';
import { removeFolder } from '../../tools/remove-folder.ts';
import { until } from '../../tools/running-program.ts';

/** Counts in its memory, by its timers, and says how far it is by its threads for files. */
const script = `
  const { writeFile, rename } = require('fs/promises');
  let count = 0;
  const turn = async () => {
    await writeFile(process.argv[1] + '.new', String(++count) + ' ' + process.pid);
    await rename(process.argv[1] + '.new', process.argv[1]);
    setTimeout(turn, 10);
  };
  turn();
`;

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

export async function runNode(say: (sentence: string) => void): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'pod-node-'));
  const path = join(folder, 'count');
  const count = () => {
    try {
      return Number(readFileSync(path, 'utf8').split(' ')[0]);
    } catch {
      return 0;
    }
  };
  const node = spawn(process.execPath, ['-e', script, path], { detached: true, stdio: 'ignore', cwd: '/' });
  let pids = [node.pid!];
  try {
    if (!(await until(() => count() > 5))) throw new Error('node does not count');
    const image = new Collector();
    const options = { producer: 'test', fate: 'kill', engine: 'kmod' } as const;
    await dumpSession(findSession(String(node.pid)), options, image);
    if (!(await until(() => !isAlive(node.pid!)))) throw new Error('node is alive after its end');
    const before = count();
    let at = 0;
    const source = (buffer: Uint8Array) => {
      const piece = image.bytes.subarray(at, at + buffer.length);
      buffer.set(piece);
      at += piece.length;
      return piece.length;
    };
    const { entry } = await restartSession(source, { name: 'node', open: (sink) => sink, warn: say });
    pids = [entry.init];
    if (!(await until(() => count() > before + 5))) throw new Error(`node does not go on from ${before}`);
    // One that had begun anew would be further back.
    return `from ${before} on`;
  } finally {
    for (const pid of pids.filter(isAlive)) process.kill(pid, 'SIGKILL');
    removeFolder(folder);
  }
}
