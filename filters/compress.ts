import { defineFilter } from '../lib/filter/define.ts';
import { ZstdFileDecoder, ZstdLayerDecoder } from '../lib/filter/zstd/decoder.ts';
import { ZstdEncoder } from '../lib/filter/zstd/encoder.ts';
import { PodError } from '../lib/stream/error.ts';

const magic = [0x28, 0xb5, 0x2f, 0xfd];

/** A zstd file of independent frames of at most 1 MiB: compressed and decompressed on every core. */
export const filter = defineFilter({
  name: 'compress',
  version: '1',
  class: 'wrap',
  summary: 'compress the stream with zstd',
  options: {
    level: {
      type: 'integer',
      short: 'l',
      value: 'N',
      minimum: 1,
      maximum: 19,
      summary: 'zstd level, higher is smaller and slower; default 1',
    },
    fast: {
      type: 'integer',
      value: 'N',
      minimum: 1,
      maximum: 99,
      summary: 'faster than level 1, higher is faster and larger',
    },
  },
  encode({ level, fast }, output) {
    if (level !== undefined && fast !== undefined) {
      throw new PodError('usage', 'compress takes --level or --fast, not both');
    }
    return { params: { algorithm: 'zstd' }, sink: new ZstdEncoder(fast ? -fast : (level ?? 1), output) };
  },
  decode(params, _options, output) {
    if (params === undefined) return new ZstdFileDecoder(output);
    const { algorithm } = params as { algorithm?: unknown };
    if (algorithm !== 'zstd') {
      throw new PodError(
        'version',
        'the compress layer uses an algorithm that this podstream does not know',
        'update podstream',
      );
    }
    return new ZstdLayerDecoder(output);
  },
  recognises: (start) => magic.every((byte, index) => start[index] === byte),
});
