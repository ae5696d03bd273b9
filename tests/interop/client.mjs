// Node.js as the client. What came of it is one JSON object on standard output.
//
//     node client.mjs COMMAND --port PORT --ca FILE --tls VERSION [--cert FILE --key FILE]
//                     [--via https|http2] [--twin-cert FILE --twin-key FILE --remove FILE]

import { unlinkSync, readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';
import tls from 'node:tls';
import { parseArgs } from 'node:util';

const names = ['port', 'ca', 'tls', 'cert', 'key', 'via', 'twin-cert', 'twin-key', 'remove'];
const { positionals: [command], values: args } = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(names.map((name) => [name, { type: 'string' }])),
});

function options(cert = args.cert, key = args.key) {
  return {
    host: 'localhost',
    port: Number(args.port),
    ca: readFileSync(args.ca),
    minVersion: args.tls,
    maxVersion: args.tls,
    ...(cert && { cert: readFileSync(cert), key: readFileSync(key) }),
  };
}

// A client that keeps its connection, one request at a time. Each `get` resolves to
// `PROTOCOL STATUS BODY` or rejects; `connections` are those that were used so far, and `closed`
// resolves when the first of them is closed.
class HttpsClient {
  connections = new Set();

  constructor(tlsOptions) {
    this.agent = new https.Agent({ ...tlsOptions, keepAlive: true, maxSockets: 1 });
    this.closed = new Promise((resolve) => { this.onClose = resolve; });
  }

  get() {
    return new Promise((resolve, reject) => {
      const { host, port } = this.agent.options;
      const request = https.get({ agent: this.agent, host, port }, (response) => {
        const { socket } = request;
        if (!this.connections.has(socket)) socket.once('close', this.onClose);
        this.connections.add(socket);
        const { httpVersion, statusCode } = response;
        const start = `${socket.getProtocol()} HTTP/${httpVersion} ${statusCode} `;
        const body = response.setEncoding('utf8').toArray();
        body.then((parts) => resolve(start + parts.join('')), reject);
      });
      request.on('error', reject);
    });
  }

  end() {
    this.agent.destroy();
  }
}

class Http2Client {
  connections = new Set();

  constructor(tlsOptions) {
    this.tlsOptions = tlsOptions;
    this.closed = new Promise((resolve) => { this.onClose = resolve; });
  }

  get() {
    return new Promise((resolve, reject) => {
      if (!this.session || this.session.closed || this.session.destroyed) this.connect();
      const { session } = this;
      const request = session.request();
      let response;
      request.setEncoding('utf8');
      request.on('response', (headers) => {
        response = `${session.socket.getProtocol()} HTTP/2.0 ${headers[':status']} `;
      });
      request.on('data', (text) => { response += text; });
      request.on('close', () => {
        if (response) resolve(response);
        else reject(new Error('closed without a response'));
      });
      // Whatever ends the session ends its requests, and carry the reason.
      request.on('error', (error) => {
        this.session = undefined;
        reject(error);
      });
    });
  }

  connect() {
    const { host, port } = this.tlsOptions;
    const session = http2.connect(`https://${host}:${port}`, this.tlsOptions);
    session.on('error', () => {});
    session.once('close', this.onClose);
    this.connections.add(session);
    this.session = session;
  }

  end() {
    this.session?.close();
  }
}

const clients = { https: HttpsClient, http2: Http2Client };
const newClient = (...credential) => new clients[args.via ?? 'https'](options(...credential));

// The alert is in the code of an error or, where it came during the handshake, in its message.
const words = (error) => `${error.code}: ${error.message}`;

// What a request ended in if not in a whole and good response, and else null.
const failure = (request) => request.then(
  (response) => (response.endsWith(' 200 hello world\n') ? null : response),
  words,
);

async function get() {
  const client = newClient();
  try {
    return { response: await client.get() };
  } finally {
    client.end();
  }
}

// Several requests, one after the other.
async function keepAlive() {
  const client = newClient();
  const responses = [];
  while (responses.length < 5) responses.push(await client.get());
  client.end();
  return { responses, connections: client.connections.size };
}

// A second connection with the session of the first.
async function resume() {
  const visits = [];
  let session;
  for (const _ of ['first', 'second']) visits.push(await visit());
  return { visits };

  async function visit() {
    const socket = tls.connect({ ...options(), session, servername: 'localhost' });
    socket.on('session', (latest) => { session = latest; });
    let reused;
    socket.on('secureConnect', () => { reused = socket.isSessionReused(); });
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    const response = (await socket.setEncoding('utf8').toArray()).join('');
    const [statusLine] = response.split('\r\n');
    return { statusLine, reused };
  }
}

// Two clients with their connections open; the file of the one is removed while the other goes on
// with its requests. The one that has to go does so too if `busy`, and is idle otherwise.
// `outAfter` is when, in milliseconds after the removal, it had its last response or its idle
// connection was closed.
async function removal({ busy }) {
  const leaver = newClient();
  const stayer = newClient(args['twin-cert'], args['twin-key']);
  await leaver.get();

  let over = false;
  const stayed = { responses: 0, failures: [] };
  const staying = (async () => {
    for (let more = 5; more > 0; more -= over) {
      const failed = await failure(stayer.get());
      if (failed) stayed.failures.push(failed);
      else stayed.responses += 1;
    }
  })();
  while (stayed.responses === 0 && stayed.failures.length === 0) await leaver.get();

  unlinkSync(args.remove);
  const removed = performance.now();
  const since = () => performance.now() - removed;
  let outAfter = 0;
  let last = null;
  if (busy) {
    while (last === null) {
      last = await failure(leaver.get());
      if (last === null) outAfter = since();
    }
  } else {
    await leaver.closed;
    outAfter = since();
  }
  // A request that crossed with the end of its connection failed with that; the next connects anew.
  const next = await failure(leaver.get());
  over = true;
  await staying;
  leaver.end();
  stayer.end();
  stayed.connections = stayer.connections.size;
  return { outAfter, last, next, stayed };
}

const commands = {
  get,
  'keep-alive': keepAlive,
  resume,
  'removal-while-idle': () => removal({ busy: false }),
  'removal-while-busy': () => removal({ busy: true }),
};

const outcome = await commands[command]().catch((error) => ({ error: words(error) }));
console.log(JSON.stringify(outcome));
