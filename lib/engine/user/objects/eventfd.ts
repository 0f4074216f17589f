/** eventfd(2): a counter. */
import { native } from '../../../../native/index.ts';
import type { Records } from '../../../image/record.ts';
import { O, SYS } from '../abi.ts';
import type { FileObject } from './file-object.ts';

const EFD_SEMAPHORE = 1;

export const eventfd: FileObject = {
  records: ['eventfd'],
  coverage: 'counter, semaphore mode',

  matches: (file) => file.link === 'anon_inode:[eventfd]',

  dump(file) {
    const count = BigInt(`0x${file.info.get('eventfd-count')?.[0] ?? '0'}`);
    const told = file.info.get('eventfd-semaphore')?.[0];
    // Before Linux 6.5 nobody tells.
    const semaphore = told === undefined ? native().isSemaphore(file.local, count) : told === '1';
    return [{ name: 'eventfd', meta: { id: file.id, flags: file.flags, count, semaphore } }];
  },

  restore(_name, meta, context) {
    const record = meta as Records['eventfd'];
    const { builder } = context;
    const flags = (record.flags & O.nonblock) | (record.semaphore ? EFD_SEMAPHORE : 0);
    const fd = builder.call('eventfd2', SYS.eventfd2, 0, flags);
    if (record.count > 0n) {
      builder.reset();
      const word = new Uint8Array(8);
      new DataView(word.buffer).setBigUint64(0, record.count, true);
      // A write never blocks here: the counter is 0 and the count below its maximum.
      builder.call('write', SYS.write, fd, builder.put(word), 8);
    }
    context.keep(record.id, fd);
  },
};
