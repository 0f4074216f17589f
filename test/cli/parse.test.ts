import t, { type Test } from 'tap';
import { type CommandSpec, parseArguments, usageLine } from '../../lib/cli/parse.ts';
import { PodError } from '../../lib/stream/error.ts';

const spec = {
  name: 'pod-try',
  summary: 'try it',
  positionals: [
    { name: 'POD', describe: 'a pod' },
    { name: 'DIR', describe: 'folders', required: false, rest: true },
  ],
  options: {
    suspend: { type: 'boolean', describe: 'end it' },
    level: { type: 'number', describe: 'how much' },
    identity: { alias: 'i', type: 'string', array: true, describe: 'key file' },
    name: { type: 'string', describe: 'a name' },
  },
  examples: [['pod-try life', 'try it']],
} as const satisfies CommandSpec;

const usage = (t: Test, argv: string[], message: RegExp, from: CommandSpec = spec) =>
  t.rejects(parseArguments(from, argv), { failure: 'usage', exitCode: 2, message, hint: /--help/ });

t.test('options and positionals', async (t) => {
  const given = ['--suspend', 'life', '-i', 'a', '--identity', 'b', '--level=3', '/x', '--', '--y'];
  const parsed = await parseArguments(spec, given);
  t.equal(parsed.suspend, true);
  t.equal(parsed.level, 3);
  t.strictSame(parsed.identity, ['a', 'b']);
  t.strictSame(parsed.positionals, ['life', '/x', '--y']);
  t.equal(parsed.name, undefined);
});

t.test('a pod named like a number stays a string', async (t) => {
  t.strictSame((await parseArguments(spec, ['007'])).positionals, ['007']);
});

t.test('wrong arguments are usage errors with a hint', async (t) => {
  await usage(t, [], /^POD is missing: a pod$/);
  await usage(t, ['life', '--nope'], /unknown argument: nope/);
  await usage(t, ['life', '--level', 'x'], /--level wants a number/);
  await usage(t, ['life', '--name', 'a', '--name', 'b'], /--name was given more than once/);
  await usage(t, ['life', '--name='], /--name wants a value/);
  const one = { ...spec, positionals: [{ name: 'POD', describe: 'a pod' }] };
  await usage(t, ['life', 'other'], /unexpected argument "other"/, one);
});

t.test('another program keeps its own options', async (t) => {
  const run = { ...spec, passThrough: true };
  const { suspend, positionals } = await parseArguments(run, ['--suspend', 'node', '--help', '-i', 'x']);
  t.equal(suspend, true);
  t.strictSame(positionals, ['node', '--help', '-i', 'x']);
  const dashed = await parseArguments(run, ['--name', 'life', '--', 'node', '--version']);
  t.strictSame(dashed.positionals, ['node', '--version']);
  t.equal((dashed as { name?: string }).name, 'life');
});

t.test('usage line', async (t) => {
  t.equal(usageLine(spec), 'pod-try [options] POD [DIR…]');
});

t.test('errors are PodErrors', async (t) => {
  await parseArguments(spec, []).catch((cause) => t.ok(cause instanceof PodError));
});
