/** signalfd(2): the signals it waits for. What is pending belongs to the processes. */
import type { Records } from '../../../image/record.ts';
import { O, SYS } from '../abi.ts';
import type { FileObject } from './file-object.ts';
import { setStatusFlags } from './paths.ts';

export const signalfd: FileObject = {
  records: ['signalfd'],
  coverage: 'signal mask',

  matches: (file) => file.link === 'anon_inode:[signalfd]',

  dump(file) {
    const mask = BigInt(`0x${file.info.get('sigmask')?.[0] ?? '0'}`);
    return [{ name: 'signalfd', meta: { id: file.id, flags: file.flags, mask } }];
  },

  restore(_name, meta, context) {
    const record = meta as Records['signalfd'];
    const { builder } = context;
    builder.reset();
    const mask = builder.put(new Uint8Array(new BigUint64Array([record.mask]).buffer));
    const fd = builder.call('signalfd4', SYS.signalfd4, -1, mask, 8, record.flags & O.nonblock);
    setStatusFlags(fd, record.flags, context);
    context.keep(record.id, fd);
  },
};
