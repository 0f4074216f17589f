import type { Engine } from '../engine.ts';
import { dump, explain } from './dump.ts';

export const userEngine: Engine = { name: 'user', dump, explain };
