import type { Engine } from '../engine.ts';
import { dump } from './dump.ts';

export const userEngine: Engine = { name: 'user', dump };
