/**
 * Secrets for undoing layers, as all commands take them: `-i KEYFILE`, `-p FILE`, `--passphrase-fd N`. By file or
 * descriptor only: arguments and environment can be read by others.
 */
import type { FilterDefinition } from './define.ts';
import { type AnyValues, defaultValues, type OptionSpecs } from './options.ts';

/** The options as a filter declares them. */
export const secretSpecs = {
  identity: {
    type: 'string',
    short: 'i',
    many: true,
    value: 'KEYFILE',
    summary: 'file with an age key (AGE-SECRET-KEY-1…), as age-keygen writes it',
    use: 'undo',
  },
  passphrase: {
    type: 'string',
    short: 'p',
    value: 'FILE',
    summary: 'file with a passphrase of at least 20 characters, or a key file of at least 32 random bytes',
    use: 'both',
  },
  passphraseFd: {
    type: 'integer',
    value: 'N',
    minimum: 3,
    maximum: 1_000_000,
    summary: 'descriptor to read the passphrase from',
    use: 'both',
  },
} as const satisfies OptionSpecs;

export interface Secrets {
  identity?: readonly string[] | undefined;
  passphrase?: string | undefined;
  passphraseFd?: number | undefined;
}

/** The options for a command (lib/cli/parse.ts). */
export const secretOptions = {
  identity: { alias: 'i', type: 'string', array: true, describe: secretSpecs.identity.summary },
  passphrase: { alias: 'p', type: 'string', describe: secretSpecs.passphrase.summary },
  'passphrase-fd': { type: 'number', describe: secretSpecs.passphraseFd.summary },
} as const;

/** Secrets from what a command parsed with secretOptions. */
export function secretsFrom(parsed: {
  identity?: readonly string[] | undefined;
  passphrase?: string | undefined;
  'passphrase-fd'?: number | undefined;
}): Secrets {
  return {
    identity: parsed.identity,
    passphrase: parsed.passphrase,
    passphraseFd: parsed['passphrase-fd'],
  };
}

/** Options for undoing one layer: of the secrets, those that the filter declares. */
export function undoOptions(definition: Pick<FilterDefinition, 'options'>, secrets: Secrets): AnyValues {
  const values: Record<string, AnyValues[string]> = { ...defaultValues(definition.options) };
  for (const [key, value] of Object.entries(secrets)) {
    const use = definition.options[key]?.use ?? 'forward';
    if (value !== undefined && use !== 'forward') values[key] = value as AnyValues[string];
  }
  return values;
}
