import { DescriptorSink } from '../stream/descriptor.ts';

/** What was asked for, on standard output. */
export function print(text: string): void {
  const output = new DescriptorSink(1);
  output.write(Buffer.from(text));
  output.end();
}
