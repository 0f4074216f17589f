/** The engine lays out its requests as kmod/pod_ioctl.h does. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { layout, request, timesLayout } from '../../lib/engine/kmod/device.ts';
import { packageRoot } from '../../native/package-root.ts';

t.test('structures and requests are those of kmod/pod_ioctl.h', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pod-ioctl-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const fields = {
    kind: 'kind',
    pid: 'pid',
    flags: 'flags',
    milliCpus: 'milli_cpus',
    memoryLimit: 'memory_limit',
    pidsLimit: 'pids_limit',
    name: 'name',
    producer: 'producer',
    imageId: 'image_id',
    features: 'features',
    memory: 'memory',
    processes: 'processes',
    threads: 'threads',
  };
  const ofTimes = { size: 'size', tid: 'tid', user: 'user', childrenSystem: 'children_system' };
  const calls = {
    dump: 'POD_IOC_DUMP',
    thaw: 'POD_IOC_THAW',
    check: 'POD_IOC_CHECK',
    kill: 'POD_IOC_KILL',
    setTimes: 'POD_IOC_SET_TIMES',
    compare: 'POD_IOC_COMPARE',
  };
  const lines = [
    ...Object.entries(fields).map(
      ([ours, theirs]) => `printf("${ours} %zu\\n", offsetof(struct pod_dump, ${theirs}));`,
    ),
    'printf("length %zu\\n", sizeof(struct pod_dump));',
    ...Object.entries(ofTimes).map(
      ([ours, theirs]) => `printf("times.${ours} %zu\\n", offsetof(struct pod_times, ${theirs}));`,
    ),
    'printf("times.length %zu\\n", sizeof(struct pod_times));',
    ...Object.entries(calls).map(([ours, theirs]) => `printf("${ours} %u\\n", (unsigned)${theirs});`),
  ];
  const source = `#include <stddef.h>\n#include <stdio.h>\n#include "pod_ioctl.h"\nint main(void) {\n${lines.join('\n')}\n}\n`;
  const program = join(folder, 'layout');
  execFileSync(
    process.env['CC'] ?? 'gcc',
    ['-x', 'c', '-I', join(packageRoot(), 'kmod'), '-o', program, '-'],
    { input: source },
  );
  const said = Object.fromEntries(
    execFileSync(program, { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map((line) => {
        const [name, value] = line.split(' ') as [string, string];
        return [name, Number(value)];
      }),
  );
  const times = Object.entries(timesLayout).map(([name, at]) => [`times.${name}`, at]);
  const ours = { ...layout, ...request, ...Object.fromEntries(times) } as Record<string, number>;
  for (const [name, value] of Object.entries(said)) t.equal(ours[name], value, name);
});
