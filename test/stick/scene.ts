/** The scene: who does what when, and what must be true of it in the end. */
import { randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeDisk } from '../kernels/disk.ts';
import type { Kernel } from '../kernels/kernel.ts';
import { Computer } from './computer.ts';
import type { GuestEvent, Sight, Travel } from './job.ts';
import { prepareStick } from './make-stick.ts';
import { referenceChains } from './reference.ts';
import { countWords } from './search.ts';

export interface Stage {
  kernels: { office: Kernel; home: Kernel };
  folder: string;
  title: (text: string) => void;
  show: (who: string, text: string) => void;
  /** `problem` is undefined when it holds. */
  check: (what: string, problem: string | undefined) => void;
}

/** From the poorer to the richer: a session that has seen AVX cannot go on without. */
const processors = { office: 'Nehalem', home: 'Haswell-noTSX' };

const random = () => randomBytes(12).toString('hex');
const word = () => randomBytes(4).toString('hex');

export async function playScene(stage: Stage): Promise<void> {
  const { folder, kernels, title, show, check } = stage;
  const must = (what: string, holds: boolean, problem: unknown = 'it is not so') =>
    check(what, holds ? undefined : String(problem));
  const same = (what: string, found: unknown, wanted: unknown) =>
    must(
      what,
      JSON.stringify(found) === JSON.stringify(wanted),
      `${JSON.stringify(found)} is not ${JSON.stringify(wanted)}`,
    );

  const travel: Travel = {
    label: 'STICK',
    name: `life-${word()}`,
    diary: `diary-${word()}`,
    seed: randomInt(1, 2 ** 31),
    checks: ['registers', 'pipes', 'memory-shared', 'timers-posix'],
  };
  const secret = random();
  const controls = { kept: random(), deleted: random() };

  title('a stick, with a file system for the session on it, and two computers');
  const image = join(folder, 'stick.img');
  const tree = join(folder, 'tree');
  mkdirSync(tree);
  await prepareStick(image, tree, travel, secret);
  rmSync(tree, { recursive: true });
  const disk = join(folder, 'office.disk');
  makeDisk(disk);
  const hear = (who: string) => (event: GuestEvent) => {
    if (event.event === 'up') show(who, `Linux ${event.release} on ${event.processor}`);
    if (event.event === 'says') show(who, event.text);
  };
  const home = new Computer({
    job: { kind: 'home', travel },
    kernel: kernels.home,
    cpu: processors.home,
    folder,
    hear: hear('home'),
  });
  const office = new Computer({
    job: { kind: 'office', travel, controls },
    kernel: kernels.office,
    cpu: processors.office,
    folder,
    disks: [{ path: disk }],
    writesTo: '/dev/vda',
    hear: hear('office'),
  });
  const [there, here] = await Promise.all([office.next('up'), home.next('up')]);
  must('two computers with different kernels', there.release !== here.release, here.release);
  must('and different processors', there.processor !== here.processor, here.processor);

  title('at home, once: this session may go on here, from this stick, with this key');
  await visit(home, image);

  title('at the office: a session runs from the stick, and is taken along on it');
  await office.next('wants');
  await office.plug(image);
  const { sight: before } = await office.next('saw');
  await office.next('wants');
  await office.unplug();
  await office.next('gone');
  show('office', '(it is pulled out)');

  title('at home: the stick is plugged in, and nobody types anything');
  show('home', '(the stick is plugged in)');
  await home.plug(image);
  const facts = await office.next('office');
  const officeEnd = await office.end;
  const { sight: after } = await home.next('saw');
  await home.next('wants');
  await home.unplug();
  const findings = await home.next('home');
  const homeEnd = await home.end;

  title('is it the same session?');
  await judge(before, after);
  same('its shell keeps in memory what it kept', after.answer, before.answer);
  must('the secret among it', after.answer.startsWith(`${secret} `), after.answer);
  for (const name of travel.checks) same(`${name} found itself as it must be`, findings.results[name], 'ok');
  must('before it was allowed, the stick was not even mounted', findings.unallowed);
  must('pulled out in the end, it is unmounted', findings.unmounted);

  title('is it gone from the office?');
  same('no process of it was left there', facts.left, 0);
  same('no swap', facts.swap, '');
  const chains = before.frames.map(({ chain }) => chain);
  const born = before.answer.split(' ')[1]!;
  const traces = {
    secret,
    'word that only its memory has had': born,
    'name of the session': travel.name,
    'name of its file': travel.diary,
  };
  const words = [...Object.values(controls), ...Object.values(traces), ...chains];
  const found = countWords(disk, words);
  must('its disk is searched: a file of the office is found', found.get(controls.kept)! > 0);
  must('and one that was deleted there', found.get(controls.deleted)! > 0);
  for (const [what, each] of Object.entries(traces)) same(`no ${what}`, found.get(each), 0);
  same(
    'nothing of what it had computed',
    chains.filter((each) => found.get(each)! > 0),
    [],
  );
  const onStick = countWords(image, [secret, ...chains]);
  must('on the stick its secret is in its file', onStick.get(secret)! > 0);
  same(
    'but its memory only encrypted',
    chains.filter((each) => onStick.get(each)! > 0),
    [],
  );
  for (const [name, { failure, console }] of Object.entries({ office: officeEnd, home: homeEnd }))
    must(`${name} has ended well`, failure === undefined, `${failure}\n${console.slice(-2000)}`);

  async function judge(left: Sight, right: Sight): Promise<void> {
    const pids = ({ members }: Sight) => members.map(({ pid, name }) => `${pid} ${name}`);
    must('several processes', left.members.length > travel.checks.length, pids(left));
    same(`the same processes under the same pids: ${pids(left).join(', ')}`, pids(right), pids(left));
    for (const [where, { members }] of [
      ['office', left],
      ['home', right],
    ] as const)
      same(
        `all that they have open or mapped ${where === 'home' ? 'at home' : 'at the office'} is on the stick`,
        members.flatMap(({ elsewhere }) => elsewhere),
        [],
      );
    const last = left.frames.at(-1)!;
    const [first] = right.frames;
    const end = right.frames.at(-1)!;
    must(
      `the game went on: generation ${last.generation} at the office, ${first!.generation} to ${end.generation} at home`,
      first!.generation >= last.generation,
      'it went back',
    );
    const reference = await referenceChains(travel.seed, end.generation);
    const wrong = [...left.frames, ...right.frames].filter(
      ({ generation, chain }) => !reference.get(generation)?.startsWith(chain),
    );
    same('every generation is the one that follows from its seed', wrong, []);
    must(
      `it has replayed itself at home, up to generation ${end.checked}`,
      end.checked > last.checked,
      last.checked,
    );
  }
}

/** The stick comes, what must be done is done, and it goes. */
async function visit(computer: Computer, image: string): Promise<void> {
  await computer.next('wants');
  await computer.plug(image);
  await computer.next('wants');
  await computer.unplug();
  await computer.next('gone');
}
