/**
 * How every command reads its arguments: strictly, by yargs, from one description (CommandSpec) that also makes
 * `--help`, the shell completion and the man page. A wrong argument is a PodError `usage` (exit 2) with a hint.
 */
import { writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import yargs, { type InferredOptionTypes, type Options } from 'yargs';
import { PodError } from '../stream/error.ts';
import { packageVersion } from './version.ts';

/** One positional argument, in order. */
export interface Positional {
  /** As shown in the usage line, in capitals: POD, DIR. */
  name: string;
  describe: string;
  /** Default true. */
  required?: boolean;
  /** Takes all that remain; only the last one may. */
  rest?: boolean;
}

export interface CommandSpec<O extends Record<string, Options> = Record<string, Options>> {
  /** As users type it: `pod-dump`. */
  name: string;
  /** One line, lower case, no full stop: what it does. */
  summary: string;
  /** More, for --help and the man page; paragraphs divided by an empty line. */
  description?: string;
  positionals?: readonly Positional[];
  /** yargs options by long name. Give every one a `describe` and a `type`. */
  options: O;
  /** [command line, what it does]. At least one. */
  examples: readonly (readonly [string, string])[];
  /**
   * Everything from the first positional on belongs to another program (`pod-run -- node game.js`): options behind
   * it are not read.
   */
  passThrough?: boolean;
}

/** What a command was given: options by name, positionals in order. */
export type Parsed<O extends Record<string, Options>> = InferredOptionTypes<O> & {
  positionals: string[];
};

/** Thrown when the arguments asked for something that is now done (help, version, completion): exit 0. */
export class Answered extends Error {}

/** Read `argv` (process.argv without node and script). Prints and throws Answered for --help and its kin. */
export async function parseArguments<O extends Record<string, Options>>(
  spec: CommandSpec<O>,
  argv: readonly string[] = process.argv.slice(2),
): Promise<Parsed<O>> {
  const parser = describe(spec);
  await answer(spec, parser, argv);
  let failure: string | undefined;
  parser.fail((message, cause) => {
    failure ??= message ?? cause?.message ?? 'wrong arguments';
  });
  const parsed = await parser.parseAsync([...argv]);
  if (failure !== undefined) throw usageError(spec.name, failure);
  const { _: before, '--': after, $0: _self, ...options } = parsed as Record<string, unknown>;
  const positionals = [...((before as unknown[]) ?? []), ...((after as unknown[]) ?? [])].map(String);
  checkPositionals(spec, positionals);
  for (const [name, option] of Object.entries(spec.options)) {
    // Given twice, yargs makes an array of a single-valued option: say so instead of passing it on.
    if (!option.array && option.type !== 'array' && Array.isArray(options[name])) {
      throw usageError(spec.name, `--${name} was given more than once`);
    }
    if (option.type === 'number' && Number.isNaN(options[name])) {
      throw usageError(spec.name, `--${name} wants a number`);
    }
    if (option.type === 'string' && !option.array && options[name] === '') {
      throw usageError(spec.name, `--${name} wants a value`);
    }
  }
  return { ...options, positionals } as unknown as Parsed<O>;
}

/** A PodError `usage` that points to --help. */
export function usageError(command: string, message: string, hint?: string): PodError {
  const line = message.replace(/\s*\n\s*/g, ' ').replace(/\.$/, '');
  return new PodError(
    'usage',
    // yargs begins its messages with a capital letter; a name in capitals (POD is missing) stays.
    /^[A-Z][a-z]/.test(line) ? line.charAt(0).toLowerCase() + line.slice(1) : line,
    hint ?? `see ${command} --help`,
  );
}

function describe<O extends Record<string, Options>>(spec: CommandSpec<O>) {
  const usage = `${usageLine(spec)}\n\n${paragraphs(spec.description ?? capital(spec.summary))}`;
  const parser = yargs([])
    .scriptName(spec.name)
    .locale('en')
    .parserConfiguration({
      'populate--': true,
      'halt-at-non-option': spec.passThrough ?? false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'dot-notation': false,
      'camel-case-expansion': false,
      'greedy-arrays': false,
      'duplicate-arguments-array': true,
      'strip-aliased': true,
    })
    .usage(usage)
    .options(spec.options)
    .option('completion', { type: 'boolean', describe: 'print a completion script for the shell' })
    .option('spec', { type: 'boolean', hidden: true })
    .help(false)
    .option('help', { alias: 'h', type: 'boolean', describe: 'show this help' })
    .version(false)
    .option('version', { type: 'boolean', describe: 'show the version' })
    .strictOptions()
    .exitProcess(false)
    .wrap(Math.min(100, columns()));
  // yargs would set examples in columns and break command lines, which then cannot be copied.
  const examples = spec.examples.map(([line, what]) => `  ${line}\n      ${what}`);
  return parser.epilogue(['Examples:', ...examples].join('\n'));
}

async function answer(
  spec: CommandSpec,
  parser: ReturnType<typeof describe>,
  argv: readonly string[],
): Promise<void> {
  // `--get-yargs-completions` is what the completion script calls.
  const completion = argv.indexOf('--get-yargs-completions');
  if (completion >= 0) {
    const words = argv.slice(completion + 1);
    const found = await parser.getCompletion(words.slice(1));
    print(found.map((word) => word.split(':')[0]).join('\n'));
    throw new Answered();
  }
  // Only what stands before a pass-through program's own arguments is ours.
  const firstPositional = spec.passThrough ? positionalIndex(spec, argv) : argv.indexOf('--');
  const ours = firstPositional < 0 ? argv : argv.slice(0, firstPositional);
  if (ours.includes('--help') || ours.includes('-h')) print(await parser.getHelp());
  else if (ours.includes('--version')) print(`${spec.name} ${packageVersion()}`);
  else if (ours.includes('--completion')) print(completionScript(spec.name));
  else if (ours.includes('--spec')) print(JSON.stringify(spec));
  else return;
  throw new Answered();
}

/** Where the other program's words begin, -1 when there are none. */
function positionalIndex(spec: CommandSpec, argv: readonly string[]): number {
  const takesValue = new Set<string>();
  for (const [name, option] of Object.entries(spec.options)) {
    if (option.type === 'boolean' || option.type === 'count') continue;
    takesValue.add(`--${name}`);
    for (const alias of [option.alias ?? []].flat()) {
      takesValue.add(alias.length === 1 ? `-${alias}` : `--${alias}`);
    }
  }
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index]!;
    if (word === '--' || !word.startsWith('-')) return index;
    if (takesValue.has(word)) index += 1;
  }
  return -1;
}

