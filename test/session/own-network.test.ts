/**
 * A pod with a network of its own: ports are its own, it comes back as one, and what was changed in it comes along or
 * is refused by name. With `none` nothing of the host's is there; with `own` an address leads to it.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { users } from '../pod/house.ts';
import { lacking, makeShell, noVeth, type Shell, waitFor } from './session-house.ts';

t.setTimeout(300_000);

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
    must('pod-kill n');
  });
}

const tools = lacking(['ip', 'nsenter', 'sysctl', 'python3']);
const isRoot = process.getuid!() === 0;

/** Run what is left of the line in the pod's network. */
const inside = (shell: Shell, line: string) => `nsenter -t ${shell.ps()[0]!.init} -n ${line}`;

function must(t: Test, shell: Shell, line: string, more = {}): { stdout: string; stderr: string } {
  const done = shell.sh(line, more);
  t.equal(done.status, 0, `${line}\n${done.stderr}`);
  return done;
}

/** The network as its tools tell it, without what passes. */
const describe = (shell: Shell): string[] =>
  [
    'ip -o address',
    'ip -o link show lo',
    'ip route show table all',
    'ip -6 route show table all',
    'ip -o link',
  ]
    .flatMap((line) => shell.sh(inside(shell, line)).stdout.split('\n'))
    .map((line) =>
      line
        .replace(/eth0@\w+|link-netnsid \d+|nodad|expires \S+/g, '')
        .replace(/\s+/g, ' ')
        .trim(),
    )
    .sort();

t.test(
  'changes in it come along',
  { skip: isRoot ? tools.skip : 'only root changes a network' },
  async (t) => {
    const shell = makeShell(t, 'root');
    must(t, shell, 'pod-run --name n -d --net none -- sleep 1000');
    for (const change of [
      'ip address add 10.9.9.9/24 dev lo label lo:mine',
      'ip address add fd00::7/64 dev lo',
      'ip address del 127.0.0.1/8 dev lo',
      'ip address add 127.0.0.1/16 dev lo',
      'ip link set lo mtu 9000',
      'ip route add blackhole 10.6.0.0/16 metric 7',
      'ip route add 10.7.0.0/16 via 10.9.9.1 table 123',
      'ip -6 route add unreachable fd01::/48',
      'ip route add local 10.8.0.0/16 dev lo',
      'sysctl -q -w net.ipv4.ip_default_ttl=77 net.ipv4.conf.lo.rp_filter=1 net.ipv4.ip_unprivileged_port_start=80',
    ])
      must(t, shell, inside(shell, change));
    const before = describe(shell);
    t.match(before.join('\n'), /10\.9\.9\.9.*lo:mine/);
    must(t, shell, 'pod-dump --then kill n > $F/image');
    for (const turn of ['restarted', 'restarted again']) {
      t.equal(must(t, shell, 'pod-restart -d < $F/image').stderr, '', 'nothing differs');
      t.same(describe(shell), before, turn);
      t.equal(
        must(
          t,
          shell,
          inside(
            shell,
            'sysctl -n net.ipv4.ip_default_ttl net.ipv4.conf.lo.rp_filter net.ipv4.ip_unprivileged_port_start',
          ),
        ).stdout,
        '77\n1\n80\n',
      );
      must(t, shell, 'pod-dump --then kill n > $F/image');
    }
  },
);

t.test(
  'what is not kept is refused by name',
  { skip: isRoot ? tools.skip : 'only root changes a network' },
  async (t) => {
    const shell = makeShell(t, 'root');
    must(t, shell, 'pod-run --name n -d --net none -- sleep 1000');
    for (const [make, undo, name] of [
      ['ip link add br0 type bridge', 'ip link del br0', /the interface br0 \(bridge\)/],
      ['ip link add va type veth peer name vb', 'ip link del va', /the interface v[ab] \(veth\)/],
      ['ip tuntap add dev tap0 mode tap', 'ip link del tap0', /the interface tap0 \(tun\)/],
      ['ip rule add from 10.1.1.1 table 100', 'ip rule del from 10.1.1.1 table 100', /routing rules/],
      ['ip -6 rule add from fd00::1 table 100', 'ip -6 rule del from fd00::1 table 100', /routing rules/],
      ['ip neigh add proxy 10.1.1.1 dev lo', 'ip neigh del proxy 10.1.1.1 dev lo', /fixed neighbours/],
      [
        'ip route add 10.5.0.0/16 dev lo mtu 1000',
        'ip route del 10.5.0.0/16',
        /a route with more than a way/,
      ],
      ['ip xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir out', 'ip xfrm policy deleteall', /IPsec/],
    ] as const) {
      // Not every kernel has every kind.
      if (shell.sh(inside(shell, make)).status !== 0) {
        t.comment(`this kernel does not: ${make}`);
        continue;
      }
      const { status, stderr } = shell.sh('pod-dump n > $F/image');
      t.equal(status, 11, make);
      t.match(stderr, name);
      must(t, shell, inside(shell, undo));
      must(t, shell, 'pod-dump n > $F/image');
    }
  },
);

