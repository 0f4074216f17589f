import { readFileSync } from 'node:fs';

/**
 * kernel.yama.ptrace_scope: 0 whoever may signal a process may trace it, 1 whoever is above it, 2 whoever has
 * CAP_SYS_PTRACE over it, as a pod's creator has, 3 nobody until the next boot. 0 without Yama.
 */
export function ptraceScope(): number {
  try {
    return Number(readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'utf8'));
  } catch {
    return 0;
  }
}
