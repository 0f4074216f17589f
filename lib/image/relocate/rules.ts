/** OLD=NEW rules for paths: on component boundaries, the longest OLD wins, each path is changed at most once. */
import { PodError } from '../../stream/error.ts';
import { pathFault, quote } from '../model.ts';

export interface Rule {
  readonly from: string;
  readonly to: string;
  /** Paths it changed. */
  count: number;
}

/** Longest path of an image, as in schemas/defs.json. */
const longest = 4096;

/** Exit status of relocate when a new path does not fit where the old one was. */
export const cannotRelocateCode = 32;

export function cannotRelocate(owner: string, why: string): PodError {
  return new PodError('other', `cannot relocate ${owner}: ${why}`, 'use a shorter new path', {
    exitCode: cannotRelocateCode,
  });
}

export class PathRules {
  /** Longest OLD first. */
  readonly rules: readonly Rule[];

  /** From command line words; exit 2 for what is no rule. */
  constructor(words: readonly string[]) {
    if (words.length === 0) {
      throw new PodError(
        'usage',
        'relocate needs at least one OLD=NEW',
        'for example: pod-filter relocate /home/ann=/home/bob',
      );
    }
    const rules = words.map(parseRule);
    for (const { from } of rules) {
      if (rules.filter((rule) => rule.from === from).length > 1)
        throw new PodError('usage', `relocate has two rules for ${quote(from)}`);
    }
    this.rules = rules.sort((a, b) => b.from.length - a.from.length);
  }

  /** The new path; the same string when no rule is for it. `owner` is for the message. */
  apply(path: string, owner: string): string {
    const rule = this.rules.find(({ from }) => isUnder(path, from));
    if (!rule) return path;
    const rest = rule.from === '/' ? path : path.slice(rule.from.length);
    const joined = rule.to === '/' ? rest || '/' : rule.to + (rest === '/' ? '' : rest);
    if (joined.length > longest) throw cannotRelocate(owner, `its new path has ${joined.length} characters`);
    if (joined !== path) rule.count += 1;
    return joined;
  }
}

const isUnder = (path: string, folder: string): boolean =>
  folder === '/' ? path.startsWith('/') : path === folder || path.startsWith(`${folder}/`);

function parseRule(word: string): Rule {
  const cut = word.indexOf('=');
  if (cut < 0) {
    throw new PodError(
      'usage',
      `${quote(word)} is not OLD=NEW`,
      'for example: pod-filter relocate /home/ann=/home/bob',
    );
  }
  const [from, to] = [word.slice(0, cut), word.slice(cut + 1)].map((path) => {
    const fault = pathFault(path);
    if (fault) throw new PodError('usage', `${quote(word)}: the path ${quote(path)} ${fault}`);
    return path.replace(/\/+$/, '') || '/';
  }) as [string, string];
  return { from, to, count: 0 };
}
