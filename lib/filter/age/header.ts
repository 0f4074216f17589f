/**
 * The header of an age file (age-encryption.org/v1): lines of text, one stanza a recipient, and a MAC over all
 * of it under a key derived from the file key. The stanzas hold the file key, wrapped.
 */
import { PodError } from '../../stream/error.ts';
import { hkdf, hmac, scrypt } from './kdf.ts';
import type { Identity } from './keys.ts';
import { dropSecret, sodium, takeSecret } from './sodium.ts';

export const intro = 'age-encryption.org/v1';
/** Most bytes of a header: some thousand recipients. */
export const maxHeader = 256 << 10;

/** Work for a passphrase of at least 20 characters: 2^16 is 64 MiB of memory, so that the filter stays small. */
const ownWork = 16;
/** Most that a stranger's header may ask for: 2^20 is 1 GiB of memory; stock age writes 2^18. */
const mostWork = 20;

const x25519Info = 'age-encryption.org/v1/X25519';
const zeroNonce = new Uint8Array(12);

export interface Stanza {
  args: string[];
  body: Uint8Array;
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64').replace(/=+$/, '');

/** Unpadded, canonical base64; undefined otherwise. */
function unbase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64');
  return base64(bytes) === text ? bytes : undefined;
}

function formatStanza({ args, body }: Stanza): string {
  const text = base64(body);
  // Lines of 64 columns; the last one is shorter, empty when it has to be.
  const rows = [];
  for (let at = 0; at <= text.length; at += 64) rows.push(text.slice(at, at + 64));
  return `-> ${args.join(' ')}\n${rows.join('\n')}\n`;
}

function seal(key: Uint8Array, fileKey: Uint8Array): Uint8Array {
  const sealed = new Uint8Array(fileKey.length + 16);
  sodium().crypto_aead_chacha20poly1305_ietf_encrypt(sealed, fileKey, null, null, zeroNonce, key);
  return sealed;
}

/** The file key in a stanza's body, in sodium's memory; undefined when the key is not the right one. */
function open(key: Uint8Array, body: Uint8Array): Buffer | undefined {
  const fileKey = takeSecret(16);
  try {
    sodium().crypto_aead_chacha20poly1305_ietf_decrypt(fileKey, null, body, null, zeroNonce, key);
    return fileKey;
  } catch {
    dropSecret(fileKey);
    return undefined;
  }
}

/** The key that wraps the file key between an ephemeral share and a recipient. */
function wrapKey(
  secret: Uint8Array,
  other: Uint8Array,
  share: Uint8Array,
  point: Uint8Array,
): Buffer | undefined {
  const shared = takeSecret(32);
  try {
    // Throws on points of low order, where the shared secret would be zero.
    sodium().crypto_scalarmult(shared, secret, other);
  } catch {
    dropSecret(shared);
    return undefined;
  }
  const key = takeSecret(32);
  hkdf(key, shared, Buffer.concat([share, point]), x25519Info);
  dropSecret(shared);
  return key;
}

export function wrapForRecipient(fileKey: Uint8Array, point: Uint8Array): Stanza {
  const ephemeral = takeSecret(32);
  sodium().randombytes_buf(ephemeral);
  const share = new Uint8Array(32);
  sodium().crypto_scalarmult_base(share, ephemeral);
  const key = wrapKey(ephemeral, point, share, point);
  dropSecret(ephemeral);
  if (!key) throw new PodError('usage', 'a recipient is not a valid public key', 'ask for it again');
  const body = seal(key, fileKey);
  dropSecret(key);
  return { args: ['X25519', base64(share)], body };
}

export function wrapForPassphrase(fileKey: Uint8Array, passphrase: Uint8Array): Stanza {
  const salt = new Uint8Array(16);
  sodium().randombytes_buf(salt);
  const key = scrypt(passphrase, salt, ownWork);
  const body = seal(key, fileKey);
  sodium().sodium_memzero(key);
  return { args: ['scrypt', base64(salt), String(ownWork)], body };
}

/** Derived from the file key: the header's MAC. */
function headerMac(fileKey: Uint8Array, header: string): Buffer {
  const key = takeSecret(32);
  hkdf(key, fileKey, new Uint8Array(0), 'header');
  const mac = hmac(key, header);
  dropSecret(key);
  return mac;
}

/** The whole header, its last newline included. */
export function formatHeader(fileKey: Uint8Array, stanzas: readonly Stanza[]): string {
  const body = `${intro}\n${stanzas.map(formatStanza).join('')}---`;
  return `${body} ${base64(headerMac(fileKey, body))}\n`;
}

/** Where the header at the start of `bytes` ends; undefined while it is not whole. */
export function headerEnd(bytes: Uint8Array): number | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const mac = text.indexOf('\n---');
  if (mac < 0) return undefined;
  const end = text.indexOf('\n', mac + 1);
  return end < 0 ? undefined : end + 1;
}

const damaged = (why: string): PodError =>
  new PodError(
    'damaged',
    `the header of the encrypted data is damaged: ${why}`,
    'load the image again or use an older generation',
  );

