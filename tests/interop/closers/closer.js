// As closer.c, with Node.
'use strict';
const fs = require('fs');
const tls = require('tls');

const [role, port, size, how, certificate, key] = process.argv.slice(2);
const data = Buffer.alloc(Number(size));
for (let i = 0; i < data.length; i++) data[i] = i % 251;

function say(socket) {
  socket.on('error', () => {});
  if (how === 'half') {
    socket.end(data);
    socket.resume();
  } else {
    socket.write(data, () => socket.destroy());
  }
}

if (role === 'server') {
  const server = tls.createServer({cert: fs.readFileSync(certificate), key: fs.readFileSync(key)}, (socket) => {
    server.close();
    say(socket);
  });
  server.listen(Number(port), '127.0.0.1', () => console.log('listening'));
} else {
  const socket = tls.connect({host: '127.0.0.1', port: Number(port), rejectUnauthorized: false}, () => say(socket));
}
