// Node.js: an HTTP server and clients that keep their connections, one of them with a body that comes slowly. By a unix socket, or
// with an address as argument by TCP.
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const host = process.argv[2];
const where = host === undefined ? { path: `${process.env.F}/http.sock` } : { host, port: 8080 };
const target = host === undefined ? { socketPath: where.path } : where;
const wrong = (...what) => {
  console.log('WRONG', ...what);
  process.exit(3);
};
process.on('uncaughtException', wrong);
let connections = 0;
const server = http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  response.end(`echo ${Buffer.concat(parts)}`);
});
server.keepAliveTimeout = 3_600_000;
server.requestTimeout = 0;
server.on('connection', () => {
  connections += 1;
});
await new Promise((resolve) => server.listen(where, resolve));
const agents = Array.from({ length: 5 }, () => new http.Agent({ keepAlive: true, maxSockets: 1 }));

async function ask(agent, text, pause) {
  const request = http.request({ ...target, agent, method: 'POST', path: '/' });
  const answered = new Promise((resolve, reject) => request.on('response', resolve).on('error', reject));
  request.write(text.slice(0, 4));
  if (pause > 0) await sleep(pause);
  request.end(text.slice(4));
  const parts = [];
  for await (const part of await answered) parts.push(part);
  const answer = Buffer.concat(parts).toString();
  if (answer !== `echo ${text}`) wrong(answer, text);
}

for (let round = 1; ; round++) {
  await Promise.all(
    agents.map((agent, index) => ask(agent, `client ${index} in round ${round}`, index === 0 ? 30 : 0)),
  );
  if (connections !== agents.length) wrong('connections', connections);
  console.log('round', round);
}
