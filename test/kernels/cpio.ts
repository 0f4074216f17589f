/** A cpio archive in the form that the kernel unpacks at boot: "newc", Documentation/driver-api/early-userspace. */

export interface Entry {
  path: string;
  /** With the file type: 0o100755, 0o040755. */
  mode: number;
  bytes?: Buffer;
}

const pad = (length: number) => Buffer.alloc((4 - (length % 4)) % 4);

function encode(entry: Entry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`);
  const bytes = entry.bytes ?? Buffer.alloc(0);
  const isFolder = (entry.mode & 0o170000) === 0o040000;
  const fields = [inode, entry.mode, 0, 0, isFolder ? 2 : 1, 0, bytes.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(
    `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`,
    'latin1',
  );
  return [header, name, pad(header.length + name.length), bytes, pad(bytes.length)];
}

/** Folders must come before what is in them. */
export function writeCpio(entries: readonly Entry[]): Buffer {
  return Buffer.concat(
    [...entries, { path: 'TRAILER!!!', mode: 0 }].flatMap((entry, index) => encode(entry, index + 1)),
  );
}
