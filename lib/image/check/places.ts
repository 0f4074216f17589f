/** Places, and the files in them: nothing may lie outside, or in what is no folder. */
import { bounds } from '../model.ts';
import type { Records } from '../record.ts';
import { beyond, checkPath, damaged, IdSpace } from './fault.ts';

type Place = Records['place'];
type PlacedFile = NonNullable<Place['files']>[number];

const typeMask = 0o170000;
const folder = 0o040000;
const regular = 0o100000;
const link = 0o120000;
const types = new Set([0o010000, 0o020000, folder, 0o060000, regular, link, 0o140000]);

/** The kernel's own trees, in which an image has nothing to lay. */
const kernels = /^\/(proc|sys)(\/|$)/;

export class PlacesCheck {
  readonly #page: bigint;
  readonly #places = new IdSpace('place', bounds.places);
  readonly #sizes = new Map<number, bigint>();
  #count = 0;
  #last: Place | undefined;
  /** Types of the files of the last place. */
  #types: number[] = [];

  constructor(page: bigint) {
    this.#page = page;
  }

  place(record: Place): void {
    const { id, path, mount, files } = record;
    const owner = `place ${id}`;
    checkPath(path, owner);
    if (id !== this.#last?.id) {
      if (this.#last && id < this.#last.id) throw damaged(`${owner} comes after place ${this.#last.id}`);
      this.#places.define(id);
      this.#last = record;
      this.#types = [];
      if (mount) checkMount(mount, owner);
      if (!mount && !files) throw damaged(`${owner} is neither mounted nor has files`);
    } else if (path !== this.#last.path || mount) {
      throw damaged(`${owner} is defined twice`);
    }
    if (!files || files.length === 0) return;
    const { type } = this.#last.mount ?? {};
    if (type !== undefined && type !== 'tmpfs' && type !== 'ramfs')
      throw damaged(`${owner} has files, which its file system can't take`);
    if (type === undefined && kernels.test(path)) throw damaged(`${owner} lies in a tree of the kernel's`);
    for (const file of files) this.#file(file, owner);
  }

  pages(record: Records['pages'], length: number): void {
    const owner = `file ${record.file}`;
    const size = this.#sizes.get(record.file!);
    if (size === undefined) throw damaged(`pages name ${owner}, which is in no place`);
    if (record.mm !== undefined || record.shm !== undefined)
      throw damaged(`pages of ${owner} belong to something else too`);
    const page = this.#page;
    if (record.addr % page !== 0n || length === 0 || BigInt(length) % page !== 0n)
      throw damaged(`pages of ${owner} are not whole pages`);
    if (record.addr + BigInt(length) > ((size + page - 1n) / page) * page)
      throw damaged(`pages are beyond ${owner}`);
  }

  #file(file: PlacedFile, place: string): void {
    const index = this.#types.length;
    const owner = `file ${index} of ${place}`;
    if (++this.#count > bounds.placedFiles)
      throw beyond(`${this.#count} files in places`, bounds.placedFiles);
    const type = file.mode & typeMask;
    if (!types.has(type)) throw damaged(`${owner} is of no type`);
    if ((index === 0) !== (file.name === '.') || file.name === '..')
      throw damaged(`${owner} has an impossible name`);
    if (index > 0 && this.#types[file.parent] !== folder)
      throw damaged(`${owner} is in file ${file.parent}, which is no folder before it`);
    if ((type === link) !== (file.target !== undefined))
      throw damaged(`${owner} leads nowhere, or is no link`);
    this.#types.push(type);
    if (file.link !== undefined) {
      if (file.link >= index || type === folder || this.#types[file.link] !== type)
        throw damaged(
          `${owner} is another name of file ${file.link}, which is not before it or not the same`,
        );
      if (file.file !== undefined) throw damaged(`${owner} has contents twice`);
      return;
    }
    if ((type === regular) !== (file.file !== undefined && file.size !== undefined))
      throw damaged(`${owner} has no contents, or is no regular file`);
    if (file.file === undefined) return;
    if (file.size! > bounds.objectSize) throw beyond(`a file of ${file.size} bytes`, bounds.objectSize);
    if (this.#sizes.has(file.file)) throw damaged(`file ${file.file} is in two places`);
    this.#sizes.set(file.file, file.size!);
  }
}

function checkMount(mount: NonNullable<Place['mount']>, owner: string): void {
  if (mount.type !== 'bind') return;
  if (mount.source === undefined) throw damaged(`${owner} is a bind mount of nothing`);
  checkPath(mount.source, owner);
}
