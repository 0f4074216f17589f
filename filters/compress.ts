import { defineFilter } from '../lib/filter/define.ts';
export const filter = defineFilter({ name: 'compress', version: '1', class: 'wrap', summary: 'x', options: {}, encode: (_o, output) => ({ params: {}, sink: output }), decode: (_p, _o, output) => output });