export interface Header {
  stanzas: Stanza[];
  mac: Uint8Array;
  /** What the MAC covers. */
  covered: string;
}

export function parseHeader(bytes: Uint8Array): Header {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  const rows = text.slice(0, -1).split('\n');
  if (rows[0] !== intro) {
    if (rows[0]?.startsWith('age-encryption.org/')) {
      throw new PodError('version', 'the data are of a newer version of the age format', 'update podstream');
    }
    throw damaged('it is not an age header');
  }
  const stanzas: Stanza[] = [];
  let at = 1;
  for (; rows[at] !== undefined && !rows[at]!.startsWith('---'); ) {
    const row = rows[at]!;
    const args = row.slice(3).split(' ');
    if (!row.startsWith('-> ') || args.some((arg) => !/^[\x21-\x7e]+$/.test(arg))) {
      throw damaged('a stanza is malformed');
    }
    let body = '';
    for (at += 1; ; ) {
      const line = rows[at++];
      if (line === undefined || line.length > 64 || !/^[A-Za-z0-9+/]*$/.test(line)) {
        throw damaged('a stanza is malformed');
      }
      body += line;
      if (line.length < 64) break;
    }
    const decoded = unbase64(body);
    if (!decoded) throw damaged('a stanza is malformed');
    stanzas.push({ args, body: decoded });
  }
  const last = rows[at];
  const mac = last?.startsWith('--- ') ? unbase64(last.slice(4)) : undefined;
  if (mac?.length !== 32 || at !== rows.length - 1) throw damaged('its MAC is malformed');
  if (stanzas.length === 0) throw damaged('it names no recipient');
  if (stanzas.length > 1 && stanzas.some(({ args }) => args[0] === 'scrypt')) {
    throw damaged('a passphrase stands beside other recipients');
  }
  return { stanzas, mac, covered: text.slice(0, text.lastIndexOf('\n---') + 4) };
}

export interface Keys {
  identities: readonly Identity[];
  passphrase: Uint8Array | undefined;
}

function unwrapX25519({ args, body }: Stanza, identities: readonly Identity[]): Buffer | undefined {
  const share = args.length === 2 ? unbase64(args[1]!) : undefined;
  if (share?.length !== 32 || body.length !== 32) throw damaged('an X25519 stanza is malformed');
  for (const { secret, point } of identities) {
    const key = wrapKey(secret, share, share, point);
    if (!key) throw damaged('an X25519 share is of low order');
    const fileKey = open(key, body);
    dropSecret(key);
    if (fileKey) return fileKey;
  }
  return undefined;
}

function unwrapScrypt({ args, body }: Stanza, passphrase: Uint8Array): Buffer | undefined {
  const salt = args.length === 3 ? unbase64(args[1]!) : undefined;
  if (salt?.length !== 16 || body.length !== 32 || !/^[1-9][0-9]?$/.test(args[2]!)) {
    throw damaged('a scrypt stanza is malformed');
  }
  const work = Number(args[2]);
  if (work > mostWork) {
    throw new PodError(
      'limit',
      `the passphrase header asks for scrypt work 2^${work}, more than 2^${mostWork}`,
      'the stream is damaged or hostile; if you trust it, open it with age -d',
    );
  }
  const key = scrypt(passphrase, salt, work);
  const fileKey = open(key, body);
  sodium().sodium_memzero(key);
  return fileKey;
}

/** The file key, in sodium's memory. Exit 7 when no key fits, 6 when the header was changed. */
export function unwrapFileKey(header: Header, keys: Keys): Buffer {
  const { identities, passphrase } = keys;
  const wantsPassphrase = header.stanzas.some(({ args }) => args[0] === 'scrypt');
  if (wantsPassphrase ? !passphrase : identities.length === 0) {
    throw new PodError(
      'wrong-key',
      `the data are encrypted ${wantsPassphrase ? 'with a passphrase' : 'to a key'}, and none was given`,
      wantsPassphrase ? 'give the passphrase file: -p FILE' : 'give the key file: -i KEYFILE',
    );
  }
  for (const stanza of header.stanzas) {
    const fileKey =
      stanza.args[0] === 'X25519'
        ? unwrapX25519(stanza, identities)
        : stanza.args[0] === 'scrypt' && passphrase
          ? unwrapScrypt(stanza, passphrase)
          : undefined;
    if (!fileKey) continue;
    if (sodium().sodium_memcmp(headerMac(fileKey, header.covered), header.mac)) return fileKey;
    dropSecret(fileKey);
    throw damaged('its MAC is wrong');
  }
  throw new PodError(
    'wrong-key',
    wantsPassphrase ? 'the passphrase is wrong' : 'none of the keys opens the data',
    wantsPassphrase
      ? 'is it the right passphrase file'
      : `it was encrypted to ${header.stanzas.length} recipient${header.stanzas.length === 1 ? '' : 's'}: give the key of one with -i`,
  );
}
