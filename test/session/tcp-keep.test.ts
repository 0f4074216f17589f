/**
 * TCP connections to outside that go on where the session goes on (--tcp keep): three network namespaces, that of the
 * pod, that of its host, which forwards, and that of the peer, which may notice nothing. Both sides count every byte.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { lacking, makeShell, noVeth, type Shell, waitFor } from './session-house.ts';

t.setTimeout(300_000);

const tools = lacking(['ip', 'nsenter', 'unshare', 'sysctl', 'python3']);
const isRoot = process.getuid!() === 0;
const skip = tools.skip || noVeth;

const address = '10.213.5.5';
const peerAddress = '10.99.0.2';

/** Byte number n is n % 251, in both directions. What is said is in files of the folder. */
const common = `
import socket,sys,time,os,threading
F=sys.argv[1]
pattern=bytes(i%251 for i in range(251*400))
def out(name,text):
 open(F+"/."+name,"w").write(str(text)); os.rename(F+"/."+name,F+"/"+name)
def there(name): return os.path.exists(F+"/"+name)
def part(n,k): return pattern[n%251:n%251+k]
def receive(s,who,pause=0):
 n=0
 while True:
  d=s.recv(50000)
  if not d: break
  if d!=part(n,len(d)): out(who+".bad",n); os._exit(1)
  n+=len(d); out(who,n); time.sleep(pause)
 out(who+".end",n)
def send(s,who,until):
 n=0
 while not there(until):
  s.sendall(part(n,3001)); n+=3001; out(who,n); time.sleep(0.004)
 s.shutdown(1); out(who+".end",n)
def start(f,*a): threading.Thread(target=f,args=a).start()
`;

/**
 * Connections by the first byte that the pod sends: b both talk; i nobody says anything for long; h the pod has said
 * all and listens; f the peer is full of what nobody reads until "drain".
 */
const peer = `${common}
l=socket.socket(); l.setsockopt(1,2,1); l.bind(("${peerAddress}",9000)); l.listen()
out("peer.ready","")
def idle(s):
 out("idle.peer",s.recv(100).decode()); s.send(b"and you?"); out("idle.end",s.recv(100).decode())
def full(s):
 while not there("drain"): time.sleep(0.02)
 receive(s,"full.peer")
def one(s):
 kind=s.recv(1)
 if kind==b"b": start(receive,s,"both.peer"); send(s,"both.fromPeer","finish")
 if kind==b"i": idle(s)
 if kind==b"h": receive(s,"half.peer"); send(s,"half.fromPeer","finish")
 if kind==b"f": full(s)
def served():
 while not there("pod.ready"): time.sleep(0.02)
 s=socket.create_connection(("${address}",7777)); s.send(b"one"); out("served",s.recv(100).decode())
 while not there("speak"): time.sleep(0.02)
 s.send(b"two"); out("served.end",s.recv(100).decode())
start(served)
while True:
 s,_=l.accept(); start(one,s)
`;

const program = `${common}
def there_(kind,*options):
 s=socket.socket()
 for o in options: s.setsockopt(*o)
 s.connect(("${peerAddress}",9000)); s.send(kind); return s
both=there_(b"b"); start(receive,both,"both.pod",0.002); start(send,both,"both.fromPod","finish")
half=there_(b"h"); half.sendall(part(0,70000)); half.shutdown(1); start(receive,half,"half.pod")
full=there_(b"f",(1,7,400000)); full.setblocking(False)
n=0
while True:
 try: n+=full.send(part(n,5000))
 except BlockingIOError:
  time.sleep(0.3)
  try: n+=full.send(part(n,5000))
  except BlockingIOError: break
out("full.pod",n)
idle=there_(b"i",(1,9,1),(6,1,1),(6,4,333))
listener=socket.socket(); listener.setsockopt(1,2,1); listener.bind(("",7777)); listener.listen()
def serve(s):
 while True:
  d=s.recv(100)
  if not d: break
  s.send(b"echo "+d)
def accept():
 while True:
  s,_=listener.accept(); start(serve,s)
start(accept)
out("pod.ready","")
while not there("speak"): time.sleep(0.02)
idle.send(b"still there?"); answer=idle.recv(100).decode(); idle.send(b"yes")
out("idle.pod","%s %d %d %d"%(answer,idle.getsockopt(1,9),idle.getsockopt(6,1),idle.getsockopt(6,4)))
full.setblocking(True); full.shutdown(1)
time.sleep(1000)
`;

interface Places {
  shell: Shell;
  /** Run a line on the pod's host. */
  host(line: string, more?: Record<string, string>): ReturnType<Shell['sh']>;
  read(name: string): string | undefined;
}

