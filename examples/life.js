// Conway's Game of Life on the terminal, in plain Node: something that lives, to be suspended and to go on.
//
//     node examples/life.js [--seed N] [--delay MS] [--width N] [--height N]
//
// It checks itself at every generation and stops with `life: WRONG: …` and status 1 when anything is off:
//   - a second board, kept in another way, must agree cell by cell;
//   - a chain of digests over all generations so far, which every 50 generations is computed again from the seed
//     alone: a generation that was skipped, doubled or changed breaks it;
//   - the monotonic clock never goes backwards.
import { createHash } from 'node:crypto';

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  const value = at < 0 ? fallback : Number(process.argv[at + 1]);
  if (!Number.isInteger(value) || value < 1) {
    console.error(`life: error: --${name} wants a whole number above 0`);
    process.exit(2);
  }
  return value;
};
const seed = option('seed', 42);
const delay = option('delay', 200);
const width = option('width', 64);
const height = option('height', 20);

function firstBoard() {
  let state = seed >>> 0;
  return Uint8Array.from({ length: width * height }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 30 === 0 ? 1 : 0;
  });
}

/** The next board; the edges meet (a torus). */
function nextBoard(board) {
  const next = new Uint8Array(board.length);
  for (let y = 0; y < height; y += 1) {
    const above = ((y + height - 1) % height) * width;
    const here = y * width;
    const below = ((y + 1) % height) * width;
    for (let x = 0; x < width; x += 1) {
      const left = (x + width - 1) % width;
      const right = (x + 1) % width;
      let around = board[above + left] + board[above + x] + board[above + right];
      around += board[here + left] + board[here + right];
      around += board[below + left] + board[below + x] + board[below + right];
      next[here + x] = around === 3 || (around === 2 && board[here + x]) ? 1 : 0;
    }
  }
  return next;
}

/** The same rule over a set of living cells: slower, and wrong in other ways if it is wrong. */
function nextCells(cells) {
  const counts = new Map();
  for (const cell of cells) {
    const x = cell % width;
    const y = (cell - x) / width;
    for (const dy of [-1, 0, 1]) {
      for (const dx of [-1, 0, 1]) {
        if (dx === 0 && dy === 0) continue;
        const near = ((y + dy + height) % height) * width + ((x + dx + width) % width);
        counts.set(near, (counts.get(near) ?? 0) + 1);
      }
    }
  }
  const next = new Set();
  for (const [cell, count] of counts) if (count === 3 || (count === 2 && cells.has(cell))) next.add(cell);
  return next;
}

const cellsOf = (board) => new Set([...board.keys()].filter((cell) => board[cell]));
const link = (chain, generation, board) =>
  createHash('sha256').update(chain).update(String(generation)).update(board).digest('hex');

/** Board and chain of a generation, from nothing but the seed. */
function replay(until) {
  let board = firstBoard();
  let chain = link('', 0, board);
  for (let generation = 1; generation <= until; generation += 1) {
    board = nextBoard(board);
    chain = link(chain, generation, board);
  }
  return { board, chain };
}

let board = firstBoard();
let cells = cellsOf(board);
let chain = link('', 0, board);
let generation = 0;
let checked = 0;
let clock = process.hrtime.bigint();
const started = clock;

function wrong(why) {
  restoreTerminal();
  console.log(`\nlife: WRONG: ${why}`);
  process.exit(1);
}

function step() {
  const now = process.hrtime.bigint();
  if (now < clock) wrong(`the monotonic clock went back by ${clock - now} ns`);
  clock = now;
  board = nextBoard(board);
  cells = nextCells(cells);
  generation += 1;
  chain = link(chain, generation, board);
  const living = board.reduce((sum, cell) => sum + cell, 0);
  if (cells.size !== living) wrong(`the boards differ in generation ${generation}`);
  for (const cell of cells) if (!board[cell]) wrong(`the boards differ in generation ${generation}`);
  if (generation % 50 === 0) {
    const again = replay(generation);
    if (again.chain !== chain || !Buffer.from(again.board).equals(Buffer.from(board))) {
      wrong(`generation ${generation} is not what follows from seed ${seed}`);
    }
    checked = generation;
  }
  draw();
}

function draw() {
  const seconds = Number((clock - started) / 1_000_000_000n);
  const facts = [
    `generation ${generation}`,
    `${cells.size} cells`,
    `chain ${chain.slice(0, 12)}`,
    `replayed to ${checked}`,
    `${seconds} s`,
    `pid ${process.pid}`,
  ];
  if (!process.stdout.isTTY) {
    console.log(facts.join(' · '));
    return;
  }
  const rows = [facts.join(' · '), `┌${'─'.repeat(width)}┐`];
  for (let y = 0; y < height; y += 1) {
    let row = '';
    for (let x = 0; x < width; x += 1) row += board[y * width + x] ? '\x1b[32m●\x1b[0m' : ' ';
    rows.push(`│${row}│`);
  }
  rows.push(`└${'─'.repeat(width)}┘`);
  process.stdout.write(`\x1b[H${rows.map((row) => `${row}\x1b[K`).join('\r\n')}\r\n\x1b[J`);
}

function restoreTerminal() {
  if (process.stdout.isTTY) process.stdout.write('\x1b[?25h');
}

if (process.stdout.isTTY) process.stdout.write('\x1b[?25l\x1b[2J');
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    restoreTerminal();
    process.exit(0);
  });
}
draw();
setInterval(step, delay);
