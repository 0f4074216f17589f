/**
 * Kills pod-store (-9) at random moments, and at the same moments takes the drive as it lies on its raw image,
 * without any sync: the state a power cut would leave. After each:
 *
 * - HEAD's generation, on the drive and in the copy, is whole, and is the one before or the new one;
 * - a receipt, or exit 0, is there only if it is the new one, in the copy too;
 * - a waiting dumper learns that the store died;
 * - the file system checks clean (copy), and the next store works and clears up.
 *
 * (Debian's user-mode-linux runs it on a kernel with FAT: test/drive/on-uml.sh.)
 *
 *     npm run test:faults [-- --rounds 100 --type ext4|vfat --seed N]
 *
 * The copy is taken while pod-store is stopped, twice until both are equal, so that it is one moment's. What lies
 * in the image file counts as durable: a drive that loses what it acknowledged is not simulated.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { listGenerations, loadInto, storeSink } from '../../lib/drive/index.ts';
import { expectReceipt, waitForReceipt } from '../../lib/runtime/receipt.ts';
import { PodError } from '../../lib/stream/error.ts';
import { environment } from '../tools/commands.ts';
import { type Drive, type DriveType, makeDrive, mount, run, whyNoDrive } from '../tools/drive.ts';
import { imageIdOf, makeStream, streamBytes } from '../tools/make-stream.ts';

export interface CampaignOptions {
  type: DriveType;
  rounds: number;
  seed: number;
  log?(line: string): void;
}

export interface CampaignResult {
  rounds: number;
  /** How often the new generation was current after the kill, the old one, or the store had just finished. */
  outcomes: { new: number; old: number; finished: number };
  /** The same for the copies. */
  copies: { new: number; old: number };
  failures: string[];
}

type Random = () => number;

/** mulberry32: a campaign can be run again. */
function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const undo: (() => void)[] = [];
  const test = { teardown: (handler: () => void) => undo.unshift(handler) };
  const runtime = mkdtempSync('/tmp/pod-campaign-');
  undo.push(() => rmSync(runtime, { recursive: true }));
  const before = process.env.POD_RUNTIME_DIR;
  process.env.POD_RUNTIME_DIR = runtime;
  try {
    return await new Campaign(
      options,
      makeDrive(test, options.type, options.type === 'vfat' ? 40 : 24),
      runtime,
    ).run();
  } finally {
    if (before === undefined) delete process.env.POD_RUNTIME_DIR;
    else process.env.POD_RUNTIME_DIR = before;
    for (const step of undo) step();
  }
}

class Campaign {
  readonly #options: CampaignOptions;
  readonly #drive: Drive;
  readonly #pod: string;
  readonly #runtime: string;
  readonly #random: Random;
  readonly #result: CampaignResult;
  #current: Buffer;

