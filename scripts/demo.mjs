// `npm run demo`: the main job on a real program. A Game of Life in node runs in a pod; its image goes through three
// filters onto a FAT32 stick (a real file system on a loop device when run as root, else a folder); the session is
// killed; it comes back from the stick and goes on. Every command is shown before it runs. The end is a check, not
// a claim: the generations after the restart must continue the digest chain that the first run began.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
process.chdir(root);
process.env.PATH = `${join(root, 'dist/bin')}:${process.env.PATH}:/usr/sbin:/sbin`;
const pod = `life-demo-${process.pid}`;
const scratch = mkdtempSync(join(tmpdir(), 'podstream-demo-'));
const color = process.stdout.isTTY ? (code, text) => `\x1b[${code}m${text}\x1b[0m` : (_code, text) => text;
const cleanups = [() => rmSync(scratch, { recursive: true, force: true })];
let watcher;

function say(text) {
  console.log(`\n${color('1', `# ${text}`)}`);
}

/** Show a shell command, run it, fail with its message. */
function sh(command, { quiet = false } = {}) {
  if (!quiet) console.log(color('36', `$ ${command}`));
  const started = process.hrtime.bigint();
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `set -o pipefail; ${command}`], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  const ms = Number((process.hrtime.bigint() - started) / 1_000_000n);
  if (stderr.trim()) console.log(color('2', stderr.trim()));
  if (status !== 0) throw new Error(`\`${command}\` failed with status ${status}`);
  return { stdout, ms };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const withoutEscapes = (text) => text.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '');

/** Generation → chain digest, from what the console showed. */
function chainsIn(text) {
  const found = new Map();
  for (const [, generation, chain] of withoutEscapes(text).matchAll(
    /generation (\d+) · \d+ cells · chain ([0-9a-f]{12})/g,
  )) {
    found.set(Number(generation), chain);
  }
  return found;
}

