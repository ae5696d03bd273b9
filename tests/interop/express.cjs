// An Express app that decides by who asks, as the certificate in `Client-Cert` (RFC 9440) says.
//
//     node express.cjs FINGERPRINT
//
// It prints its port, then one JSON object for each request that it has seen to its end.

const { X509Certificate, createHash } = require('node:crypto');
const express = require('express');

const [allowed] = process.argv.slice(2);
const app = express();

function clientCertificate(request) {
  const values = request.headersDistinct['client-cert'] ?? [];
  const match = values.length === 1 && /^:([A-Za-z0-9+/]+={0,2}):$/.exec(values[0]);
  return match && new X509Certificate(Buffer.from(match[1], 'base64'));
}

app.use((request, response, next) => {
  const digest = createHash('sha256');
  let length = 0;
  request.on('data', (data) => { digest.update(data); length += data.length; });
  request.on('end', () => {
    request.sum = { length, sha256: digest.digest('hex') };
    const { method, url, headers, trailers } = request;
    console.log(JSON.stringify({ method, url, headers, trailers, length }));
  });
  const certificate = clientCertificate(request);
  request.who = certificate && certificate.fingerprint256.replaceAll(':', '').toLowerCase();
  if (request.who !== allowed) {
    request.resume();
    return response.status(401).send('not you\n');
  }
  next();
});

app.post('/upload', (request, response) => {
  request.on('end', () => response.json(request.sum));
});

app.get('/who', (request, response) => {
  request.resume();
  response.json({ who: request.who, reported: request.headers['x-client-cert-fingerprint'] });
});

// Sends the next event once the one before has been seen: `/seen` says so.
let seen = () => {};
app.get('/events', async (request, response) => {
  request.resume();
  response.type('text/event-stream').flushHeaders();
  for (let number = 0; number < 3; number += 1) {
    response.write(`data: ${number}\n\n`);
    await new Promise((resolve) => { seen = resolve; });
  }
  response.end();
});
app.post('/seen', (request, response) => {
  request.resume();
  seen();
  response.sendStatus(204);
});

app.get('/large', async (request, response) => {
  request.resume();
  const piece = Buffer.alloc(1 << 16);
  for (let left = Number(request.query.bytes); left > 0; left -= piece.length) {
    if (!response.write(piece)) {
      await new Promise((resolve) => { response.once('drain', resolve); });
    }
  }
  response.end();
});

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
