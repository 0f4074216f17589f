import { runSpec } from '../lib/cli/main.ts';
import { formatPods } from '../lib/pod/format-pods.ts';
import { summarizePods } from '../lib/pod/list.ts';
import { DescriptorSink } from '../lib/stream/descriptor.ts';

void runSpec(
  {
    name: 'pod-ps',
    summary: 'list the pods that run',
    description: `List this user's pods: name, host pid of pid 1, main process (its pid inside), state, number of processes
(without pid 1), memory (proportional set size), age, command.`,
    options: {
      json: { type: 'boolean', describe: 'a JSON array, memory in bytes, age in seconds' },
    },
    examples: [
      ['pod-ps', 'a table'],
      ["pod-ps --json | jq -r '.[].name'", 'the names'],
    ],
  },
  (args) => {
    const pods = summarizePods();
    const output = new DescriptorSink(1, { close: false });
    output.write(Buffer.from(args.json ? `${JSON.stringify(pods, undefined, 2)}\n` : formatPods(pods)));
    output.flush();
  },
);
