/** Last in the list: says of everything no other object knows what it is, why it stays, and what helps. */

import type { DumpContext, FileObject, OpenFile } from './file-object.ts';
import { socketOption } from './local-calls.ts';

type Refusal = readonly [why: string, hint: string];

const SO_DOMAIN = 39;
const SO_TYPE = 3;
const SO_PROTOCOL = 38;
const raw = 3;

/** By the name the kernel gives what has none: `anon_inode:[NAME]`. */
const anonymous: Record<string, Refusal> = {
  io_uring: [
    'an io_uring has requests and results in the kernel that can not be read back',
    'run the program without io_uring (node: UV_USE_IO_URING=0)',
  ],
  userfaultfd: [
    'a userfaultfd decides over page faults of a running process',
    'let the program finish its memory migration first',
  ],
  fanotify: [
    'fanotify watches the file systems of this computer',
    'end the watching program, or leave it out of the session',
  ],
  'bpf-map': ['a BPF map lives in the kernel of this computer', 'leave the program out of the session'],
  'bpf-prog': ['a BPF program lives in the kernel of this computer', 'leave the program out of the session'],
  'bpf-link': ['a BPF link lives in the kernel of this computer', 'leave the program out of the session'],
  bpf_link: ['a BPF link lives in the kernel of this computer', 'leave the program out of the session'],
  btf: ['BPF type data belong to the kernel of this computer', 'leave the program out of the session'],
  perf_event: [
    'performance counters belong to the processor of this computer',
    'stop profiling (perf) before the dump',
  ],
  'kvm-vm': [
    'a virtual machine (KVM) is not part of what can be saved',
    'suspend the machine inside its own tool',
  ],
  'kvm-vcpu': [
    'a virtual machine (KVM) is not part of what can be saved',
    'suspend the machine inside its own tool',
  ],
  fscontext: ['a file system is just being mounted', 'try again in a moment'],
  'seccomp notify': [
    'it answers system calls of another process (seccomp notify)',
    'run the program without that supervisor',
  ],
  landlock_ruleset: ['a Landlock rule set is just being built', 'try again in a moment'],
  'landlock-ruleset': ['a Landlock rule set is just being built', 'try again in a moment'],
  dmabuf: ['it shares memory with a device (dma-buf)', 'run the program without direct rendering'],
  sync_file: ['it waits for a graphics device', 'run the program without direct rendering'],
  secretmem: ['memory from memfd_secret is made not to be read by anybody', 'close it before the dump'],
};

/** By address family: socket(2). */
const families: Record<number, readonly [name: string, hint: string]> = {
  17: ['a packet socket, which listens on the network of this computer', 'let the program close it first'],
  29: ['a CAN bus socket', 'let the program close it first'],
  31: ['a Bluetooth socket', 'let the program close it first'],
  38: ['a crypto socket of the kernel (AF_ALG)', 'let the program use a library instead'],
  40: ['a socket to the host of this virtual machine (vsock)', 'let the program close it first'],
  44: ['an express data path socket (AF_XDP)', 'let the program close it first'],
};

/** Those that programs use, beside TCP and UDP: IPPROTO_*. */
const internetProtocols: Record<number, string> = {
  1: 'a ping (ICMP)',
  58: 'a ping (ICMPv6)',
  132: 'an SCTP',
  136: 'a UDP-Lite',
  262: 'a multipath TCP',
};

function refuseSocket(file: OpenFile, context: DumpContext): never {
  const domain = socketOption(file.local, SO_DOMAIN);
  if (domain === 2 || domain === 10) {
    const protocol = socketOption(file.local, SO_PROTOCOL);
    return context.refuse(
      file,
      `it is ${socketOption(file.local, SO_TYPE) === raw ? 'a raw' : (internetProtocols[protocol] ?? 'a')} socket of IP protocol ${protocol}`,
      'let the program close it first',
    );
  }
  const [name, hint] = families[domain] ?? [
    `a socket of address family ${domain}`,
    'let the program close it first',
  ];
  return context.refuse(file, `it is ${name}`, hint);
}

export const unknown: FileObject = {
  records: [],
  coverage:
    'refused, each with what to do: ping, SCTP, multipath TCP, packet and other sockets, io_uring, userfaultfd, fanotify, BPF, perf, KVM, and whatever else is not listed here',

  matches: () => true,

  dump(file, context) {
    if (file.stat.isSocket()) return refuseSocket(file, context);
    if (/^\/dev\/hugepages|hugetlb/.test(file.link)) {
      return context.refuse(
        file,
        "memory from huge pages can't be saved yet",
        'run the program without huge pages',
      );
    }
    const name = /^anon_inode:\[?([^\]]*)\]?$/.exec(file.link)?.[1];
    const [why, hint] = (name === undefined ? undefined : anonymous[name.replace(/ \(deleted\)$/, '')]) ?? [
      'podstream does not know how to save it',
      'close it before the dump; if a plain program needs it, tell us',
    ];
    return context.refuse(file, why, hint);
  },

  restore() {
    throw new Error('an object without records is never restored');
  },
};