/** A namespace that lives as long as the test. */
async function namespace(t: Test): Promise<number> {
  const child = spawn('unshare', ['-n', 'sleep', '1000'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await once(child, 'spawn');
  const isThere = () => readFileSync(`/proc/${child.pid}/comm`, 'latin1').trim() === 'sleep';
  await waitFor('a network namespace', isThere);
  return child.pid!;
}

async function makePlaces(t: Test): Promise<Places> {
  const shell = makeShell(t, 'root');
  const [hostPid, peerPid] = [await namespace(t), await namespace(t)];
  const on = (pid: number, line: string, more = {}) => shell.sh(`nsenter -t ${pid} -n ${line}`, more);
  const host: Places['host'] = (line, more) => on(hostPid, line, more);
  const must = (done: ReturnType<Shell['sh']>) => t.equal(done.status, 0, done.stderr);
  for (const line of [
    'ip link set lo up',
    'sysctl -q -w net.ipv4.ip_forward=1',
    'ip link add name out0 type veth peer name in0',
    `ip link set in0 netns ${peerPid}`,
    'ip address add 10.99.0.1/24 dev out0',
    'ip link set out0 up',
  ])
    must(host(line));
  for (const line of [
    'ip link set lo up',
    `ip address add ${peerAddress}/24 dev in0`,
    'ip link set in0 up',
    `ip route add ${address} via 10.99.0.1`,
  ])
    must(on(peerPid, line));
  const child = spawn('nsenter', ['-t', String(peerPid), '-n', 'python3', '-c', peer, shell.folder], {
    stdio: 'ignore',
  });
  t.teardown(() => child.kill('SIGKILL'));
  const read = (name: string) => {
    try {
      return readFileSync(join(shell.folder, name), 'utf8');
    } catch {
      return undefined;
    }
  };
  await waitFor('the peer listens', () => read('peer.ready') !== undefined);
  return { shell, host, read };
}

async function startPod(t: Test, { host, read }: Places): Promise<void> {
  const run = host(`pod-run --name k -d --net own --address ${address} -- python3 -c "$PROGRAM" $F`, {
    PROGRAM: program,
  });
  t.equal(run.status, 0, run.stderr);
  await waitFor('all is connected', () => read('pod.ready') !== undefined && read('served') !== undefined);
}

/** Both sides hear of each other again. */
async function talksOn({ read }: Places): Promise<void> {
  for (const name of ['both.peer', 'both.pod', 'half.pod']) {
    const before = Number(read(name));
    await waitFor(`${name} goes on`, () => Number(read(name)) > before + 10_000);
  }
}

async function endWell(t: Test, places: Places): Promise<void> {
  const { shell, read } = places;
  for (const word of ['speak', 'drain', 'finish']) shell.sh(`touch $F/${word}`);
  for (const name of ['both.peer', 'both.pod', 'half.pod', 'full.peer'])
    await waitFor(`${name} hears the end`, () => read(`${name}.end`) !== undefined);
  await waitFor(
    'the quiet one speaks',
    () => read('idle.end') !== undefined && read('idle.pod') !== undefined,
  );
  for (const bad of ['both.peer', 'both.pod', 'half.pod', 'half.peer', 'full.peer'])
    t.equal(read(`${bad}.bad`), undefined, `every byte of ${bad} is the right one`);
  t.equal(read('both.peer.end'), read('both.fromPod.end'), 'what the pod sent, the peer has');
  t.equal(read('both.pod.end'), read('both.fromPeer.end'), 'what the peer sent, the pod has');
  t.equal(read('half.peer.end'), '70000');
  t.equal(read('half.pod.end'), read('half.fromPeer.end'), 'half closed, the other half talks on');
  t.equal(read('full.peer.end'), read('full.pod'), 'what waited for the peer to read');
  await waitFor('who asked the pod is answered', () => read('served.end') !== undefined);
  t.equal(read('served.end'), 'echo two', 'a connection that the pod has accepted');
  t.equal(read('idle.peer'), 'still there?');
  t.equal(read('idle.end'), 'yes');
  t.equal(read('idle.pod'), 'and you? 1 1 333', 'with its options');
}

t.test('the peer notices nothing', { skip }, async (t) => {
  const places = await makePlaces(t);
  const { shell, host } = places;
  await startPod(t, places);
  await talksOn(places);
  for (const turn of [1, 2, 3]) {
    const dump = host('pod-dump --tcp keep --then kill k > $F/image');
    t.equal(dump.status, 0, `${turn}: ${dump.stderr}`);
    t.equal(dump.stderr, '', 'nothing is lost');
    t.same(shell.ps(), []);
    // The peer sends again in the meantime, to an address that nobody has.
    await sleep(300 * turn);
    const restart = host('pod-restart -d < $F/image');
    t.equal(restart.status, 0, restart.stderr);
    t.equal(restart.stderr, '');
    await talksOn(places);
  }
  await endWell(t, places);
});

t.test('a dump that is killed changes nothing', { skip }, async (t) => {
  const places = await makePlaces(t);
  const { shell, host } = places;
  await startPod(t, places);
  for (let turn = 0; turn < 2; turn++) {
    // Nobody stores it, so the session stays stopped behind its barrier until the dump is killed.
    host('sh -c "pod-dump --tcp keep --suspend k > $F/image & echo \\$! > $F/dumper"');
    await waitFor('the image is written', () => shell.sh('pod-inspect --verify $F/image').status === 0);
    t.equal(shell.sh('kill -KILL $(cat $F/dumper)').status, 0);
    await talksOn(places);
  }
  await endWell(t, places);
});

t.test('given up at the restart', { skip }, async (t) => {
  const places = await makePlaces(t);
  const { host, read } = places;
  await startPod(t, places);
  t.equal(host('pod-dump --tcp keep --then kill k > $F/image').status, 0);
  const restart = host('pod-restart -d --tcp reset < $F/image');
  t.equal(restart.status, 0, restart.stderr);
  t.match(
    restart.stderr,
    /the connection from 10\.213\.5\.5:\d+ to 10\.99\.0\.2:9000 is as if reset by its peer/,
  );
  t.equal(read('idle.pod'), undefined);
});

t.test('where it cannot be', { skip: isRoot ? false : 'as root' }, async (t) => {
  const shell = makeShell(t, 'root');
  t.equal(shell.sh('pod-run --name h -d -- sleep 1000').status, 0);
  const dump = shell.sh('pod-dump --tcp keep --then kill h > $F/image');
  t.equal(dump.status, 11);
  t.match(dump.stderr, /whose address is its own.*\n.*--net own/);
  const stays = shell.sh('pod-dump --tcp keep h > $F/image');
  t.equal(stays.status, 2);
  t.match(stays.stderr, /--suspend or --then kill/);
});
