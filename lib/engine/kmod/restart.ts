/**
 * What the module adds to a restart: the user engine makes the session, as always, and the module gives its tasks what
 * only the kernel can give. It holds nothing of them, so that nothing is left of a restart that fails or is killed.
 */
import { PodError } from '../../stream/error.ts';
import type { TimeGiver } from '../user/processor-time.ts';
import { Device } from './device.ts';

export interface ModuleRestart extends TimeGiver {
  close(): void;
}

/** Before anything is made: throws when there is no module, or it is too old. */
export function openForRestart(): ModuleRestart {
  let device: Device;
  try {
    device = new Device();
  } catch (cause) {
    const reason = (cause as Error).message.split(',', 1)[0];
    throw refusal(`/dev/pod can't be opened: ${reason}`, 'load the module (kmod/README.md)', cause);
  }
  try {
    // No task: a module that knows the request complains of that.
    device.setTimes(0, []);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EINVAL') {
      device.close();
      throw refusal('the module that is loaded is older than podstream here', 'load that of kmod/', cause);
    }
  }
  return {
    giveTimes(tid, thread, process) {
      const of = ({ userNs, systemNs, runNs }: typeof thread) => [userNs, systemNs, runNs];
      const more = process ? [...of(process.ended), process.childrenUserNs, process.childrenSystemNs] : [];
      try {
        device.setTimes(tid, [...of(thread), ...more]);
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        throw refusal(`the module does not take the processor time of a task (${code})`, undefined, cause);
      }
    },
    close: () => device.close(),
  };
}

const refusal = (message: string, hint: string | undefined, cause: unknown) =>
  new PodError('cannot-restart', message, hint ? `${hint}, or use --engine user` : 'use --engine user', {
    cause,
  });
