/** One changed image into pod-restart, and all that must hold whatever it is. */
import { faultOf, Surroundings } from './bad-input.ts';

type Teardown = ConstructorParameters<typeof Surroundings>[0];

export interface Restarted {
  status: number | string;
  /** The line that says why not. */
  error: string;
  /** What should not have been; empty when all is well. */
  faults: string[];
}

/** `how`: arguments of pod-restart. A session that comes of it is ended. */
export async function restartBadImage(
  t: Teardown,
  image: Uint8Array,
  how: readonly string[] = ['-d'],
  as: 'self' | 'nobody' = 'self',
): Promise<Restarted> {
  const home = new Surroundings(t, as);
  home.settle();
  const ended = await home.run({ command: ['pod-restart', ...how], input: image });
  const fault = faultOf('pod-restart', ended);
  if (ended.status === 0 && !how.includes('--plan')) await endSessions(home);
  const error = ended.stderr.split('\n').find((line) => line.startsWith('pod-restart: error: ')) ?? '';
  return { status: ended.status, error, faults: [...(fault ? [fault] : []), ...home.leftovers()] };
}

/** They may have ended by themselves: with what they were changed into, they rarely get far. */
async function endSessions(home: Surroundings): Promise<void> {
  const { stdout } = await home.run({ command: ['pod-ps', '--json'] });
  for (const { name } of JSON.parse(stdout.toString()) as { name: string }[])
    await home.run({ command: ['pod-kill', name] });
  // What a pod that is gone left in the registry is swept by whoever looks.
  await home.run({ command: ['pod-ps'] });
}
