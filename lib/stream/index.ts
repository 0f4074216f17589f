export { crc32 } from './crc.ts';
export { DescriptorSink, pump, readDescriptor } from './descriptor.ts';
export { type ErrorOrigin, exitCodes, type Failure, PodError, UpstreamError } from './error.ts';
export {
  criticalFlag,
  Frame,
  headerLength,
  major,
  maxData,
  maxFrame,
  maxMeta,
  minor,
  preamble,
  trailerLength,
  writeHeader,
} from './frame.ts';
export { greaseKinds, type KindName, kindName, kinds } from './kind.ts';
export { decodeMeta, encodeMeta } from './meta.ts';
export { maxMetaDepth } from './meta-grammar.ts';
export { printable } from './printable.ts';
export type { Sink } from './sink.ts';
export { type FrameHandler, type ParserOptions, StreamParser } from './stream-parser.ts';
export { StreamWriter } from './stream-writer.ts';
export { Tally } from './tally.ts';
