/**
 * The conformance kit: `pod-filter --check NAME [options] [--undo options]` runs a filter's program, in whatever
 * language it is written, against what a stream can bring, and says what it does wrong. Nothing is assumed but
 * docs/filter-protocol.md.
 */
import { join } from 'node:path';
import { packageRoot } from '../../../native/package-root.ts';
import { PodError } from '../../stream/error.ts';
import { type FilterDescription, readDescription } from '../describe.ts';
import { describeLimit, locate } from '../discover.ts';
import { type Case, cases, type Subject } from './cases.ts';
import { runProgram } from './run-program.ts';

export interface Finding {
  name: string;
  passed: boolean;
  /** What was expected and found; empty when it passed. */
  detail: string;
}

export interface Report {
  filter: string;
  path: string;
  passed: boolean;
  findings: Finding[];
}

/** `tokens`: options of the filter, then, behind `--undo`, those for undoing (keys). */
export async function checkFilter(name: string, tokens: readonly string[]): Promise<Report> {
  const program = locate(name);
  if (!program) {
    throw new PodError(
      'usage',
      `there is no program pod-filter-${name}`,
      `put it into POD_FILTER_PATH or PATH; built-in ones are in ${join(packageRoot(), 'dist/filters')}`,
    );
  }
  const cut = tokens.indexOf('--undo');
  const forward = cut < 0 ? tokens : tokens.slice(0, cut);
  const undo = cut < 0 ? [] : tokens.slice(cut + 1);
  const report: Report = { filter: name, path: program.path, passed: true, findings: [] };
  const add = (what: string, detail: string): void => {
    report.findings.push({ name: what, passed: detail === '', detail });
    report.passed &&= detail === '';
  };
  const described = await describeNow(program.path, name);
  add('describes itself', typeof described === 'string' ? described : '');
  // Without a description it is not known what the filter promises.
  if (typeof described === 'string') return report;
  const subject: Subject = { path: program.path, description: described, forward, undo };
  for (const each of cases.filter((one: Case) => !one.only || one.only === described.class)) {
    let detail: string;
    try {
      detail = (await each.run(subject)) ?? '';
    } catch (cause) {
      detail = `the check itself failed: ${(cause as Error).message}`;
    }
    add(each.name, detail);
  }
  return report;
}

/** Tries before a description counts as slow: another program may have kept the machine busy. */
const tries = 10;
/** What starting Node takes where nothing else runs (40 ms measured), with room. */
const idleStart = 100;

/** The description, or what is wrong with it. */
async function describeNow(path: string, name: string): Promise<FilterDescription | string> {
  let found = '';
  for (let i = 0; i < tries; i++) {
    const { status, output, milliseconds } = await runProgram(path, ['--describe'], []);
    if (status !== 0) return `--describe ended with ${status}`;
    const result = readDescription(output.toString('utf8'));
    if (typeof result === 'string') return result;
    if (result.name !== name) return `it describes itself as ${result.name}`;
    if (milliseconds <= describeLimit) return result;
    // On a busy machine everything is slow: the limit grows by as much as a bare Node takes longer than it should.
    const bare = await runProgram(process.execPath, ['-e', '0'], []);
    if (milliseconds <= describeLimit * Math.max(1, bare.milliseconds / idleStart)) return result;
    found = `--describe took ${Math.round(milliseconds)} ms, at most ${describeLimit} are allowed`;
  }
  return found;
}

export function formatReport(report: Report): string {
  const lines = report.findings.map(({ name, passed, detail }) =>
    passed ? `ok    ${name}` : `FAIL  ${name}\n      ${detail.replace(/[\p{Cc}\p{Cf}]/gu, ' ')}`,
  );
  const failed = report.findings.filter(({ passed }) => !passed).length;
  const sum = failed === 0 ? 'passed' : `${failed} of ${report.findings.length} failed`;
  return `${report.filter} (${report.path})\n${lines.join('\n')}\n${sum}\n`;
}
