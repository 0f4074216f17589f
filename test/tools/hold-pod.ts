/**
 * `hold-pod NAME [ROOT]`: hold a pod, print its pid 1, do what stdin says (`adopt N`, `destroy`), a line of JSON
 * each. For tests that need a holder they can kill, or one that is another user.
 */
import { createInterface } from 'node:readline';
import { holdPod } from '../../lib/pod/create.ts';

const [name, root] = process.argv.slice(2) as [string, string?];
const pod = await holdPod({ name, ...(root === undefined ? {} : { root }) });
console.log(JSON.stringify({ init: pod.initPid, console: pod.consolePath }));
for await (const line of createInterface({ input: process.stdin })) {
  const [word, number] = line.split(' ');
  try {
    if (word === 'adopt') console.log(JSON.stringify((await pod.adopt(Number(number))).entry));
    else await pod.destroy().then(() => console.log('{}'));
  } catch (cause) {
    console.log(JSON.stringify({ error: (cause as Error).message }));
  }
}
