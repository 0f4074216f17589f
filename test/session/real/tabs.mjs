// A browser without a window, driven through its debugging pipe. Each tab counts, checks what it holds, and has a
// picture that was painted once, of chance. Whoever connects to the socket sends an expression and gets its value in
// every tab.
import { spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import net from 'node:net';

const folder = process.env.F;
const log = openSync(`${folder}/chromium.log`, 'w');
const browser = spawn(
  'chromium',
  [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-breakpad',
    `--user-data-dir=${folder}/profile`,
    '--remote-debugging-pipe',
  ],
  {
    stdio: ['ignore', log, log, 'pipe', 'pipe'],
    env: { ...process.env, HOME: folder },
  },
);
browser.on('exit', (...how) => {
  console.log('WRONG: the browser ended', ...how);
  process.exit(3);
});

const [, , , toBrowser, fromBrowser] = browser.stdio;
const waiting = new Map();
let sent = 0;
let rest = '';
fromBrowser.setEncoding('utf8').on('data', (text) => {
  const parts = (rest + text).split('\0');
  rest = parts.pop();
  for (const message of parts.map((part) => JSON.parse(part))) {
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  }
});

async function call(method, params, sessionId) {
  sent += 1;
  const id = sent;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  toBrowser.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const { result, error } = await answer;
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

const page = (
  number,
) => `<title>tab ${number}</title><canvas id=painted width=300 height=200></canvas><p id=turn></p>
<script>
  const words = Array.from({ length: 20000 }, (_, index) => 'word ${number} ' + index);
  const painted = document.getElementById('painted'), brush = painted.getContext('2d');
  for (let spot = 0; spot < 500; spot++) {
    brush.fillStyle = 'hsl(' + Math.random() * 360 + ' 90% 50%)';
    brush.fillRect(Math.random() * 300, Math.random() * 200, 9, 9);
  }
  let turns = 0;
  setInterval(() => {
    turns++;
    if (words[turns % 20000] !== 'word ${number} ' + (turns % 20000)) document.title = 'WRONG';
    document.getElementById('turn').textContent = turns;
  }, 20);
</script>`;

const tabs = [];
for (let number = 0; number < 10; number++) {
  const url = `data:text/html,${encodeURIComponent(page(number))}`;
  const { targetId } = await call('Target.createTarget', { url });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  tabs.push(sessionId);
}

async function evaluate(tab, expression) {
  const { result } = await call('Runtime.evaluate', { expression, returnByValue: true }, tab);
  return result.value;
}

net
  .createServer((socket) => {
    socket.setEncoding('utf8').on('data', async (expression) => {
      const values = await Promise.all(tabs.map((tab) => evaluate(tab, expression)));
      socket.end(JSON.stringify(values));
    });
    socket.on('error', () => undefined);
  })
  .listen(`${folder}/tabs.sock`, () => console.log('ready'));
