/**
 * Options of filters. They follow the filter's name on the command line (`compress --level 9 encrypt -R key.pub`),
 * so each filter's are parsed on their own: a token that is neither an option nor an operand and looks like a
 * filter's name starts the next filter.
 */
import { PodError } from '../stream/error.ts';

export interface OptionSpec {
  type: 'flag' | 'string' | 'integer';
  /** One letter: `-l`. */
  short?: string;
  /** May be given several times; the value is an array. */
  many?: boolean;
  /** Taken from bare words behind the filter's name (`OLD=NEW`), not from `--name`. Implies `many`. */
  operand?: boolean;
  /** What stands for the value in help: `FILE`. */
  value?: string;
  summary: string;
  /** Lowest and highest integer. */
  minimum?: number;
  maximum?: number;
  /** Direction that knows it; default `forward`. */
  use?: 'forward' | 'undo' | 'both';
}

/** Keys are camelCase; on the command line `passphraseFd` is `--passphrase-fd`. */
export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

type One<S extends OptionSpec> = S['type'] extends 'flag'
  ? boolean
  : S['type'] extends 'integer'
    ? number
    : string;
type IsList<S extends OptionSpec> = S extends { many: true }
  ? true
  : S extends { operand: true }
    ? true
    : false;

/** Parsed values: flags are booleans, lists are arrays (maybe empty), others are undefined when not given. */
export type OptionValues<O extends OptionSpecs> = {
  readonly [K in keyof O]: IsList<O[K]> extends true
    ? One<O[K]>[]
    : O[K]['type'] extends 'flag'
      ? boolean
      : One<O[K]> | undefined;
};

export type AnyValues = Readonly<Record<string, boolean | number | string | (number | string)[] | undefined>>;

export const filterNamePattern = /^[a-z][a-z0-9]*([.-][a-z0-9]+)*$/;

/** `passphraseFd` → `passphrase-fd`. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

const isList = (spec: OptionSpec): boolean => spec.many === true || spec.operand === true;

/** Values as if nothing was given. */
export function defaultValues(specs: OptionSpecs): AnyValues {
  return Object.fromEntries(
    Object.entries(specs).map(([key, spec]) => [
      key,
      isList(spec) ? [] : spec.type === 'flag' ? false : undefined,
    ]),
  );
}

/**
 * Parse the options that follow the filter `name`, up to the next filter's name.
 * Returns the values and the tokens that were not taken. Exit 2 on what it does not know.
 */
export function parseOptions(
  name: string,
  specs: OptionSpecs,
  direction: 'forward' | 'undo',
  tokens: readonly string[],
): { values: AnyValues; rest: string[] } {
  const values = { ...defaultValues(specs) } as Record<string, unknown>;
  const find = (flag: string): [string, OptionSpec] => {
    const entry = Object.entries(specs).find(
      ([key, spec]) =>
        !spec.operand &&
        (flag.startsWith('--') ? kebab(key) === flag.slice(2) : spec.short === flag.slice(1)),
    );
    if (!entry) {
      throw new PodError('usage', `${name} has no option ${flag}`, `see pod-filter ${name} --help`);
    }
    const { use = 'forward' } = entry[1];
    if (use !== 'both' && use !== direction) {
      throw new PodError(
        'usage',
        `${flag} of ${name} is only for ${use === 'undo' ? '--undo' : 'the forward direction'}`,
        `see pod-filter ${name} --help`,
      );
    }
    return entry;
  };
  const set = (key: string, spec: OptionSpec, value: unknown, flag: string): void => {
    if (isList(spec)) (values[key] as unknown[]).push(value);
    else if (spec.type !== 'flag' && values[key] !== undefined)
      throw new PodError('usage', `${flag} of ${name} is given twice`);
    else values[key] = value;
  };
  const operand = Object.entries(specs).find(([, spec]) => spec.operand);
  let index = 0;
  for (; index < tokens.length; index++) {
    const token = tokens[index]!;
    if (!token.startsWith('-') || token === '-') {
      if (filterNamePattern.test(token)) break;
      if (!operand) {
        throw new PodError(
          'usage',
          `${name} takes no operand, but got ${JSON.stringify(token)}`,
          `see pod-filter ${name} --help`,
        );
      }
      set(operand[0], operand[1], token, token);
      continue;
    }
    // -x VALUE, -xVALUE, --long VALUE, --long=VALUE
    const long = token.startsWith('--');
    const cut = long ? token.indexOf('=') : token.length > 2 ? 2 : -1;
    const flag = cut < 0 ? token : token.slice(0, cut);
    const [key, spec] = find(flag);
    let text = cut < 0 ? undefined : token.slice(long ? cut + 1 : cut);
    if (spec.type === 'flag') {
      if (text !== undefined) throw new PodError('usage', `${flag} of ${name} takes no value`);
      set(key, spec, true, flag);
      continue;
    }
    text ??= tokens[++index];
    if (text === undefined) {
      throw new PodError('usage', `${flag} of ${name} needs a value`, `see pod-filter ${name} --help`);
    }
    set(key, spec, spec.type === 'integer' ? integer(name, flag, spec, text) : text, flag);
  }
  return { values: values as AnyValues, rest: tokens.slice(index) };
}

function integer(name: string, flag: string, spec: OptionSpec, text: string): number {
  const value = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  const { minimum = Number.MIN_SAFE_INTEGER, maximum = Number.MAX_SAFE_INTEGER } = spec;
  if (!(value >= minimum && value <= maximum)) {
    throw new PodError(
      'usage',
      `${flag} of ${name} is ${JSON.stringify(text)}, not a number from ${minimum} to ${maximum}`,
    );
  }
  return value;
}

/** Values as command line tokens again, for a filter that runs as a program of its own. */
export function formatOptions(specs: OptionSpecs, values: AnyValues): string[] {
  const tokens: string[] = [];
  for (const [key, spec] of Object.entries(specs)) {
    const value = values[key];
    for (const each of Array.isArray(value) ? value : value === undefined ? [] : [value]) {
      if (spec.operand) tokens.push(String(each));
      else if (spec.type !== 'flag') tokens.push(`--${kebab(key)}`, String(each));
      else if (each === true) tokens.push(`--${kebab(key)}`);
    }
  }
  return tokens;
}