  constructor(options: CampaignOptions, drive: Drive, runtime: string) {
    this.#options = options;
    this.#drive = drive;
    this.#runtime = runtime;
    this.#pod = join(drive.path, 'quake');
    mkdirSync(`${drive.path}.copy`);
    this.#random = randomFrom(options.seed);
    this.#result = {
      rounds: 0,
      outcomes: { new: 0, old: 0, finished: 0 },
      copies: { new: 0, old: 0 },
      failures: [],
    };
    this.#current = streamBytes({ seed: 0x5eed });
    makeStream(storeSink(this.#pod), { seed: 0x5eed });
  }

  async run(): Promise<CampaignResult> {
    for (let round = 1; round <= this.#options.rounds; round++) {
      try {
        await this.#round(round);
      } catch (cause) {
        this.#result.failures.push(`round ${round}, seed ${this.#options.seed}: ${(cause as Error).stack}`);
      }
      this.#result.rounds = round;
    }
    return this.#result;
  }

  async #round(round: number): Promise<void> {
    const size = Math.floor(4096 + this.#random() * (2 << 20));
    const bytes = streamBytes({ seed: round, size, layer: 'encrypt' });
    expectReceipt(imageIdOf(round));
    const child = spawn('pod-store', ['--segment-size', '512k', this.#pod], {
      env: environment(this.#runtime),
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const exited = once(child, 'exit') as Promise<[number | null]>;
    child.stdin.on('error', () => undefined);
    await this.#feed(child, bytes);
    await stop(child);
    const receipt = this.#hasReceipt(round);
    // A new name each time: a loop device that is still being released must not be taken for this one's.
    const copy = { ...this.#drive, image: `${this.#drive.image}.${round}`, path: `${this.#drive.path}.copy` };
    this.#copyImage(copy.image);
    child.kill('SIGKILL');
    const [status] = await exited;

    const now = load(this.#pod);
    const isNew = now.equals(bytes);
    const old = this.#current;
    this.#current = now;
    if (!isNew && !now.equals(old))
      throw new Error('the current generation is neither the old nor the new one');
    if ((receipt || status === 0) && !isNew)
      throw new Error(`receipt ${receipt}, status ${status}, but the old generation is current`);
    if (status === 0) this.#result.outcomes.finished += 1;
    else this.#result.outcomes[isNew ? 'new' : 'old'] += 1;
    if (!this.#hasReceipt(round)) {
      const told = await waitForReceipt(imageIdOf(round), { firstSignMs: 0 }).then(
        () => 'a receipt',
        (cause) => PodError.from(cause).failure,
      );
      // Killed before it began, nobody ever showed up.
      if (told !== 'drive' && told !== 'upstream') throw new Error(`the dumper was told ${told}`);
    }
    try {
      this.#checkCopy(copy, bytes, old, receipt || status === 0);
    } finally {
      rmSync(copy.image);
    }
    this.#options.log?.(
      `round ${round}: ${size} bytes, ${status === 0 ? 'finished' : 'killed'}, ${isNew ? 'new' : 'old'} generation, ${readdirSync(this.#pod).length} files`,
    );
  }

  /** All, or a part, of the stream; then some time, about as long as what is being done. */
  async #feed(child: ChildProcess, bytes: Buffer): Promise<void> {
    const whole = this.#random() < 0.7;
    const part = whole ? bytes : bytes.subarray(0, Math.floor(this.#random() * bytes.length));
    await new Promise<void>((resolve) => child.stdin!.write(part, () => resolve()));
    if (whole) child.stdin!.end();
    const until = performance.now() + this.#random() * (whole ? 40 : 10);
    // Not a timer: those are too coarse for the few milliseconds that matter.
    while (performance.now() < until && child.exitCode === null)
      await new Promise((resolve) => setImmediate(resolve));
  }

  #hasReceipt(round: number): boolean {
    return existsSync(join(this.#runtime, 'receipts', `${imageIdOf(round)}.json`));
  }

  #copyImage(image: string): void {
    for (;;) {
      copyFileSync(this.#drive.image, image);
      if (readFileSync(image).equals(readFileSync(this.#drive.image))) return;
    }
  }

  /** The state after a power cut: check the file system, mount, load, store once more. */
  #checkCopy(copy: Drive, bytes: Buffer, old: Buffer, mustBeNew: boolean): void {
    checkFileSystem(copy.type, copy.image);
    const problem = mount(copy);
    if (problem) throw new Error(`the drive cannot be mounted after the cut: ${problem}`);
    const pod = join(copy.path, 'quake');
    try {
      const found = load(pod);
      const isNew = found.equals(bytes);
      if (!isNew && !found.equals(old))
        throw new Error('after the cut the current generation is neither old nor new');
      if (mustBeNew && !isNew) throw new Error('after the cut the generation is gone that had a receipt');
      this.#result.copies[isNew ? 'new' : 'old'] += 1;
      makeStream(storeSink(pod), { seed: 77 });
      if (!load(pod).equals(streamBytes({ seed: 77 })))
        throw new Error('after the cut the next store is not current');
      const states = listGenerations(pod).map(({ state }) => state);
      if (states.some((state) => state !== 'complete')) throw new Error(`after the next store: ${states}`);
    } finally {
      const busy = run('umount', copy.path);
      if (busy) this.#result.failures.push(busy);
    }
  }
}

/**
 * What the file system itself says of a cut, on a copy of the image. Not after the copy was mounted: another
 * process's mount namespace may keep a mount alive behind umount's back.
 */
function checkFileSystem(type: DriveType, image: string): void {
  const scratch = `${image}.fsck`;
  copyFileSync(image, scratch);
  try {
    if (type === 'ext4') tool('e2fsck', '-E', 'journal_only', '-y', scratch);
    const result = type === 'ext4' ? tool('e2fsck', '-fn', scratch) : tool('fsck.vfat', '-n', scratch);
    // FAT has no journal: its dirty mark, lost clusters and free counts are what a cut always leaves.
    const bad = type === 'ext4' ? result.status !== 0 : /share clusters|Bad|larger/i.test(result.stdout);
    if (bad) throw new Error(`after the cut: ${result.stdout}${result.stderr}`);
  } finally {
    rmSync(scratch);
  }
}

function tool(command: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: 'C' };
  return spawnSync(command, args, { encoding: 'utf8', env });
}

function load(pod: string): Buffer {
  const chunks: Buffer[] = [];
  loadInto(
    pod,
    {},
    { write: (chunk) => void chunks.push(Buffer.from(chunk)), end: () => undefined, abort: () => undefined },
  );
  return Buffer.concat(chunks);
}

/** SIGSTOP, and wait until it is stopped or gone. */
async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGSTOP');
  for (;;) {
    let stat: string;
    try {
      stat = readFileSync(`/proc/${child.pid}/stat`, 'latin1');
    } catch {
      return;
    }
    if ('TZX'.includes(stat[stat.lastIndexOf(')') + 2]!)) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { parseArgs } = await import('node:util');
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '100' },
      type: { type: 'string', default: 'ext4' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      quiet: { type: 'boolean', default: false },
    },
  });
  const type = values.type as DriveType;
  const why = whyNoDrive(type);
  if (why) throw new Error(why);
  const log = values.quiet ? {} : { log: (line: string) => console.log(line) };
  const result = await runCampaign({
    type,
    rounds: Number(values.rounds),
    seed: Number(values.seed),
    ...log,
  });
  console.log(JSON.stringify({ type, seed: Number(values.seed), ...result }, undefined, 1));
  if (result.failures.length > 0 || result.rounds !== Number(values.rounds)) process.exitCode = 1;
}
