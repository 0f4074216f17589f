/** The filters that come with podstream, for commands that run them in their own process. */
import type { FilterDefinition } from '../../lib/filter/define.ts';
import { filter as compress } from '../compress.ts';
import { filter as encrypt } from '../encrypt.ts';

export const builtIn: readonly FilterDefinition[] = [compress, encrypt];
