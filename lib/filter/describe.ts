/** A filter's description, both ways, and the help made of it. */
import type { Records } from '../../schemas/generated/types.ts';
import { validators } from '../../schemas/generated/validators.js';
import type { FilterDefinition } from './define.ts';
import { kebab, type OptionSpec, type OptionSpecs } from './options.ts';

export type FilterDescription = Records['filter-description'];

export const protocolVersion = 1;

export function describe(definition: FilterDefinition): FilterDescription {
  const { name, version, summary, options } = definition;
  return {
    'pod-filter': protocolVersion,
    name,
    version,
    class: definition.class,
    summary,
    options: Object.entries(options).map(([key, spec]) => ({ name: kebab(key), ...spec })),
  };
}

/** A description that a program printed, checked; a string says what is wrong with it. */
export function readDescription(text: string): FilterDescription | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'its description is not JSON';
  }
  const validate = validators['filter-description'];
  if (!validate(value)) {
    const first = validate.errors?.[0];
    return `its description is wrong: ${first?.instancePath ?? ''} ${first?.message ?? ''}`.trim();
  }
  const description = value as FilterDescription;
  if (description['pod-filter'] > protocolVersion) {
    return `it speaks filter protocol ${description['pod-filter']}, this podstream up to ${protocolVersion}`;
  }
  return description;
}

/** Option specs as a description has them. */
export function optionSpecs(description: FilterDescription): OptionSpecs {
  const camel = (name: string): string =>
    name.replace(/-(.)/g, (_all, letter: string) => letter.toUpperCase());
  return Object.fromEntries(
    (description.options ?? []).map(({ name, ...spec }) => [
      camel(name),
      { summary: '', ...spec } as OptionSpec,
    ]),
  );
}

/** Help for one filter; `command` is what the user types before the options. */
export function helpText(description: FilterDescription, command: string): string {
  const rows = (description.options ?? []).map((option): [string, string] => {
    const value = option.type === 'flag' ? '' : ` ${option.value ?? option.type.toUpperCase()}`;
    const name = option.operand
      ? (option.value ?? option.name)
      : `${option.short ? `-${option.short}, ` : '    '}--${option.name}${value}`;
    const range =
      option.minimum !== undefined && option.maximum !== undefined
        ? ` (${option.minimum} to ${option.maximum})`
        : '';
    const use = option.use === 'undo' ? ' [--undo]' : '';
    return [name, `${option.summary ?? ''}${range}${option.many ? ' (several times)' : ''}${use}`];
  });
  if (description.class === 'wrap') {
    rows.push(['    --undo', 'take the layer off again']);
    rows.push(['    --raw', 'without the layer: a bare file of its encoding']);
  }
  rows.push(['    --describe', 'print the description as JSON']);
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  return [
    `${command}: ${description.summary ?? ''}`,
    '',
    `usage: ${command} [options] < STREAM > STREAM`,
    '',
    ...rows.map(([name, summary]) => `  ${name.padEnd(width)}${summary}`),
    '',
  ].join('\n');
}
