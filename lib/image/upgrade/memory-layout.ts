/**
 * Row "memory". 2.4 lays memory out bottom-up and never shuffles it, and on i386 what is readable is executable.
 * 2.6 does the opposite unless the personality says so, and programs of that time rely on it (heap limits, code on
 * the stack, saved pointers in files), also when they exec the next program.
 */
import type { Area } from '../model.ts';

const addressNoRandomize = 0x0040000;
const addressCompatLayout = 0x0200000;
const readImpliesExec = 0x0400000;

const protRead = 1;
const protExec = 4;

/** personality(2) of a process. */
export function upgradePersonality(personality: number, arch: string): number {
  const layout = addressNoRandomize | addressCompatLayout;
  return (personality | layout | (arch === 'i386' ? readImpliesExec : 0)) >>> 0;
}

/** Protection of an area: i386 processors of 2.4 could not tell reading from executing. */
export function upgradeProtection(area: Area, arch: string): Area {
  return arch === 'i386' && (area.prot & protRead) !== 0 ? { ...area, prot: area.prot | protExec } : area;
}
