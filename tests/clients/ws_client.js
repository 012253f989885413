// Connects npm's ws and prints what happens, one JSON object a line. The argument is JSON, too:
// {url, headers, ca (a file)}. A line on standard input is a command: "close" or "ping".

'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const WebSocket = require('ws');

const { url, headers, ca } = JSON.parse(process.argv[2]);
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n');

const socket = new WebSocket(url, { headers, ca: ca && fs.readFileSync(ca) });
socket.on('open', () => print({ event: 'open', extensions: socket.extensions }));
socket.on('message', (data, isBinary) =>
  print({ event: 'message', binary: isBinary, data: data.toString('base64') }),
);
socket.on('pong', () => print({ event: 'pong' }));
socket.on('error', (error) => print({ event: 'error', message: error.message }));
socket.on('unexpected-response', (request, response) => {
  let body = '';
  response.on('data', (data) => (body += data));
  response.on('end', () => {
    print({ event: 'unexpected-response', status: response.statusCode, body });
    process.exit();
  });
});
socket.on('close', (code, reason) => {
  print({ event: 'close', code, reason: reason.toString() });
  process.exit();
});

const commands = { close: () => socket.close(1000, 'bye'), ping: () => socket.ping() };
readline.createInterface({ input: process.stdin }).on('line', (line) => commands[line]());
