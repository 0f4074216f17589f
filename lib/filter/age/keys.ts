/**
 * Who can open an age file: X25519 recipients and the identities that match them, passphrases. Keys are read
 * from files, as age-keygen writes them; what is secret lives in sodium's own memory.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { PodError } from '../../stream/error.ts';
import { decodeBech32 } from './bech32.ts';
import { dropSecret, sodium, takeSecret } from './sodium.ts';

const mostKeyBytes = 1 << 20;

/** A small file, from its path or an open descriptor, in sodium's memory. */
function readSmall(source: string | number, what: string): Buffer {
  const name = typeof source === 'number' ? `descriptor ${source}` : source;
  let fd: number | undefined;
  try {
    if (source === '-') {
      throw new PodError(
        'usage',
        `the ${what} cannot come from standard input: the stream does`,
        `give a file, or --passphrase-fd N with a descriptor of its own`,
      );
    }
    fd = typeof source === 'number' ? source : openSync(source, 'r');
    if (fstatSync(fd).isDirectory()) throw new PodError('usage', `the ${what} ${name} is a directory`);
    const scratch = Buffer.alloc(mostKeyBytes + 1);
    let length = 0;
    try {
      for (;;) {
        const got = readSync(fd, scratch, length, scratch.length - length, null);
        length += got;
        if (length > mostKeyBytes) {
          throw new PodError('usage', `the ${what} ${name} is larger than 1 MiB`, 'is it the right file');
        }
        if (got === 0) break;
      }
      const bytes = takeSecret(length);
      bytes.set(scratch.subarray(0, length));
      return bytes;
    } finally {
      sodium().sodium_memzero(scratch.subarray(0, length));
    }
  } catch (cause) {
    if (cause instanceof PodError) throw cause;
    throw new PodError(
      'usage',
      `cannot read the ${what} ${name}: ${(cause as NodeJS.ErrnoException).code ?? 'error'}`,
      `does the file exist, and may you read it`,
      { cause },
    );
  } finally {
    if (fd !== undefined && typeof source !== 'number') closeSync(fd);
  }
}

function lines(bytes: Buffer): string[] {
  return bytes
    .toString('utf8')
    .split('\n')
    .map((line) => line.replace(/\r$/, ''))
    .filter((line) => line !== '' && !line.startsWith('#'));
}

/** A recipient's public point from `age1…`. `where` names its source in the error. */
export function parseRecipient(text: string, where: string): Uint8Array {
  const decoded = decodeBech32(text.trim());
  if (decoded?.prefix === 'age' && decoded.bytes.length === 32) return decoded.bytes;
  const [why, hint] = /^ssh-/.test(text)
    ? ['is an ssh key', 'make a key with age-keygen: only age1… recipients are known here']
    : /^AGE-SECRET-KEY-/i.test(text)
      ? ['is a secret key', 'give the public one: age-keygen -y FILE prints it']
      : ['is not an age recipient', 'a recipient looks like age1…'];
  // A secret must not show up in a message, so only what it is is said.
  throw new PodError('usage', `${where} ${why}`, hint);
}

/** Recipients of a file, one a line. */
export function readRecipients(path: string): Uint8Array[] {
  const bytes = readSmall(path, 'recipients file');
  const rows = lines(bytes);
  dropSecret(bytes);
  const found = rows.map((line, index) => parseRecipient(line, `recipient ${index + 1} of ${path}`));
  if (found.length === 0) {
    throw new PodError(
      'usage',
      `the recipients file ${path} holds no recipient`,
      'a recipient looks like age1…',
    );
  }
  return found;
}

export interface Identity {
  /** 32 bytes in sodium's memory. */
  secret: Buffer;
  point: Uint8Array;
}

/** Identities of a file as age-keygen writes it. */
export function readIdentities(path: string): Identity[] {
  const bytes = readSmall(path, 'key file');
  if (bytes.toString('latin1', 0, 21) === 'age-encryption.org/v1' || bytes[0] === 0x2d) {
    throw new PodError(
      'usage',
      `the key file ${path} is itself encrypted, or of another kind`,
      'decrypt it with age -d first, and keep it where only you can read it',
    );
  }
  const found = lines(bytes).map((line, index): Identity => {
    const decoded = decodeBech32(line.trim());
    if (decoded?.prefix !== 'age-secret-key-' || decoded.bytes.length !== 32) {
      throw new PodError(
        'usage',
        `line ${index + 1} of the key file ${path} is not an age key`,
        line.startsWith('age1')
          ? 'that is the public key: give the file that age-keygen wrote'
          : 'a key looks like AGE-SECRET-KEY-1…',
      );
    }
    const secret = takeSecret(32);
    secret.set(decoded.bytes);
    sodium().sodium_memzero(decoded.bytes);
    const point = new Uint8Array(32);
    sodium().crypto_scalarmult_base(point, secret);
    return { secret, point };
  });
  dropSecret(bytes);
  if (found.length === 0) throw new PodError('usage', `the key file ${path} holds no key`);
  return found;
}

const leastCharacters = 20;

/**
 * The passphrase in a file or behind a descriptor. A file that is one line of text is the passphrase itself (of
 * at least 20 characters, when `strict`); any other content is a key file, and the passphrase is its SHA-256 in
 * lower-case hex, so that `sha256sum FILE` gives what stock age asks for.
 */
export function readPassphrase(source: string | number, strict: boolean): Buffer {
  const bytes = readSmall(source, 'passphrase file');
  const name = typeof source === 'number' ? `descriptor ${source}` : source;
  let { length } = bytes;
  if (length > 0 && bytes[length - 1] === 0x0a) length -= 1;
  if (length > 0 && bytes[length - 1] === 0x0d) length -= 1;
  const text = bytes.toString('utf8', 0, length);
  const oneLine = !/[\p{Cc}\ufffd]/u.test(text);
  if (oneLine) {
    if (/^AGE-SECRET-KEY-/i.test(text)) {
      throw new PodError(
        'usage',
        `${name} holds an age key, not a passphrase`,
        `give it as a key: -i ${name}`,
      );
    }
    if (text.length === 0 || (strict && [...text].length < leastCharacters)) {
      throw new PodError(
        'usage',
        `the passphrase in ${name} has ${[...text].length} characters, at least ${leastCharacters} are needed`,
        'use a sentence, or a key file: head -c 32 /dev/urandom > FILE',
      );
    }
    const passphrase = takeSecret(length);
    passphrase.set(bytes.subarray(0, length));
    dropSecret(bytes);
    return passphrase;
  }
  if (bytes.length < 32) {
    throw new PodError(
      'usage',
      `the key file ${name} has ${bytes.length} bytes, at least 32 are needed`,
      'make one: head -c 32 /dev/urandom > FILE',
    );
  }
  const digest = createHash('sha256').update(bytes).digest();
  const passphrase = takeSecret(64);
  passphrase.write(digest.toString('hex'), 'latin1');
  sodium().sodium_memzero(digest);
  dropSecret(bytes);
  return passphrase;
}
