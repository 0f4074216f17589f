import type { RestartPlan } from './plan-restart.ts';

/** A stranger's string on a terminal: no control characters. */
const plain = (text: string) => text.replace(/[\p{Cc}\p{Cf}]/gu, '?');

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** The plan for a person. */
export function formatPlan(plan: RestartPlan): string {
  const lines = [
    `pod ${plain(plan.pod)}, image ${plan.imageId}`,
    `made ${plan.made.realtime} by engine ${plan.made.engine} on Linux ${plain(plan.made.kernel)}${plan.history.length > 0 ? `, then ${plan.history.map(plain).join(', ')}` : ''}`,
    `memory: ${mebibytes(plan.memory.image)} in the image, ${mebibytes(plan.memory.atHand)} at hand`,
    'processes:',
    ...plan.processes.map(
      (each) =>
        `  ${String(each.pid).padStart(7)} ${plain(each.comm)}${each.threads > 1 ? `, ${each.threads} threads` : ''}${each.state === 'alive' ? '' : `, ${each.state}`}${each.exe ? `  ${plain(each.exe)}` : ''}`,
    ),
    ...(plan.places.length > 0 ? ['comes along:', ...plan.places.map((place) => `  ${plain(place)}`)] : []),
    `files: ${plan.files.length}, all here`,
    ...plan.files.map((file) => `  ${plain(file)}`),
    ...(plan.losses.length > 0
      ? ['what will not come back:', ...plan.losses.map((loss) => `  ${plain(loss)}`)]
      : []),
    'nothing stands against a restart here',
  ];
  return `${lines.join('\n')}\n`;
}
