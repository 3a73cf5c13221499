// Nothing here counts, and yet the program ends only once all that it has asked for is done: a promise that stays open would end it with 13.
import dgram from 'node:dgram'
import { once } from 'node:events'
import net from 'node:net'

const listener = net.createServer((socket) => socket.unref()).listen(0)
listener.unref()
await once(listener, 'listening')
console.log(`listening, counts: ${listener._handle.hasRef()}`)

const client = net.connect(listener.address().port, '127.0.0.1')
client.unref()
await once(client, 'connect')
await new Promise((resolve) => client.write(Buffer.alloc(50_000), resolve))
console.log('connected, written')
client.destroy()

const receiver = dgram.createSocket('udp4').bind(0)
receiver.unref()
await once(receiver, 'listening')
const { port } = receiver.address()

const sender = dgram.createSocket('udp4')
sender.unref()
console.log(
  `sent ${await new Promise((resolve) => sender.send('one', port, '127.0.0.1', (_, bytes) => resolve(bytes)))}`,
)

// A socket that counts does so from the moment that it is asked for something.
const counting = dgram.createSocket('udp4')
counting.send('two', port, '127.0.0.1')
console.log(`answered ${await once(counting, 'listening').then(() => counting.address().port > 0)}`)
counting.close()