function checkPositionals(spec: CommandSpec, given: string[]): void {
  const wanted = spec.positionals ?? [];
  const missing = wanted.slice(given.length).find((positional) => positional.required !== false);
  if (missing) throw usageError(spec.name, `${missing.name} is missing: ${missing.describe}`);
  if (given.length > wanted.length && !wanted.at(-1)?.rest) {
    throw usageError(spec.name, `unexpected argument ${JSON.stringify(given[wanted.length])}`);
  }
}

/** `pod-dump [options] POD`. */
export function usageLine(spec: CommandSpec): string {
  const words = (spec.positionals ?? []).map(({ name, required, rest }) => {
    const word = rest ? `${name}…` : name;
    return required === false ? `[${word}]` : word;
  });
  return [spec.name, '[options]', ...words].join(' ');
}

function completionScript(name: string): string {
  const fn = `_${name.replaceAll('-', '_')}_completion`;
  return [
    `# ${name}: completion for bash and zsh. Use: source <(${name} --completion)`,
    'if [ -n "${ZSH_VERSION-}" ]; then autoload -Uz bashcompinit && bashcompinit; fi',
    `${fn}() {`,
    '  local current=${COMP_WORDS[COMP_CWORD]}',
    `  COMPREPLY=($(compgen -W "$(${name} --get-yargs-completions "\${COMP_WORDS[@]}" 2>/dev/null)" -- "$current"))`,
    '  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))',
    '}',
    `complete -o filenames -F ${fn} ${name}`,
  ].join('\n');
}

function columns(): number {
  // Help is text for a person: here, and only here, process.stdout may be touched.
  return isatty(1) ? (process.stdout.columns ?? 80) : 80;
}

function print(text: string): void {
  const bytes = Buffer.from(`${text}\n`);
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += writeSync(1, bytes, sent);
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      // `pod-dump --help | head -1` is no error.
      if (code === 'EPIPE') return;
      if (code !== 'EAGAIN') throw cause;
    }
  }
}

/** Lines that the source broke are one paragraph: the terminal's width breaks them again. */
function paragraphs(text: string): string {
  return text
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.replace(/\s*\n\s*/g, ' ').trim())
    .join('\n\n');
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
