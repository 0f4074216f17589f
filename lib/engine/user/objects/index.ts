/** Every object a descriptor can refer to, the first match first. Adding one is a line here and a file beside. */
import { device } from './device.ts';
import { directory } from './directory.ts';
import { epoll } from './epoll.ts';
import { eventfd } from './eventfd.ts';
import type { FileObject } from './file-object.ts';
import { inetSocket } from './inet-socket.ts';
import { inotify } from './inotify.ts';
import { netlinkSocket } from './netlink-socket.ts';
import { pidfd } from './pidfd.ts';
import { pipe } from './pipe.ts';
import { pty } from './pty.ts';
import { regular } from './regular.ts';
import { signalfd } from './signalfd.ts';
import { terminal } from './terminal.ts';
import { timerfd } from './timerfd.ts';
import { unixSocket } from './unix-socket.ts';
import { unknown } from './unknown.ts';

export const fileObjects: readonly FileObject[] = [
  regular,
  directory,
  pty,
  terminal,
  device,
  pipe,
  eventfd,
  timerfd,
  signalfd,
  pidfd,
  inotify,
  unixSocket,
  inetSocket,
  netlinkSocket,
  epoll,
  unknown,
];
