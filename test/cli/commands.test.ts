/** What all commands have in common, on the built programs: help, version, completion, terminals, bad input. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { goodPreamble } from '../tools/forge.ts';
import { streamBytes } from '../tools/make-stream.ts';

const bin = join(packageRoot(), 'dist/bin');
const scratch = mkdtempSync(join(tmpdir(), 'pod-commands-'));
t.teardown(() => rmSync(scratch, { recursive: true }));
const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, POD_RUNTIME_DIR: join(scratch, 'run') };
const commands = readdirSync(bin).filter((name) => name !== 'package.json');
const run = (command: string, args: string[], input: string | Uint8Array = '') =>
  spawnSync(command, args, { env, input, timeout: 60_000, cwd: scratch });

t.test('every command has help with examples, a version, completion; refuses unknown options', async (t) => {
  t.ok(commands.length >= 10, commands.join(' '));
  for (const name of commands) {
    const help = run(name, ['--help']);
    t.equal(help.status, 0, name);
    t.match(help.stdout.toString(), new RegExp(`^${name} [\\s\\S]*\\nExamples:\\n {2}`), name);
    t.equal(help.stderr.toString(), '', name);
    t.match(run(name, ['--version']).stdout.toString(), new RegExp(`^${name} \\d+\\.\\d+`));
    t.match(run(name, ['--completion']).stdout.toString(), `complete -o filenames -F`);
    const wrong = run(name, ['--no-such-option']);
    t.equal(wrong.status, 2, name);
    t.match(wrong.stderr.toString(), new RegExp(`^${name}: error: [a-z].*[^.]\\n${name}: hint: .*\\n$`));
    t.equal(wrong.stdout.length, 0, name);
  }
});

t.test('bash completes options', async (t) => {
  const script = `source <(pod-dump --completion); COMP_WORDS=(pod-dump --susp); COMP_CWORD=1; _pod_dump_completion; echo "\${COMPREPLY[@]}"`;
  t.equal(run('bash', ['-c', script]).stdout.toString().trim(), '--suspend');
});

t.test('binary never goes to a terminal, nor comes from one', async (t) => {
  // script(1) gives the command a terminal on all three descriptors.
  const onTerminal = (line: string) => {
    const { stdout } = spawnSync('script', ['-qec', `${line}; echo status $?`, '/dev/null'], {
      env,
      cwd: scratch,
      timeout: 60_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return stdout.toString();
  };
  for (const line of ['pod-dump life', `pod-load ${scratch}`, 'pod-filter compress < /dev/null']) {
    t.match(
      onTerminal(line),
      /error: refusing to write a binary stream to the terminal[\s\S]*status 2/,
      line,
    );
  }
  for (const line of ['pod-store stick', 'pod-filter compress | cat', 'pod-inspect']) {
    t.match(onTerminal(line), /error: standard input is the terminal, not a stream/, line);
  }
});

t.test('bad streams: the class, one line and a hint, nothing made', async (t) => {
  const good = streamBytes({ size: 50_000 });
  const flipped = Buffer.from(good);
  flipped[300]! ^= 4;
  const future = Buffer.from(good);
  future[8] = 9;
  const streams: [string, Uint8Array, number][] = [
    ['empty', new Uint8Array(0), 5],
    ['truncated', good.subarray(0, 40_000), 5],
    ['only a preamble', goodPreamble, 5],
    ['text', Buffer.from('hello\n'.repeat(100)), 4],
    ['future', future, 3],
    ['damaged', flipped, 6],
  ];
  const readers: [string, string[]][] = [
    ['pod-store', ['stick']],
    ['pod-filter', ['compress']],
    ['pod-filter', ['--undo']],
    ['pod-inspect', ['--verify']],
    ['pod-restart', ['-d']],
  ];
  const before = readdirSync(scratch);
  for (const [what, stream, status] of streams) {
    for (const [name, args] of readers) {
      const result = run(name, args, stream);
      const label = `${what} into ${name} ${args.join(' ')}`;
      t.equal(result.status, status, `${label}: ${result.stderr}`);
      const lines = result.stderr.toString().trim().split('\n');
      t.equal(lines.filter((line) => / error: /.test(line)).length, 1, label);
      // Warnings before it may have hints of their own.
      const after = lines.slice(lines.findIndex((line) => / error: /.test(line)) + 1);
      t.ok(after.length === 1 && / hint: /.test(after[0]!), `${label}: ${result.stderr}`);
    }
  }
  t.strictSame(
    readdirSync(scratch).filter((name) => !before.includes(name) && name !== 'run'),
    [],
  );
  t.strictSame(JSON.parse(run('pod-ps', ['--json']).stdout.toString()), []);
});

t.test('a failure anywhere in a plain pipe is seen at its end, and the first cause is told', async (t) => {
  const line = 'false | pod-filter compress | pod-filter compress | pod-store stick';
  const result = run('bash', ['-c', line]);
  t.equal(result.status, 10);
  t.match(
    result.stderr.toString(),
    /pod-store: error: upstream failed: (pod-filter )?compress: the stream is empty/,
  );
  t.notOk(readdirSync(scratch).includes('stick'));
});
