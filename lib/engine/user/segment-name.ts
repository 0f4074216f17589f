/**
 * Anonymous shared memory is made again as a memfd that nobody holds open; this is its name in /proc/PID/maps, by
 * which the next dump knows it for what it is.
 */
export const segmentName = 'podstream-shared';
