/**
 * Where a task that is ours alone makes its calls: an area of its own with code, a table of calls, and room for data.
 *
 * The code is a loop over the table, so that a list of calls takes one stop instead of two for each. It ends with
 * SIGSTOP, which the task sends itself: nothing blocks or ignores it, its delivery is a stop of ptrace, and there we
 * take it away. A task of a running session must not do that: were the dumper killed just then, it would stay stopped.
 * A task under construction dies with its tracer.
 */
import { native } from '../../../native/index.ts';
import { MAP, PROT, pageSize, SYS } from './abi.ts';
import { type Asking, type CallSite, isErrno, RemoteError } from './remote.ts';

export const siteLength = 128n << 10n;
const tableAt = BigInt(pageSize);
/** Behind the table (tableRoom calls of 56 bytes) and a stack that nobody uses. */
const dataAt = 16384n;

const single = [
  ...[0x0f, 0x05], // syscall
  ...[0x0f, 0x0b], // ud2
];

const loop = [
  ...[0x48, 0x8b, 0x03], // next: mov rax, [rbx]
  ...[0x48, 0x8b, 0x7b, 0x08], // mov rdi, [rbx + 8]
  ...[0x48, 0x8b, 0x73, 0x10], // mov rsi, [rbx + 16]
  ...[0x48, 0x8b, 0x53, 0x18], // mov rdx, [rbx + 24]
  ...[0x4c, 0x8b, 0x53, 0x20], // mov r10, [rbx + 32]
  ...[0x4c, 0x8b, 0x43, 0x28], // mov r8, [rbx + 40]
  ...[0x4c, 0x8b, 0x4b, 0x30], // mov r9, [rbx + 48]
  ...[0x0f, 0x05], // syscall
  ...[0x48, 0x89, 0x03], // mov [rbx], rax
  ...[0x48, 0x83, 0xc3, 0x38], // add rbx, 56
  ...[0x48, 0xff, 0xcd], // dec rbp
  ...[0x75, 0xd7], // jnz next
  ...[0xb8, 0x27, 0x00, 0x00, 0x00], // mov eax, 39 (getpid)
  ...[0x0f, 0x05], // syscall
  ...[0x89, 0xc7], // mov edi, eax
  ...[0xb8, 0xba, 0x00, 0x00, 0x00], // mov eax, 186 (gettid)
  ...[0x0f, 0x05], // syscall
  ...[0x89, 0xc6], // mov esi, eax
  ...[0xba, 0x13, 0x00, 0x00, 0x00], // mov edx, 19 (SIGSTOP)
  ...[0xb8, 0xea, 0x00, 0x00, 0x00], // mov eax, 234 (tgkill)
  ...[0x0f, 0x05], // syscall
  ...[0x0f, 0x0b], // ud2
];

const code = Uint8Array.of(...single, ...loop);

/** Make one at `start`, where nothing is, by calls of the task itself. */
export function* makeCallSite(tid: number, start: bigint): Asking<CallSite> {
  const flags = MAP.private | MAP.anonymous | MAP.fixedNoReplace;
  const results = yield [
    [SYS.mmap, start, siteLength, PROT.read | PROT.write, flags, -1, 0],
    [SYS.mprotect, start, pageSize, PROT.read | PROT.exec],
  ];
  for (const result of results)
    if (isErrno(result)) throw new RemoteError('making a call site', Number(-result));
  native().writeMemory(tid, start, code);
  return {
    code: start,
    stack: start + dataAt - 64n,
    data: start + dataAt,
    dataSize: Number(siteLength - dataAt),
    loop: {
      code: start + BigInt(single.length),
      table: start + tableAt,
    },
  };
}
