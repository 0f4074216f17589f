/**
 * The capabilities that a confined session may have at most: those that are about its own files, ids and processes,
 * as in a container. With them package installers, sudo and servers that change their user work; what reaches the
 * kernel, its devices, other sessions or the network beyond a socket is left out. capabilities(7).
 */
const kept = {
  chown: 0,
  dacOverride: 1,
  fowner: 3,
  fsetid: 4,
  kill: 5,
  setgid: 6,
  setuid: 7,
  setpcap: 8,
  netBindService: 10,
  ipcOwner: 15,
  sysChroot: 18,
  lease: 28,
  auditWrite: 29,
  setfcap: 31,
} as const;

/** As a set, bit N for capability N. A user's session has none, and no program in it gets any. */
export const keptCapabilities: bigint =
  process.geteuid!() === 0
    ? Object.values(kept).reduce((set, number) => set | (1n << BigInt(number)), 0n)
    : 0n;
