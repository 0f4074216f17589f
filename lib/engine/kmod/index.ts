export { kmodEngine } from './dump.ts';
