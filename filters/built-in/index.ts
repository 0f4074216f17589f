/** The filters that come with podstream, for commands that run them in their own process. */
import type { FilterDefinition } from '../../lib/filter/define.ts';
import { filter as compress } from '../compress.ts';
import { filter as encrypt } from '../encrypt.ts';
import { filter as relocate } from '../relocate.ts';
import { filter as upgrade } from '../upgrade-2.6.ts';

export const builtIn: readonly FilterDefinition[] = [upgrade, relocate, compress, encrypt];
