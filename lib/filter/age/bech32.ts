/** Bech32 (BIP 173) without its 90-character limit, as age keys are written. */

const alphabet = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l';
const generator = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];

function polymod(values: readonly number[]): number {
  let check = 1;
  for (const value of values) {
    const top = check >>> 25;
    check = ((check & 0x1ffffff) << 5) ^ value;
    for (let i = 0; i < 5; i++) if ((top >>> i) & 1) check ^= generator[i]!;
  }
  return check >>> 0;
}

function expand(prefix: string): number[] {
  const codes = [...prefix].map((letter) => letter.charCodeAt(0));
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)];
}

/** Regroup bits; undefined when padding is not as it must be. */
function regroup(values: Iterable<number>, from: number, to: number, pad: boolean): number[] | undefined {
  let bits = 0;
  let held = 0;
  const out: number[] = [];
  for (const value of values) {
    held = ((held << from) | value) & 0xfff;
    bits += from;
    while (bits >= to) {
      bits -= to;
      out.push((held >> bits) & ((1 << to) - 1));
    }
  }
  if (pad) {
    if (bits > 0) out.push((held << (to - bits)) & ((1 << to) - 1));
  } else if (bits >= from || ((held << (to - bits)) & ((1 << to) - 1)) !== 0) {
    return undefined;
  }
  return out;
}

/** `prefix` in lower case; the result is in lower case. */
export function encodeBech32(prefix: string, bytes: Uint8Array): string {
  const values = regroup(bytes, 8, 5, true)!;
  const check = polymod([...expand(prefix), ...values, 0, 0, 0, 0, 0, 0]) ^ 1;
  for (let i = 0; i < 6; i++) values.push((check >>> (5 * (5 - i))) & 31);
  return `${prefix}1${values.map((value) => alphabet[value]).join('')}`;
}

/** Prefix in lower case and bytes; undefined when it is not bech32. */
export function decodeBech32(text: string): { prefix: string; bytes: Uint8Array } | undefined {
  const lower = text.toLowerCase();
  if (text !== lower && text !== text.toUpperCase()) return undefined;
  const cut = lower.lastIndexOf('1');
  if (cut < 1 || cut + 7 > lower.length) return undefined;
  const prefix = lower.slice(0, cut);
  if (/[^\x21-\x7e]/.test(prefix)) return undefined;
  const values = [...lower.slice(cut + 1)].map((letter) => alphabet.indexOf(letter));
  if (values.includes(-1) || polymod([...expand(prefix), ...values]) !== 1) return undefined;
  const bytes = regroup(values.slice(0, -6), 5, 8, false);
  return bytes && { prefix, bytes: Uint8Array.from(bytes) };
}
