export { kmodEngine } from './dump.ts';
export { type ModuleRestart, openForRestart } from './restart.ts';
