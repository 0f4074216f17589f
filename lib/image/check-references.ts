/**
 * Whether the records of an image fit together. Schemas look at one record; this looks at the whole, in one
 * pass and bounded memory: sections in order, ids defined once and before use, a tree without cycles, areas
 * ascending and apart, pages only where private memory is, paths that cannot climb, no more of anything than a
 * sane image has. Nothing of an image may be made or run before its frames went through here.
 */
import { PodError } from '../stream/error.ts';
import type { Frame } from '../stream/frame.ts';
import { kindName, kinds } from '../stream/kind.ts';
import { damaged } from './check/fault.ts';
import { FilesCheck, isOpenFile } from './check/files.ts';
import { InheritanceCheck } from './check/inheritance.ts';
import { IpcCheck } from './check/ipc.ts';
import { MemoryCheck } from './check/memory.ts';
import { PlacesCheck } from './check/places.ts';
import { TreeCheck } from './check/tree.ts';
import { type OpenFileKind, type Section, sectionOf, sections } from './model.ts';
import { type Records, readRecord } from './record.ts';

interface Parts {
  memory: MemoryCheck;
  files: FilesCheck;
  tree: TreeCheck;
  inheritance: InheritanceCheck;
  ipc: IpcCheck;
  places: PlacesCheck;
}

/**
 * Feed it every frame of an image in order, then call end(). Throws PodError `damaged` (6) or `limit` (9), the
 * message names the frame's object. Records are validated against their schemas on the way.
 */
export class ReferenceChecker {
  #parts: Parts | undefined;
  #section: Section = 'hello';
  #pods = 0;

  frame(frame: Frame): void {
    const { kind } = frame;
    if (kind === kinds.end || kind === kinds.error) return;
    if (kind === kinds.layer || kind === kinds.data) {
      throw new PodError(
        'usage',
        `the image is inside the layer ${String(frame.meta.filter)}`,
        'undo the layer first: pod-filter --undo NAME',
      );
    }
    const section = sectionOf(kindName(kind));
    if (section === undefined) return;
    if (section === 'hello') {
      const hello = readRecord('hello', frame);
      this.#parts = {
        memory: new MemoryCheck(hello),
        files: new FilesCheck(),
        tree: new TreeCheck(hello.semantics),
        inheritance: new InheritanceCheck(),
        ipc: new IpcCheck(),
        places: new PlacesCheck(BigInt(hello.pageSize)),
      };
      return;
    }
    if (!this.#parts) throw damaged('the image does not start with HELLO');
    this.#enter(section, this.#parts, frame);
    this.#take(this.#parts, frame);
  }

  /** The image is whole. */
  end(): void {
    if (!this.#parts) throw damaged('the image does not start with HELLO');
    this.#leave(this.#section, 'pages', this.#parts);
  }

  #enter(section: Section, parts: Parts, frame: Frame): void {
    if (section === this.#section) return;
    if (sections.indexOf(section) < sections.indexOf(this.#section)) {
      throw damaged(
        `frame ${frame.seq}: ${kindName(frame.kind)} comes after the ${this.#section} section of the image`,
      );
    }
    this.#leave(this.#section, section, parts);
    this.#section = section;
  }

  /** What must be whole when the stream goes from one section to a later one. */
  #leave(from: Section, to: Section, parts: Parts): void {
    const passes = (section: Section): boolean =>
      sections.indexOf(from) <= sections.indexOf(section) && sections.indexOf(section) < sections.indexOf(to);
    if (passes('tree')) parts.tree.treeEnd();
    if (passes('objects')) parts.files.end(parts.memory.carriers);
    if (!passes('tasks')) return;
    parts.tree.end();
    parts.inheritance.end((mm) => parts.memory.baseOf(mm));
  }

  #take(parts: Parts, frame: Frame): void {
    const { memory, files, tree, inheritance } = parts;
    switch (frame.kind) {
      case kinds.pod:
        memory.pod(readRecord('pod', frame));
        files.pod(readRecord('pod', frame));
        this.#pods += 1;
        if (this.#pods > 1) throw damaged('the image has a second POD');
        return;
      case kinds.tree: {
        const record = readRecord('tree', frame);
        tree.tree(record);
        inheritance.tree(record);
        return;
      }
      case kinds.shm:
        memory.shm(readRecord('shm', frame));
        return;
      case kinds.mm:
        memory.mm(readRecord('mm', frame));
        return;
      case kinds.areas:
        memory.areas(readRecord('areas', frame));
        return;
      case kinds.place:
        parts.places.place(readRecord('place', frame));
        return;
      case kinds.pages: {
        const record = readRecord('pages', frame);
        if (record.file === undefined) memory.pages(record, frame.data.length);
        else parts.places.pages(record, frame.data.length);
        return;
      }
      case kinds.content:
        files.content(readRecord('content', frame), frame.data.length);
        return;
      case kinds['fd-table']:
        files.table(readRecord('fd-table', frame));
        return;
      case kinds['file-locks']:
        files.locks(readRecord('file-locks', frame));
        return;
      case kinds.fs:
        files.fs(readRecord('fs', frame));
        return;
      case kinds['sysv-semaphores']:
        parts.ipc.semaphores(readRecord('sysv-semaphores', frame), frame.data, (pid) => tree.isAlive(pid));
        return;
      case kinds['sysv-queue']:
        parts.ipc.queue(readRecord('sysv-queue', frame), frame.data.length);
        return;
      case kinds.seccomp:
        tree.filter(readRecord('seccomp', frame));
        return;
      case kinds.handlers:
        files.handlers(readRecord('handlers', frame));
        return;
      case kinds.process:
        this.#process(parts, readRecord('process', frame));
        return;
      case kinds.thread:
        this.#thread(parts, readRecord('thread', frame));
        return;
    }
    if (isOpenFile(frame.kind)) {
      const kind = kindName(frame.kind) as OpenFileKind;
      const file = { kind, record: readRecord(kind, frame) } as Parameters<FilesCheck['object']>[0];
      files.object(file, (id) => memory.originOf(id));
    }
  }

  #thread(parts: Parts, record: Records['thread']): void {
    parts.tree.thread(record);
    parts.files.thread(record);
  }

  #process(parts: Parts, record: Records['process']): void {
    parts.tree.process(record);
    if (!parts.memory.hasAddressSpace(record.mm))
      throw damaged(`process ${record.pid} names address space ${record.mm}, which is not defined before it`);
    parts.files.process(record);
    parts.inheritance.process(record);
  }
}