/** The last whole picture of the console. */
function picture() {
  const { stdout } = sh(`pod-attach --snapshot ${pod}`, { quiet: true });
  if (/WRONG/.test(stdout))
    throw new Error(`the game found itself wrong:\n${withoutEscapes(stdout).slice(-300)}`);
  const frames = stdout
    .split('\x1b[H')
    .filter((frame) => frame.includes('└') && frame.includes('generation'));
  return {
    text: frames
      .at(-1)
      ?.replace(/\x1b\[[KJH]/g, '')
      .replaceAll('\r', '')
      .trimEnd(),
    chains: chainsIn(stdout),
  };
}

async function untilGeneration(wanted) {
  for (let tries = 0; tries < 600; tries += 1) {
    const { text, chains } = picture();
    if (text && Math.max(-1, ...chains.keys()) >= wanted) return { text, chains };
    await sleep(100);
  }
  throw new Error(`the game did not reach generation ${wanted} in a minute`);
}

/** All that the console shows from now on, into a file. */
function record(file) {
  writeFileSync(file, '');
  const child = spawn('bash', ['-c', `exec pod-attach --no-stdin ${pod} > ${file} 2>/dev/null`], {
    stdio: 'ignore',
  });
  child.on('error', () => {});
  return child;
}

/** A real file system where this machine can give one: FAT32 as sticks have it, else ext4, else a folder. */
function plugInStick() {
  const stick = join(scratch, 'stick');
  mkdirSync(stick);
  if (process.getuid() !== 0) {
    console.log('not root: a folder plays the stick');
    return stick;
  }
  const image = join(scratch, 'stick.img');
  for (const [type, make] of [
    ['vfat', 'mkfs.vfat -F 32 -n STICK'],
    ['ext4', 'mkfs.ext4 -q -L STICK'],
  ]) {
    const command = `truncate -s 256M ${image} && ${make} ${image} >/dev/null && mount -t ${type} -o loop ${image} ${stick}`;
    if (spawnSync('bash', ['-c', command], { stdio: 'ignore' }).status !== 0) {
      console.log(`this machine cannot make or mount ${type} here`);
      continue;
    }
    console.log(color('36', `$ ${command}`));
    cleanups.unshift(() => spawnSync('umount', [stick]));
    return stick;
  }
  console.log('a folder plays the stick');
  return stick;
}

async function demo() {
  say('plug in a stick and write a passphrase');
  const stick = plugInStick();
  const key = join(scratch, 'passphrase.txt');
  writeFileSync(key, `${randomBytes(24).toString('base64')}\n`, { mode: 0o600 });
  console.log(color('36', `$ head -c 24 /dev/urandom | base64 > ${key}`));

  say('start a session: a Game of Life that checks itself at every generation');
  sh(`pod-run --name ${pod} -d -- node examples/life.js --delay 200`);
  cleanups.unshift(() => spawnSync('pod-kill', [pod], { stdio: 'ignore' }));
  const beforeFile = join(scratch, 'before.log');
  watcher = record(beforeFile);
  await untilGeneration(15);
  console.log(sh('pod-ps').stdout.trimEnd());
  const before = picture();
  console.log(before.text);

  say('its image, through three filters, onto the stick');
  const stored = sh(
    `pod-dump ${pod} | pod-filter upgrade-2.6 | pod-filter compress | pod-filter encrypt -p ${key} | pod-store ${stick}/life`,
  );
  console.log(sh(`pod-load --list ${stick}/life`).stdout.trimEnd());
  console.log(color('2', `${stored.ms} ms`));
  if (existsSync('dist/bin/pod-inspect')) {
    console.log(sh(`pod-load ${stick}/life | pod-inspect -p ${key} | head -n 24`).stdout.trimEnd());
  }

  say('the session went on meanwhile; kill it: nothing is left but the stick');
  await sleep(3000);
  sh(`pod-kill ${pod}`);
  await new Promise((resolve) => (watcher.exitCode === null ? watcher.on('exit', resolve) : resolve()));
  console.log(sh('pod-ps').stdout.trimEnd() || 'no pods');

  say('back from the stick');
  const restarted = sh(`pod-load ${stick}/life | pod-restart -d -p ${key}`);
  console.log(color('2', `${restarted.ms} ms`));
  const afterFile = join(scratch, 'after.log');
  watcher = record(afterFile);
  let first;
  while ((first = Math.min(...chainsIn(readFileSync(afterFile, 'utf8')).keys())) === Infinity)
    await sleep(50);
  const after = await untilGeneration(first + 20);
  console.log(after.text);

  say('is it the same game?');
  const old = chainsIn(readFileSync(beforeFile, 'utf8'));
  const fresh = new Map([...chainsIn(readFileSync(afterFile, 'utf8')), ...after.chains]);
  const generations = [...fresh.keys()].sort((a, b) => a - b);
  const start = generations[0];
  const last = generations.at(-1);
  if (generations.length !== last - start + 1) throw new Error('a generation is missing after the restart');
  const common = generations.filter((generation) => old.has(generation));
  if (common.length === 0 || !old.has(start - 1))
    throw new Error(`the game went on at generation ${start}, not where it was stored`);
  for (const generation of common) {
    if (old.get(generation) !== fresh.get(generation)) throw new Error(`generation ${generation} differs`);
  }
  console.log(
    `it went on at generation ${start} and is at ${last}; ${common.length} generations were lived twice, by the`,
  );
  console.log(
    'session before the kill and by the one from the stick, and their digest chains are the same in every one',
  );
}

let status = 0;
try {
  await demo();
  console.log(`\n${color('1;32', 'demo: done')}`);
} catch (cause) {
  console.error(`\ndemo: error: ${cause.message}`);
  status = 1;
} finally {
  if (watcher && watcher.exitCode === null) watcher.kill();
  for (const cleanup of cleanups) cleanup();
}
process.exit(status);
