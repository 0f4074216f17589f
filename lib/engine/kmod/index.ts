export { deviceIsThere } from './device.ts';
export { kmodEngine } from './dump.ts';
