/** That whoever inherits pages is a child of whom they come from, and can be forked when they are there. */
import { forkedInPlace } from '../forked-in-place.ts';
import type { TreeEntry } from '../model.ts';
import type { Records } from '../record.ts';
import { damaged } from './fault.ts';

export class InheritanceCheck {
  readonly #tree: Pick<TreeEntry, 'pid' | 'ppid' | 'sid' | 'state'>[] = [];
  /** Address spaces by pid. */
  readonly #spaces = new Map<number, number>();

  tree(record: Records['tree']): void {
    for (const { pid, ppid, sid, state } of record.processes) this.#tree.push({ pid, ppid, sid, state });
  }

  process({ pid, mm }: Records['process']): void {
    this.#spaces.set(pid, mm);
  }

  /** All processes came. `baseOf` tells from which address space another one inherits. */
  end(baseOf: (mm: number) => number | undefined): void {
    const inPlace = forkedInPlace(this.#tree);
    for (const { pid, ppid } of this.#tree) {
      const own = this.#spaces.get(pid);
      const base = own === undefined ? undefined : baseOf(own);
      const parent = this.#spaces.get(ppid);
      if (base === undefined || parent === own) continue;
      if (parent !== base)
        throw damaged(`process ${pid} inherits from address space ${base}, which is not its parent's`);
      if (!inPlace.has(pid))
        throw damaged(`process ${pid} inherits from its parent, which can't have forked it last`);
    }
  }
}
