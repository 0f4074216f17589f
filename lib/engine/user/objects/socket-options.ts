/** Options that a socket says and a new one does not: setsockopt(2), by a list of what may be set. */
import { native } from '../../../../native/index.ts';
import { O, SYS } from '../abi.ts';
import { closeLocal, getOption } from './local-calls.ts';

export interface SavedOption {
  level: number;
  option: number;
  value: Uint8Array;
}

export interface SocketKind {
  domain: number;
  type: number;
  protocol: number;
}

/** Longest value of an option, bytes. */
const longest = 512;

/** Of `list`, what differs from a new socket of the same kind. */
export function changedOptions(
  local: number,
  { domain, type, protocol }: SocketKind,
  list: readonly { level: number; option: number }[],
): SavedOption[] {
  const fresh = Number(native().syscall(SYS.socket, domain, type | O.cloexec, protocol));
  try {
    return list.flatMap(({ level, option }) => {
      const value = getOption(local, level, option, longest);
      const usual = getOption(fresh, level, option, longest);
      return value === undefined || (usual && Buffer.from(value).equals(usual))
        ? []
        : [{ level, option, value }];
    });
  } finally {
    closeLocal(fresh);
  }
}
