/**
 * The frame from which rt_sigreturn(2) restores a thread: registers, extended state, signal mask.
 *
 * Layout: struct rt_sigframe of arch/x86/include/asm/sigframe.h as the psABI-side <asm/sigcontext.h> and
 * <asm/ucontext.h> describe it. rt_sigreturn expects rsp = frame + 8.
 */
import { REG, registerWords } from './abi.ts';

const contextAt = 8 + 8 + 8 + 24;
const maskAt = contextAt + 256;
const frameLength = 8 + 304 + 128;
/** Where the extended state starts in what buildSignalFrame returns; XRSTOR wants 64 bytes alignment. */
const stateAt = 448;
const magic1 = 0x46505853;
const magic2 = 0x46505845;
/** Extended state of AMX is allocated on demand; its components lie behind this offset. */
const beforeTiles = 2816;
const tileData = 1n << 18n;

export interface SignalFrame {
  /** Bytes to write at `address`. */
  bytes: Uint8Array;
  /** framePointer() of it. */
  stackPointer: bigint;
}

/** The most bytes a frame may take. */
export const maxSignalFrame = 16 << 10;

/** rsp with which rt_sigreturn finds the frame at an address. */
export const framePointer = (address: bigint) => address + 8n;

/**
 * `registers` must not need the kernel's help any more (see rewindCall). `address` must be 64-byte aligned.
 */
export function buildSignalFrame(
  registers: Uint8Array,
  state: Uint8Array,
  mask: bigint,
  address: bigint,
): SignalFrame {
  const words = registerWords(registers);
  const stateView = new DataView(state.buffer, state.byteOffset, state.length);
  // ptrace's area says in its software bytes which components the system has enabled.
  let features = stateView.getBigUint64(464, true);
  let length = state.length;
  if (length > beforeTiles && (stateView.getBigUint64(512, true) & tileData) === 0n) {
    features &= ~tileData;
    length = beforeTiles;
  }
  const bytes = new Uint8Array(stateAt + length + 4);
  const view = new DataView(bytes.buffer);
  const put = (offset: number, value: bigint) => view.setBigUint64(offset, BigInt.asUintN(64, value), true);

  put(8, 7n); // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
  // An unknown mode makes the kernel leave the alternate stack as it is.
  view.setUint32(8 + 16 + 8, 0x7f, true);
  const order = [
    'r8',
    'r9',
    'r10',
    'r11',
    'r12',
    'r13',
    'r14',
    'r15',
    'rdi',
    'rsi',
    'rbp',
    'rbx',
    'rdx',
    'rax',
    'rcx',
    'rsp',
    'rip',
    'eflags',
  ] as const;
  order.forEach((name, index) => {
    put(contextAt + 8 * index, words[REG[name]]!);
  });
  view.setUint16(contextAt + 144, Number(words[REG.cs]!), true);
  view.setUint16(contextAt + 150, Number(words[REG.ss]!), true);
  put(contextAt + 184, address + BigInt(stateAt));
  put(maskAt, mask);
  if (maskAt + 8 + 128 !== frameLength) throw new Error('signal frame layout');

  bytes.set(state.subarray(0, length), stateAt);
  view.setUint32(stateAt + 464, magic1, true);
  view.setUint32(stateAt + 468, length + 4, true);
  put(stateAt + 472, features);
  view.setUint32(stateAt + 480, length, true);
  bytes.fill(0, stateAt + 484, stateAt + 512);
  view.setUint32(stateAt + length, magic2, true);
  return { bytes, stackPointer: framePointer(address) };
}
