import { createRequire } from 'node:module';

type Binding = typeof import('zstd-napi/binding.js');
let binding: Binding | undefined;

/** zstd itself, loaded at first use. */
export function zstd(): Binding {
  binding ??= createRequire(import.meta.url)('zstd-napi/binding.js') as Binding;
  return binding;
}
