import { AgeDecoder } from '../lib/filter/age/decoder.ts';
import { AgeEncoder } from '../lib/filter/age/encoder.ts';
import { intro, unwrapFileKey, wrapForPassphrase, wrapForRecipient } from '../lib/filter/age/header.ts';
import { parseRecipient, readIdentities, readPassphrase, readRecipients } from '../lib/filter/age/keys.ts';
import { dropSecret } from '../lib/filter/age/sodium.ts';
import { defineFilter } from '../lib/filter/define.ts';
import { secretSpecs } from '../lib/filter/secrets.ts';
import { PodError } from '../lib/stream/error.ts';

/** The passphrase's source, when one was given. */
function passphraseSource(values: {
  passphrase: string | undefined;
  passphraseFd: number | undefined;
}): string | number | undefined {
  if (values.passphrase !== undefined && values.passphraseFd !== undefined) {
    throw new PodError('usage', 'encrypt takes --passphrase or --passphrase-fd, not both');
  }
  return values.passphrase ?? values.passphraseFd;
}

/** An age v1 file: to X25519 recipients, or to a passphrase. Sealed and opened on every core. */
export const filter = defineFilter({
  name: 'encrypt',
  version: '1',
  class: 'wrap',
  summary: 'encrypt the stream with age, to recipients or a passphrase',
  options: {
    recipientsFile: {
      type: 'string',
      short: 'R',
      many: true,
      value: 'FILE',
      summary: 'file with recipients (age1…), one a line',
    },
    recipient: {
      type: 'string',
      short: 'r',
      many: true,
      value: 'age1…',
      summary: 'a recipient: its public key',
    },
    ...secretSpecs,
  },
  encode(values, output) {
    const points = [
      ...values.recipientsFile.flatMap(readRecipients),
      ...values.recipient.map((text, index) => parseRecipient(text, `recipient ${index + 1}`)),
    ];
    const source = passphraseSource(values);
    if (source !== undefined && points.length > 0) {
      throw new PodError(
        'usage',
        'a passphrase cannot stand beside recipients',
        'give -p FILE or recipients (-R FILE, -r age1…), not both',
      );
    }
    if (source === undefined && points.length === 0) {
      throw new PodError(
        'usage',
        'encrypt needs to know who may open the stream',
        'give recipients (-R FILE, -r age1…) or a passphrase file (-p FILE)',
      );
    }
    const passphrase = source === undefined ? undefined : readPassphrase(source, true);
    const encoder = new AgeEncoder(
      (fileKey) =>
        passphrase
          ? [wrapForPassphrase(fileKey, passphrase)]
          : points.map((point) => wrapForRecipient(fileKey, point)),
      output,
    );
    if (passphrase) dropSecret(passphrase);
    return { params: { format: 'age' }, sink: encoder };
  },
  decode(params, values, output) {
    if (params !== undefined && (params as { format?: unknown }).format !== 'age') {
      throw new PodError(
        'version',
        'the encrypt layer is of a format that this podstream does not know',
        'update podstream',
      );
    }
    const identities = values.identity.flatMap(readIdentities);
    const source = passphraseSource(values);
    const passphrase = source === undefined ? undefined : readPassphrase(source, false);
    let held = true;
    const forget = (): void => {
      if (!held) return;
      held = false;
      for (const { secret } of identities) dropSecret(secret);
      if (passphrase) dropSecret(passphrase);
    };
    return new AgeDecoder((header) => unwrapFileKey(header, { identities, passphrase }), forget, output);
  },
  recognises: (start) => Buffer.from(start).toString('latin1').startsWith(`${intro}\n`),
});
