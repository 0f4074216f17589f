/** What the two computers of the scene are told to do, and what they tell. */

/** The session and where its parts lie on the stick; the same for both. */
export interface Travel {
  /** The stick's label. */
  label: string;
  /** The pod's name, and the folder of its images on the stick. */
  name: string;
  /** In the session's root. */
  diary: string;
  seed: number;
  /** Self-checking programs of test/programs that run in the session beside the game. */
  checks: readonly string[];
}

export type Job =
  /** The computer that the session belongs to: its stick is allowed there, and later the session goes on by itself. */
  | { kind: 'home'; travel: Travel }
  /** Somebody else's: the session runs there from the stick, and is taken along. */
  | { kind: 'office'; travel: Travel; controls: Controls };

/** Words that are written to the office's disk so that a search can show that it finds. */
export interface Controls {
  kept: string;
  deleted: string;
}

/** One line of the game: examples/life.js. */
export interface Frame {
  generation: number;
  chain: string;
  /** Generation up to which it has replayed everything. */
  checked: number;
  /** That it thinks it has lived. */
  seconds: number;
  pid: number;
}

export interface Member {
  /** As the session sees it. */
  pid: number;
  name: string;
  /** Paths of files that it has open or mapped and that lie on no stick. */
  elsewhere: string[];
}

export interface Sight {
  members: Member[];
  /** What the console shows, oldest first. */
  frames: Frame[];
  /** What the session's shell says that it keeps in memory: the diary's secret, and one of its own. */
  answer: string;
}

export type GuestEvent =
  | { event: 'up'; release: string; processor: string }
  /** For whoever looks on. */
  | { event: 'says'; text: string }
  /** Somebody must plug the stick in or pull it out. */
  | { event: 'wants'; what: 'plug' | 'unplug' }
  | { event: 'gone' }
  | { event: 'saw'; sight: Sight }
  | Findings
  | { event: 'error'; message: string }
  | { event: 'done' };

/** What is judged on the host. */
export type Findings =
  | { event: 'office'; swap: string; left: number }
  | { event: 'home'; unallowed: boolean; unmounted: boolean; results: Record<string, string> };
