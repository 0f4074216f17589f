/**
 * The clocks of a session that was moved: CLOCK_MONOTONIC and CLOCK_BOOTTIME count from the boot of a computer, so a
 * program that came from another one would see them jump, back or by months, and wait for ever or not at all. A time
 * namespace (time_namespaces(7)) lets them go on from where they were.
 */
import { existsSync, readFileSync } from 'node:fs';
import { native } from '../../native/index.ts';

/** Both in ns, as the session saw them last. */
export interface Clocks {
  monotonicNs: bigint;
  boottimeNs: bigint;
}

const second = 1_000_000_000n;
const clock_gettime = 228;

function now(clock: number): bigint {
  const bytes = new Uint8Array(16);
  native().syscall(clock_gettime, clock, bytes);
  const view = new DataView(bytes.buffer);
  return view.getBigInt64(0, true) * second + view.getBigInt64(8, true);
}

/** The clocks of this process. */
export function readClocks(): Clocks {
  return { monotonicNs: now(1), boottimeNs: now(7) };
}

/** Whether this kernel has time namespaces (Linux 5.6, CONFIG_TIME_NS). */
export function hasTimeNamespaces(): boolean {
  return existsSync('/proc/self/ns/time_for_children');
}

/** Offsets are told from the machine's own clocks, also by who lives in a time namespace. */
function ownOffset(name: string): bigint {
  const line = new RegExp(`^${name}\\s+(-?\\d+)\\s+(\\d+)$`, 'm').exec(
    readFileSync('/proc/self/timens_offsets', 'latin1'),
  );
  return line ? BigInt(line[1]!) * second + BigInt(line[2]!) : 0n;
}

/** What a new time namespace gets written into /proc/PID/timens_offsets, so that its clocks go on from `wanted`. */
export function clockOffsets(wanted: Clocks): string {
  const here = readClocks();
  const line = (name: string, offset: bigint) => {
    // The nanoseconds count up, also before zero.
    const nanoseconds = ((offset % second) + second) % second;
    return `${name} ${(offset - nanoseconds) / second} ${nanoseconds}\n`;
  };
  return (
    line('monotonic', wanted.monotonicNs - here.monotonicNs + ownOffset('monotonic')) +
    line('boottime', wanted.boottimeNs - here.boottimeNs + ownOffset('boottime'))
  );
}
