/** Every object a descriptor can refer to, the first match first. Adding one is a line here and a file beside. */
import { eventfd } from './eventfd.ts';
import type { FileObject } from './file-object.ts';
import { pipe } from './pipe.ts';

export const fileObjects: readonly FileObject[] = [pipe, eventfd];
