/** A stream that is cut anywhere never becomes a generation, and one process filters as several do. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { users } from '../pod/house.ts';
import { Random } from '../tools/random.ts';
import { makeShell, writePassphrase } from './session-house.ts';

t.setTimeout(300_000);

t.test('cuts', async (t) => {
  const shell = makeShell(t, users.at(-1)!);
  writePassphrase(shell);
  t.equal(shell.sh('mkdir $F/stick && pod-run --name s -d -- sh -c "sleep 1000 | cat"').status, 0);
  const measured = shell.sh('pod-dump s > $F/image');
  t.equal(measured.status, 0, measured.stderr);
  const image = readFileSync(join(shell.folder, 'image'));
  const borders: number[] = [];
  for (let at = 16; at < image.length; at += 20 + image.readUInt16LE(at + 2) + image.readUInt32LE(at + 4))
    borders.push(at);
  const random = new Random(Number(process.env['POD_TEST_SEED'] ?? 7));
  // From a live session: two dumps differ in a few bytes, so "all but the last byte" is cut from the file as well.
  const sizes = [
    0,
    1,
    15,
    16,
    17,
    borders[1]!,
    borders[1]! + 16,
    borders.at(-1)!,
    random.below(image.length),
    random.below(image.length),
  ];
  const noGeneration = () =>
    !readdirSync(join(shell.folder, 'stick'), { recursive: true, encoding: 'utf8' }).some((path) =>
      path.endsWith('HEAD'),
    );
  for (const size of sizes) {
    const { status, stderr } = shell.sh(`pod-dump s 2> /dev/null | head -c ${size} | pod-store $F/stick/s`);
    t.equal(status, 5, `${size}: ${stderr}`);
    t.ok(noGeneration(), `${size} bytes`);
  }
  for (const size of [image.length - 1, image.length - 4, borders.at(-1)! + 1, borders.at(-2)!]) {
    const { status, stderr } = shell.sh(`head -c ${size} $F/image | pod-store $F/stick/s`);
    t.equal(status, 5, `${size}: ${stderr}`);
    t.ok(noGeneration(), `${size} bytes`);
  }
  const layered = 'pod-filter compress encrypt -p $F/passphrase';
  t.equal(shell.sh(`${layered} < $F/image > $F/layered`).status, 0);
  const { size: whole } = statSync(join(shell.folder, 'layered'));
  for (const size of [whole - 1, random.below(whole)]) {
    t.equal(shell.sh(`head -c ${size} $F/layered | pod-store $F/stick/s`).status, 5);
    t.equal(
      shell.sh(`head -c ${size} $F/image | ${layered} | pod-store $F/stick/s`).status,
      size < image.length ? 10 : 0,
    );
  }

  // A cut one does not touch the generation that is there.
  t.equal(shell.sh('pod-dump s | pod-store $F/stick/s').status, 0);
  const head = readFileSync(join(shell.folder, 'stick/s/HEAD'), 'utf8');
  t.equal(shell.sh(`pod-dump s 2> /dev/null | head -c ${borders.at(-1)!} | pod-store $F/stick/s`).status, 5);
  t.equal(readFileSync(join(shell.folder, 'stick/s/HEAD'), 'utf8'), head);

  // One process and several: the same inner stream.
  const forms = [
    'pod-filter upgrade-2.6 | pod-filter compress | pod-filter encrypt -p $F/passphrase',
    'pod-filter upgrade-2.6 compress encrypt -p $F/passphrase',
    'pod-filter upgrade-2.6 compress | pod-filter encrypt -p $F/passphrase',
  ];
  const digests = forms.map((form) => {
    const line = `< $F/image ${form} | pod-filter --undo encrypt -p $F/passphrase | tee >(sha256sum > $F/compressed) | pod-filter --undo compress | sha256sum; sleep 0.2; cat $F/compressed`;
    const { status, stdout, stderr } = shell.sh(line);
    t.equal(status, 0, stderr);
    t.match(stdout, /^[0-9a-f]{64} .*\n[0-9a-f]{64} .*\n$/);
    return stdout;
  });
  t.equal(new Set(digests).size, 1, digests.join());
  t.equal(shell.sh('pod-kill s').status, 0);
  t.notOk(existsSync(join(shell.folder, 'stick/s/s')));
});
