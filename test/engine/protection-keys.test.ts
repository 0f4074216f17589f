/** Protection keys where there are none, and what nobody can tell apart. The rest is test/programs/protection-keys.c. */
import t from 'tap';
import type { ImageRecords } from '../../lib/engine/user/image-records.ts';
import { checkKeys, findExecuteOnlyKey, parseKeys } from '../../lib/engine/user/objects/protection-keys.ts';

interface Keys {
  mm?: { protectionKeys?: number; executeOnlyKey?: number };
  area?: { prot: number; protectionKey?: number };
}

/** An image of one process with one area. */
function image({ mm = {}, area = { prot: 3 } }: Keys) {
  const space = { record: { id: 1, ...mm }, areas: [{ start: 0n, end: 4096n, kind: 'anonymous', ...area }] };
  return {
    spaces: new Map([[1, space]]),
    processes: new Map([[7, { record: { pid: 7, mm: 1 }, threads: [] }]]),
    tree: [{ pid: 7, comm: 'holder' }],
  } as unknown as ImageRecords;
}

t.test('a machine without protection keys', async (t) => {
  const refused = {
    failure: 'cannot-restart',
    message: /^holder \(pid 7 of the session\) uses memory protection keys/,
  };
  t.throws(() => checkKeys(image({ mm: { protectionKeys: 2 } }), false), refused, 'handed out, and not used');
  t.throws(
    () => checkKeys(image({ area: { prot: 3, protectionKey: 4 } }), false),
    refused,
    'given back, and still used',
  );
  t.doesNotThrow(() => checkKeys(image({}), false), 'none');
  t.doesNotThrow(
    () => checkKeys(image({ mm: { executeOnlyKey: 3 }, area: { prot: 4, protectionKey: 3 } }), false),
    "the kernel's own, of which the program knows nothing",
  );
  t.doesNotThrow(() => checkKeys(image({ mm: { protectionKeys: 2 } }), true), 'a machine with them');
});

t.test('the key of memory that may only be run', async (t) => {
  const area = (permissions: string, protectionKey: number) => ({ permissions, protectionKey });
  const find = (areas: ReturnType<typeof area>[], keys: number) => findExecuteOnlyKey(areas, keys, 1);
  t.equal(find([area('rw-p', 2), area('--xp', 0)], 4), undefined);
  t.equal(find([area('--xp', 2), area('--xp', 5)], 4), 5, 'not one that the program has');
  t.throws(() => find([area('--xp', 2), area('--xp', 5)], 0), {
    failure: 'cannot-checkpoint',
    message: /protection keys that it has given back/,
  });
});

t.test('keys that are handed out', async (t) => {
  const answers = Array.from({ length: 15 }, (_none, index) => (index === 0 || index === 14 ? -12n : -22n));
  t.equal(parseKeys(answers), 0x8002);
  t.equal(parseKeys([]), 0, 'a kernel without any is not asked');
});
