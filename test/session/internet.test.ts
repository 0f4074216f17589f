/**
 * Internet sockets whose other ends are outside the session: a connection that is reset, as was said at dump and at
 * restart, with what it had received; connections that wait to be accepted; a port that somebody else has when the
 * session comes back.
 */
import { readFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { users } from '../pod/house.ts';
import { makeShell, waitFor } from './session-house.ts';

t.setTimeout(120_000);

/** Two connections to outside, one that the other side has closed; a listening socket. Says what becomes of them. */
const program = `
import socket,os,sys,time,json
F=os.environ["F"]
def out(name,text):
 open(F+"/."+name,"w").write(text); os.rename(F+"/."+name,F+"/"+name)
l=socket.socket(); l.setsockopt(1,2,1); l.bind(("127.0.0.1",0)); l.listen(5)
def there(text):
 s=socket.create_connection(("127.0.0.1",int(os.environ["PORT"]))); s.send(text); return s
live,ended=there(b"hello"),there(b"end")
out("ready",str(l.getsockname()[1]))
while not os.path.exists(F+"/go"): time.sleep(0.02)
said=[]
def ask(what):
 try: said.append(what().decode())
 except OSError as e: said.append(os.strerror(e.errno))
ask(lambda: live.recv(100)); ask(lambda: live.recv(100)); ask(lambda: live.recv(100))
try: live.send(b"x")
except BrokenPipeError: said.append("EPIPE")
ask(lambda: ended.recv(100)); ask(lambda: ended.recv(100))
l.setblocking(False)
try: l.accept(); said.append("accepted")
except BlockingIOError: said.append("nobody waits")
l.setblocking(True)
out("result",json.dumps(said))
c,_=l.accept(); c.send(b"welcome"); c.close()
time.sleep(1000)
`;

function listen(server: Server, port = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
}

for (const user of users) {
  t.test(`as ${user}`, async (t) => {
    const shell = makeShell(t, user);
    const partners: Socket[] = [];
    const outside = createServer((socket) => {
      partners.push(socket);
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        if (data.includes('end')) socket.end('farewell');
        else socket.write('unread');
      });
    });
    t.teardown(() => {
      for (const socket of partners) socket.destroy();
      outside.close();
    });
    const port = await listen(outside);
    const must = (line: string, more = {}) => {
      const done = shell.sh(line, more);
      t.equal(done.status, 0, `${line}\n${done.stderr}`);
      return done.stderr;
    };
    const read = (name: string) => {
      try {
        return readFileSync(join(shell.folder, name), 'utf8');
      } catch {
        return undefined;
      }
    };
    must('pod-run --name i -d -- python3 -c "$PROGRAM"', { PROGRAM: program, PORT: String(port) });
    const own = Number(await waitFor('it is connected', () => read('ready')));
    const waiting = connect(own, '127.0.0.1');
    waiting.on('error', () => undefined);
    await new Promise((resolve) => waiting.once('connect', resolve));
    // What the partners said has come by now; each connection has its line.
    await waitFor('both are there', () => partners.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const dumped = must('pod-dump --then kill i > $F/image');
    const lost = [
      new RegExp(`the connection from 127.0.0.1:\\d+ to 127.0.0.1:${port} outside .*as if reset`),
      new RegExp(`1 connections from outside .* wait to be accepted at 127.0.0.1:${own}`),
    ];
    for (const line of lost) t.match(dumped, line, 'said at the dump');

    const other = createServer();
    await listen(other, own);
    const mine = process.getuid!() !== 0 || user === 'root';
    const holder = mine ? `\\S+ \\(pid ${process.pid}\\)` : 'a program of another user';
    const taken = shell.sh('pod-restart -d < $F/image');
    t.equal(taken.status, 12, taken.stderr);
    t.match(taken.stderr, new RegExp(`error: TCP port ${own} .* is taken here by ${holder}`));
    await new Promise((resolve) => other.close(resolve));

    const restarted = must('pod-restart -d < $F/image');
    for (const line of lost) t.match(restarted, line, 'and at the restart');
    must('touch $F/go');
    t.same(JSON.parse(await waitFor('it has looked', () => read('result'))), [
      'unread',
      'Connection reset by peer',
      '',
      'EPIPE',
      'farewell',
      '',
      'nobody waits',
    ]);
    const client = connect(own, '127.0.0.1');
    t.equal(String(await new Promise((resolve) => client.once('data', resolve))), 'welcome', 'it listens on');
    client.destroy();
    must('pod-kill i');
  });
}
