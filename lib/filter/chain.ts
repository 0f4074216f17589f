/**
 * A chain of filters in one process: `compress --level 3 encrypt -R key.pub` as names with options, built from
 * the last to the first. Built-in filters run here, others as programs of their own in between.
 */
import { PodError } from '../stream/error.ts';
import type { Sink } from '../stream/sink.ts';
import type { FilterDefinition } from './define.ts';
import { optionSpecs } from './describe.ts';
import { describeProgram, locate, type Program } from './discover.ts';
import {
  type AnyValues,
  filterNamePattern,
  formatOptions,
  type OptionSpecs,
  parseOptions,
} from './options.ts';
import { ProcessSink } from './process-sink.ts';
import { undoStage } from './undo.ts';

/** One filter of a chain with what it was given. */
export interface Link {
  name: string;
  class: 'map' | 'wrap';
  options: OptionSpecs;
  values: AnyValues;
  /** How it runs: here, or as a program. */
  run: FilterDefinition | Program;
}

export type Direction = 'forward' | 'undo';

type Resolved = Pick<Link, 'name' | 'class' | 'options' | 'run'>;

/**
 * What runs for a name that the user typed: a program in $POD_FILTER_PATH (put there to take precedence), a
 * built-in filter, or a program in $PATH.
 */
export function resolveFilter(name: string, builtIn: readonly FilterDefinition[]): Resolved {
  if (!filterNamePattern.test(name)) {
    throw new PodError(
      'usage',
      `${JSON.stringify(name)} is not a filter's name`,
      'pod-filter --list shows all filters',
    );
  }
  const preferred = locate(name, ['POD_FILTER_PATH']);
  const definition = preferred ? undefined : builtIn.find((each) => each.name === name);
  if (definition) {
    return { name, class: definition.class, options: definition.options, run: definition };
  }
  const program = preferred ?? locate(name);
  if (!program) {
    throw new PodError(
      'usage',
      `there is no filter ${name}`,
      `pod-filter --list shows all filters; one of your own is a program pod-filter-${name} in POD_FILTER_PATH or PATH`,
    );
  }
  const description = describeProgram(program);
  if (typeof description === 'string') {
    throw new PodError(
      'other',
      `the filter ${name} is broken: ${description}`,
      `see ${program.path} --describe`,
    );
  }
  return { name, class: description.class, options: optionSpecs(description), run: program };
}

/** Read names with their options. Exit 2 on what does not fit. */
export function parseChain(
  tokens: readonly string[],
  direction: Direction,
  builtIn: readonly FilterDefinition[],
): Link[] {
  const links: Link[] = [];
  let rest = [...tokens];
  while (rest.length > 0) {
    const found = resolveFilter(rest[0]!, builtIn);
    const parsed = parseOptions(found.name, found.options, direction, rest.slice(1));
    links.push({ ...found, values: parsed.values });
    rest = parsed.rest;
  }
  return links;
}

/**
 * The chain as one Sink in front of `downstream`. Forward, bytes go through the links in order; undoing, the
 * first link takes the outermost layer off. `raw` leaves the layer of the last link out.
 */
export function buildChain(
  links: readonly Link[],
  direction: Direction,
  downstream: Sink,
  how: { raw?: boolean } = {},
): Sink {
  if (direction === 'undo') {
    const map = links.find((link) => link.class === 'map');
    if (map) {
      throw new PodError(
        'usage',
        `${map.name} is a map filter: it converts, and cannot be undone`,
        'restart needs no undoing of it',
      );
    }
  }
  return links.reduceRight((next, link, index) => {
    const raw = (how.raw ?? false) && index === links.length - 1;
    return buildLink(link, direction, next, raw);
  }, downstream);
}

function buildLink({ run, options, values }: Link, direction: Direction, next: Sink, raw: boolean): Sink {
  if ('path' in run) {
    const flags = [...(direction === 'undo' ? ['--undo'] : []), ...(raw ? ['--raw'] : [])];
    return new ProcessSink(run.name, run.path, [...flags, ...formatOptions(options, values)], next);
  }
  return direction === 'undo' ? undoStage(run, values, next) : run.forward(values, next, { raw });
}
