/** What pod-ps shows: the registry, and /proc for how the pods do. */
import { innerPid, memoryOf, pidNamespace, processesByNamespace, readStat } from './proc.ts';
import { listPods, type PodEntry } from './registry.ts';

export interface PodSummary {
  name: string;
  /** Host pid of pid 1. */
  init: number;
  /** Main process: pid inside, and on the host (null when it is gone). */
  main: number;
  mainHost: number | null;
  /** `held`: a restart is under way. `frozen`: stopped by a tracer, such as a dump. `stopped`: by a signal. */
  state: 'held' | 'running' | 'stopped' | 'frozen' | 'ending';
  /** Processes inside, without pid 1. */
  processes: number;
  /** Proportional set size of all of them, bytes. */
  memory: number;
  command: string[];
  created: string;
  /** Seconds since. */
  age: number;
  root: string | null;
  hostname: string;
}

/** All live pods of this user, by name. */
export function summarizePods(): PodSummary[] {
  const entries = listPods();
  if (entries.length === 0) return [];
  const spaces = processesByNamespace();
  return entries.flatMap((entry) => {
    const space = pidNamespace(entry.init);
    // It ended a moment ago.
    return space === undefined ? [] : summarize(entry, spaces.get(space) ?? []);
  });
}

function summarize(entry: PodEntry, pids: number[]): PodSummary {
  const inside = pids.filter((pid) => pid !== entry.init);
  const mainHost = inside.find((pid) => innerPid(pid) === entry.main) ?? null;
  return {
    name: entry.name,
    init: entry.init,
    main: entry.main,
    mainHost,
    state: entry.held ? 'held' : stateOf(mainHost),
    processes: inside.length,
    memory: pids.reduce((sum, pid) => sum + memoryOf(pid), 0),
    command: entry.command,
    created: entry.created,
    age: Math.max(0, Math.round((Date.now() - Date.parse(entry.created)) / 1000)),
    root: entry.root,
    hostname: entry.hostname,
  };
}

function stateOf(mainHost: number | null): PodSummary['state'] {
  const state = mainHost === null ? undefined : readStat(mainHost)?.state;
  if (state === undefined || state === 'Z' || state === 'X') return 'ending';
  if (state === 't') return 'frozen';
  return state === 'T' ? 'stopped' : 'running';
}
