/** A pod with a network of its own: nothing of the host's is there, ports are its own, and it comes back as one. */
import { readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { users } from '../pod/house.ts';
import { makeShell, waitFor } from './session-house.ts';

const program = `
import socket,sys,time
port=int(sys.argv[2])
def out(text): open(sys.argv[1]+"/said","a").write(text+"\\n")
l=socket.socket(); l.setsockopt(1,2,1); l.bind(("127.0.0.1",port)); l.listen()
c=socket.create_connection(("127.0.0.1",port)); s,_=l.accept()
out(" ".join(sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line and "lo" in line)))
n=0
while True:
 n+=1; c.send(b"%d"%n); assert s.recv(100)==b"%d"%n; out("turn"); time.sleep(0.02)
`;

for (const user of users) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const { folder } = shell;
    const must = (line: string, more = {}) => {
      const { status, stderr } = shell.sh(line, more);
      t.equal(status, 0, `${line}\n${stderr}`);
      return stderr;
    };
    // The host's port is taken: inside, it is free.
    const server = createServer();
    t.teardown(() => server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const said = () => {
      try {
        return readFileSync(join(folder, 'said'), 'utf8').split('\n').slice(0, -1);
      } catch {
        return [];
      }
    };
    must('pod-run --name n -d --net none -- python3 -c "$PROGRAM" $F $PORT', {
      PROGRAM: program,
      PORT: String(port),
    });
    await waitFor('it talks to itself', () => said().length > 2);
    t.equal(said()[0], 'lo', 'there is the loopback interface');
    const network = () => readlinkSync(`/proc/${shell.ps()[0]!.init}/ns/net`);
    t.not(network(), readlinkSync('/proc/self/ns/net'));

    must('pod-dump --then kill n > $F/image');
    const turns = said().length;
    t.equal(must('pod-restart -d < $F/image'), '', 'nothing is taken, nothing is lost');
    t.not(network(), readlinkSync('/proc/self/ns/net'), 'again in a network of its own');
    await waitFor('it talks on', () => said().length > turns + 2);
    if (user === 'root') {
      must(`nsenter -t ${shell.ps()[0]!.init} -n ip address add 10.9.9.9/32 dev lo`);
      t.match(must('pod-dump n > $F/image'), /addresses given to the loopback interface/);
    }
    must('pod-kill n');
  });
}

t.setTimeout(120_000);

t.test('no other network', async (t) => {
  const run = makeShell(t, users[0]!).sh('pod-run --net mine -- true');
  t.equal(run.status, 2);
  t.match(run.stderr, /net.*mine/);
});
