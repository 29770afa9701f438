// Node's http and http2 as an upstream; README.md says what is served.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const path = require('node:path');

const { PEER_DIR: dir, PEER_PORT: port, PEER_TLS: tls } = process.env;
const FIELDS = ['host', 'authorization', 'x-leastgate-subject', 'x-forwarded-for', 'expect', 'te', 'connection', 'upgrade',
  'content-length', 'transfer-encoding'];
const BIG = Buffer.alloc(10 << 20, 0).map((_, at) => at % 251);

function seen(request) {
  const given = (name) => request.headers[name] ?? (name === 'host' ? request.headers[':authority'] : undefined) ?? '-';
  let decoded = '-';
  try { decoded = decodeURIComponent(request.url.split('?')[0]); } catch { /* not decodable: it stays a dash */ }
  const columns = [given('x-cell'), request.method, request.url, decoded, request.socket.remotePort,
    ...FIELDS.map(given), '-'];
  fs.appendFileSync(path.join(dir, 'seen.log'), columns.join('\t') + '\n', 'latin1');
}

function sum(request, done) {
  let [length, a, b] = [0, 1, 0];
  request.on('data', (part) => {
    length += part.length;
    for (const byte of part) { a = (a + byte) % 65521; b = (b + a) % 65521; }
  });
  request.on('end', () => done(`${length} ${b * 65536 + a}`));
}

function say(response, text) {
  response.setHeader('content-type', 'text/plain');
  response.setHeader('content-length', Buffer.byteLength(text));
  response.end(text);
}

function inParts(response) {
  for (const part of ['one ', 'two ', 'three']) response.write(part);
}

const RESOURCES = {
  '/v1/sum': (request, response) => sum(request, (text) => say(response, text)),
  '/v1/empty': (_, response) => { response.statusCode = 204; response.end(); },
  '/v1/unchanged': (_, response) => { response.statusCode = 304; response.setHeader('etag', '"1"'); response.end(); },
  '/v1/big': (_, response) => { response.setHeader('content-length', BIG.length); response.end(BIG); },
  '/v1/chunked': (_, response) => { inParts(response); response.end(); },
  '/v1/trailers': (_, response) => {
    response.setHeader('trailer', 'x-checksum');
    inParts(response);
    response.addTrailers({ 'x-checksum': '13' });
    response.end();
  },
  '/v1/hints': (_, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
    say(response, 'hello');
  },
  '/v1/refuse': (_, response) => { response.statusCode = 413; say(response, 'too much'); },
  '/v1/stream': (_, response) => {
    response.setHeader('content-type', 'text/event-stream');
    let number = 0;
    const timer = setInterval(() => {
      response.write(`data: ${number}\n\n`);
      number += 1;
      if (number === 5) { clearInterval(timer); response.end(); }
    }, 200);
  },
};

function handle(request, response) {
  seen(request);
  const resource = RESOURCES[request.url.split('?')[0]];
  if (resource) resource(request, response);
  else { request.resume(); say(response, 'hello'); }
}

// Enough of RFC 6455 for short unfragmented frames: an echo, and a close for a close.
function websocket(request, socket, head) {
  seen(request);
  const accept = crypto.createHash('sha1')
    .update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    + `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let buffer = head;
  const read = (part) => {
    buffer = Buffer.concat([buffer, part]);
    while (buffer.length >= 6) {
      const length = buffer[1] & 127;
      if (length > 125 || buffer.length < 6 + length) return;
      const mask = buffer.subarray(2, 6);
      const text = buffer.subarray(6, 6 + length).map((byte, at) => byte ^ mask[at % 4]);
      socket.write(Buffer.concat([Buffer.from([buffer[0], length]), text]));
      if ((buffer[0] & 15) === 8) { socket.end(); return; }
      buffer = buffer.subarray(6 + length);
    }
  };
  socket.on('error', () => {});
  socket.on('data', read);
  read(Buffer.alloc(0));
}

const files = tls === '1' && {
  cert: fs.readFileSync(path.join(dir, 'cert.pem')), key: fs.readFileSync(path.join(dir, 'key.pem')), allowHTTP1: false,
};
const server = files ? http2.createSecureServer(files, handle) : http.createServer(handle);
if (!files) server.on('upgrade', websocket);
server.listen(Number(port), '127.0.0.1');
