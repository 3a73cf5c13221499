// Asynchronous contexts must be those of libuv's handles: of whoever made the socket.
import { AsyncLocalStorage } from 'node:async_hooks'
import dgram from 'node:dgram'
import net from 'node:net'

const storage = new AsyncLocalStorage()
const seen = {}
const note = (what) => (seen[what] ??= String(storage.getStore()))

storage.run('server', () => {
  const server = net.createServer((socket) => {
    note('connection')
    // Enters a context that must not reach the next connection.
    storage.enterWith(`entered ${socket.remotePort}`)
    socket.on('data', (data) => {
      note('server data')
      socket.write(data)
    })
    socket.on('end', () => {
      if (++ended === 2) server.close()
    })
    connections.push(storage.getStore() === `entered ${socket.remotePort}`)
  })
  server.listen(7, () => note('listening'))
})
const connections = []
let ended = 0

for (const name of ['first', 'second']) {
  storage.run(name, () => {
    const socket = net.connect(7, '127.0.0.1', () => note(`${name} connect`))
    socket.write('x')
    socket.on('data', () => {
      note(`${name} data`)
      socket.end()
    })
    socket.on('close', () => note(`${name} close`))
  })
}
storage.run('datagram', () => {
  const socket = dgram.createSocket('udp4', () => {
    note('message')
    socket.close()
  })
  socket.bind(9, () => socket.send('x', 9, '127.0.0.1'))
})
process.on('exit', () => {
  seen.isolated = connections.every(Boolean)
  seen['server data'] = seen['server data'].replace(/\d+/, 'N')
  console.log(JSON.stringify(seen))
})
