export {
  type GenerationReport,
  type LoadOptions,
  listGenerations,
  loadInto,
  loadPieces,
  verifyGenerations,
} from './load.ts';
export type { Manifest } from './manifest.ts';
export { defaultKeep, defaultSegmentSize, type StoreOptions, storeSink } from './store.ts';
