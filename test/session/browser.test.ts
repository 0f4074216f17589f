/**
 * A browser with ten tabs: some twenty processes, two hundred threads, hundreds of sockets and shared mappings. Dumped
 * while all of it runs, moved, and asked the same again.
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { packageRoot } from '../../native/package-root.ts';
import { users } from '../pod/house.ts';
import { lacking, makeShell, podTree, short, waitFor } from './session-house.ts';

t.setTimeout(600_000);

interface Tab {
  title: string;
  turns: number;
  picture: string;
}

const everyTab = `({ title: document.title, turns, picture: painted.toDataURL() })`;

for (const user of short ? users.slice(-1) : users) {
  const { skip, fail } = lacking(['chromium']);
  t.test(`Chromium with ten tabs, as ${user}`, { skip }, async (t) => {
    if (fail) return t.fail(fail);
    const shell = makeShell(t, user, { REAL: join(packageRoot(), 'test/session/real') });
    const log = () => readFileSync(join(shell.folder, 'log'), 'utf8');
    const ask = async () => {
      const socket = connect(join(shell.folder, 'tabs.sock'));
      socket.write(everyTab);
      return JSON.parse(await text(socket)) as Tab[];
    };
    /** Until every tab has counted on. */
    const goesOn = async (then: readonly Tab[], when: string) => {
      let now: Tab[] = [];
      for (const end = Date.now() + 120_000; Date.now() < end; ) {
        now = await ask();
        if (now.every(({ turns }, index) => turns > then[index]!.turns)) break;
      }
      t.same(
        now.map(({ title }) => title),
        then.map((_, index) => `tab ${index}`),
        `${when}: no tab found its words changed`,
      );
      t.same(
        now.map(({ picture }) => picture),
        then.map(({ picture }) => picture),
        `${when}: their pictures are the same`,
      );
      t.ok(
        now.every(({ turns }, index) => turns > then[index]!.turns),
        `${when}: all of them count on`,
      );
      t.equal(log(), 'ready\n');
      return now;
    };
    const must = (line: string) => {
      const { status, stdout, stderr } = shell.sh(line);
      t.same([status, stdout, stderr], [0, '', ''], line);
    };

    t.equal(shell.sh(`pod-run --name tabs -d -- bash -c 'exec node $REAL/tabs.mjs > $F/log 2>&1'`).status, 0);
    await waitFor('ten tabs', () => /ready/.test(log()));
    const first = await waitForPages(ask);
    t.equal(new Set(first.map(({ picture }) => picture)).size, 10, 'each has a picture of its own');
    must('pod-dump tabs > $F/image');
    const beside = await goesOn(first, 'beside a dump');
    const tree = podTree(shell.ps()[0]!.init);
    let start = Date.now();
    must('pod-dump --then kill tabs > $F/image');
    const suspended = Date.now() - start;
    start = Date.now();
    must('pod-restart -d < $F/image');
    const restarted = Date.now() - start;
    await goesOn(beside, 'after the move');
    const { processes, memory } = shell.ps()[0]!;
    t.ok(processes >= 15, `${processes} processes of ${tree.length}`);
    t.comment(
      `${processes} processes, ${memory} of memory: suspended in ${suspended} ms, restarted in ${restarted} ms`,
    );
    t.equal(shell.sh('pod-kill tabs').status, 0);
  });
}

/** Pages come a moment after their tabs. */
async function waitForPages(ask: () => Promise<Tab[]>): Promise<Tab[]> {
  for (const end = Date.now() + 60_000; ; ) {
    const tabs = await ask();
    if (tabs.every((tab) => (tab?.turns ?? 0) > 0)) return tabs;
    if (Date.now() > end) throw new Error(`waited in vain: pages in the tabs: ${JSON.stringify(tabs)}`);
  }
}
