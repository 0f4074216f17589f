/** Doing something in another namespace, or in a new one: only this thread goes there, and comes back. */
import { closeSync, openSync } from 'node:fs';
import { native } from '../../native/index.ts';

const SYS = { setns: 308, unshare: 272 } as const;
const newBits = { net: 0x40000000, ipc: 0x08000000 } as const;
type Name = keyof typeof newBits;

function elsewhere<Result>(name: Name, enter: () => void, body: () => Result): Result {
  const ours = openSync(`/proc/thread-self/ns/${name}`, 'r');
  try {
    enter();
    try {
      return body();
    } finally {
      native().syscall(SYS.setns, ours, 0);
    }
  } finally {
    closeSync(ours);
  }
}

/** In that of a process. */
function inThatOf<Result>(name: Name, pid: number | string, body: () => Result): Result {
  const theirs = openSync(`/proc/${pid}/ns/${name}`, 'r');
  try {
    return elsewhere(name, () => void native().syscall(SYS.setns, theirs, 0), body);
  } finally {
    closeSync(theirs);
  }
}

/** In one that nobody has touched, and that is gone afterwards. */
const inNew = <Result>(name: Name, body: () => Result): Result =>
  elsewhere(name, () => void native().syscall(SYS.unshare, newBits[name]), body);

export const inNetworkOf = <Result>(pid: number | string, body: () => Result): Result =>
  inThatOf('net', pid, body);
export const inNewNetwork = <Result>(body: () => Result): Result => inNew('net', body);
export const inIpcOf = <Result>(pid: number, body: () => Result): Result => inThatOf('ipc', pid, body);
export const inNewIpc = <Result>(body: () => Result): Result => inNew('ipc', body);
