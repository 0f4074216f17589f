/**
 * A terminal multiplexer as people use it: bash with job control and an editor in the windows of tmux, moved while
 * it is used, and used on. Everything is typed and read through tmux itself.
 */
import t from 'tap';
import { users } from '../pod/house.ts';
import { lacking, makeShell, waitFor } from './session-house.ts';

t.setTimeout(300_000);

const { skip, fail } = lacking(['tmux', 'vim']);

for (const user of users) {
  t.test(`bash and vim inside tmux, as ${user}`, { skip }, async (t) => {
    if (fail) return t.fail(fail);
    const shell = makeShell(t, user, { TERM: 'screen', HISTFILE: '/dev/null' });
    const tmux = (command: string) => {
      const { status, stdout, stderr } = shell.sh(`tmux -S $F/sock ${command}`);
      if (status !== 0) throw new Error(`tmux ${command}: ${stderr}`);
      return stdout;
    };
    const screen = (window: number) => tmux(`capture-pane -p -t :${window}`);
    const shows = (window: number, what: RegExp) =>
      waitFor(`window ${window} shows ${what}: ${screen(window)}`, () => what.test(screen(window)));
    /** What is typed before a job has the terminal goes to the shell. */
    const inFront = (command: string) =>
      waitFor(
        `${command} in front`,
        () => tmux(`display-message -p -t :0 '#{pane_current_command}'`).trim() === command,
      );
    const move = (generation: number) => {
      const dump = shell.sh(`pod-dump --then kill desk > $F/image-${generation}`);
      t.same([dump.status, dump.stderr], [0, ''], 'dumped, without a loss');
      const restart = shell.sh(`pod-restart -d < $F/image-${generation}`);
      t.same([restart.status, restart.stderr], [0, '']);
    };

    const started = shell.sh(
      `pod-run --name desk -d -- tmux -S $F/sock -f /dev/null new-session -x 90 -y 20 'bash --norc'`,
    );
    t.equal(started.status, 0, started.stderr);
    // The socket has its name before it listens.
    const asked = () => shell.sh('tmux -S $F/sock has-session');
    await waitFor(
      () => `tmux: ${asked().stderr}`,
      () => asked().status === 0,
    );
    await shows(0, /\$|#/);
    tmux(`send-keys -t :0 "PS1='ready> '; sleep 1000 &" Enter`);
    await shows(0, /\[1\] \d+\s+ready>/);
    tmux(`send-keys -t :0 'sleep 2000' Enter`);
    await inFront('sleep');
    tmux(`send-keys -t :0 C-z`);
    await shows(0, /\[2\]\+ +Stopped +sleep 2000/);
    tmux(`new-window -t :1 "vim -N -u NONE -i NONE -n $F/text"`);
    await shows(1, /~/);
    tmux(`send-keys -t :1 i 'written before'`);
    await shows(1, /written before/);
    // What is typed but not yet there would be a loss, and is told as one.
    await shows(0, /ready> *$/m);
    const before = [screen(0), screen(1)];

    move(1);
    t.same([screen(0), screen(1)], before, 'the screens are the same');
    tmux(`send-keys -t :1 ' and after'`);
    await shows(1, /written before and after/);

    move(2);
    tmux(`send-keys -t :1 Escape`);
    tmux(`send-keys -t :1 ':wq' Enter`);
    await waitFor('the file', () => shell.sh('cat $F/text').stdout === 'written before and after\n');

    tmux(`send-keys -t :0 'clear; jobs; tty' Enter`);
    await shows(0, /\[1\]- +Running +sleep 1000 &\s+\[2\]\+ +Stopped +sleep 2000\s+\/dev\/pts\/1/);
    tmux(`send-keys -t :0 'clear; fg' Enter`);
    await inFront('sleep');
    tmux(`send-keys -t :0 C-c`);
    await shows(0, /\^C\s+ready>/);
    tmux(`resize-window -t :0 -x 70 -y 15`);
    tmux(`send-keys -t :0 'clear; stty size' Enter`);
    await shows(0, /1[45] 70/);
    tmux('kill-server');
    await waitFor('its end', () => !shell.sh('pod-ps').stdout.includes('desk'));
  });
}