const talker = `
import socket,sys,time,threading
F,address,port=sys.argv[1],sys.argv[2],int(sys.argv[3])
def out(name,text): open(F+"/"+name,"a").write(text+"\\n")
l=socket.socket(); l.setsockopt(1,2,1); l.bind((address,7777)); l.listen()
c=socket.create_connection((address,7777)); s,_=l.accept()
def serve():
 while True:
  o,_=l.accept(); o.send(b"from "+o.getsockname()[0].encode()); o.close()
threading.Thread(target=serve,daemon=True).start()
outside=socket.create_connection(("169.254.213.1",port)); outside.send(b"hello")
n=0
while True:
 n+=1; c.send(b"%d"%n); assert s.recv(100)==b"%d"%n; out("said","turn"); time.sleep(0.02)
`;

t.test('an address that leads to it', { skip: tools.skip || noVeth }, async (t) => {
  const shell = makeShell(t, 'root');
  const { folder } = shell;
  const said = () => {
    try {
      return readFileSync(join(folder, 'said'), 'utf8').split('\n').length;
    } catch {
      return 0;
    }
  };
  const address = `10.213.77.${1 + (process.pid % 250)}`;
  const guests: string[] = [];
  const server = createServer((guest: Socket) => {
    guest.on('error', () => undefined);
    guests.push(guest.remoteAddress!);
  });
  t.teardown(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
  const { port } = server.address() as { port: number };
  const first = shell.sh(
    `pod-run --name o -d --net own --address ${address} -- python3 -c "$PROGRAM" $F ${address} ${port}`,
    { PROGRAM: talker },
  );
  t.equal(first.status, 0, first.stderr);
  await waitFor('it talks to itself', () => said() > 2);
  t.same(guests, [address], 'the host is reached from its address');
  const ask = () =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(7777, address, () => undefined);
      socket.on('error', reject);
      socket.on('data', (data) => resolve(data.toString()));
    });
  t.equal(await ask(), `from ${address}`, 'the host reaches it');
  const before = describe(shell);
  const link = `pod${shell.ps()[0]!.init}`;
  t.match(must(t, shell, 'ip -o link').stdout, link);
  t.match(
    shell.sh(`pod-run --net own --name p --address ${address} -- true`).stderr,
    /is taken here by another pod/,
  );

  const { stderr } = must(t, shell, 'pod-dump o > $F/image');
  t.match(stderr, /the connection from 10\.213\..* outside/, 'what is lost is said');
  const second = shell.sh('pod-restart -d --name second < $F/image');
  t.equal(second.status, 12, 'not twice on one host');
  t.match(second.stderr, /is taken here by another pod/);
  must(t, shell, 'pod-kill o');

  for (const turn of [1, 2]) {
    must(t, shell, 'pod-restart -d < $F/image');
    const turns = said();
    await waitFor('it talks on', () => said() > turns + 2);
    t.equal(await ask(), `from ${address}`, 'the host reaches it again');
    t.same(describe(shell), before, 'all is as it was');
    if (turn === 1) must(t, shell, 'pod-dump --then kill o > $F/image');
  }
  const last = `pod${shell.ps()[0]!.init}`;
  // However it ends.
  process.kill(shell.ps()[0]!.init, 'SIGKILL');
  const links = () => shell.sh('ip -o link; ip route').stdout;
  await waitFor('nothing is left', () => !links().includes(last) && !links().includes(address));
  t.notMatch(links(), link);
});

t.test('what an ordinary user is told', { skip: isRoot ? false : 'as nobody' }, async (t) => {
  const run = makeShell(t, 'nobody').sh('pod-run --net own -- true');
  t.equal(run.status, 1);
  t.match(run.stderr, /ordinary user can't make a network.*\n.*hint: .*--net none/);
});

t.test('no other network', async (t) => {
  const run = makeShell(t, users[0]!).sh('pod-run --net mine -- true');
  t.equal(run.status, 2);
  t.match(run.stderr, /net.*mine/);
});
