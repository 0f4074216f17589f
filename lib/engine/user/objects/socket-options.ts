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
  kind: SocketKind,
  list: readonly { level: number; option: number }[],
): SavedOption[] {
  const usual = usualOptions(kind, list);
  return list.flatMap(({ level, option }, index) => {
    const value = getOption(local, level, option, longest);
    return value === undefined || (usual[index] && Buffer.from(value).equals(usual[index]))
      ? []
      : [{ level, option, value }];
  });
}

/** By kind, each of which is asked with one list: sessions have hundreds of sockets of one. */
const known = new Map<string, readonly (Uint8Array | undefined)[]>();

function usualOptions(
  { domain, type, protocol }: SocketKind,
  list: readonly { level: number; option: number }[],
): readonly (Uint8Array | undefined)[] {
  const key = `${domain} ${type} ${protocol}`;
  const found = known.get(key);
  if (found) return found;
  const fresh = Number(native().syscall(SYS.socket, domain, type | O.cloexec, protocol));
  try {
    const usual = list.map(({ level, option }) => getOption(fresh, level, option, longest));
    known.set(key, usual);
    return usual;
  } finally {
    closeLocal(fresh);
  }
}
