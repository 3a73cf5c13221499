// Ends by itself: a client, an unref'd listener, timeouts, pipes, and names.
import dgram from 'node:dgram'
import dns from 'node:dns/promises'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import tls from 'node:tls'

const say = (what, value) => console.log(`${what}: ${value}`)
const once = (emitter, name) => new Promise((resolve, reject) => emitter.once(name, resolve).once('error', reject))

// A subclass of a program's own, with settings made before it connects.
class Talker extends net.Socket {
  say(text) {
    return this.write(`${text}!`)
  }
  write(...args) {
    this.writes = (this.writes ?? 0) + 1
    return super.write(...args)
  }
}
const talker = new Talker().setNoDelay(true).setTimeout(5000)
talker.connect(7, 'echo')
talker.say('early')
const [heard] = await once(talker, 'data').then((data) => [String(data)])
say(
  'talker',
  `${heard} ${talker instanceof Talker} ${talker instanceof net.Socket} ${talker.writes} ${talker.timeout} ${talker.remoteAddress}`,
)
talker.end()
await once(talker, 'close')

// net.connect, refused.
const refused = await new Promise((resolve) => net.connect(9, 'echo').on('error', resolve))
say('refused', refused.message)
const unknown = await new Promise((resolve) => net.connect(9, 'no.such.name').on('error', resolve))
say('unknown', unknown.message)

// A pipe is Node's own.
const place = path.join(os.tmpdir(), `inic-${process.pid}-${Math.floor(performance.now() * 1e3)}.sock`)
const pipe = net.createServer((socket) => socket.end('through a pipe')).listen(place)
await once(pipe, 'listening')
const piped = net.connect(place)
say('pipe', String(await once(piped, 'data')))
pipe.close()
fs.rmSync(place, { force: true })

// Datagrams, names.
const socket = dgram.createSocket('udp4')
socket.send('datagram', 7, 'echo')
say('udp', String(await once(socket, 'message')))
socket.close()
say('lookup', JSON.stringify(await dns.lookup('echo', { all: true })))

// TLS to the card, without a certificate: a shared key.
const key = Buffer.from('0123456789abcdef')
const secure = tls.createServer({ pskCallback: () => key, ciphers: 'PSK', maxVersion: 'TLSv1.2' }, (s) =>
  s.end('secret'),
)
await new Promise((resolve) => secure.listen(443, resolve))
const client = tls.connect({
  port: 443,
  host: '127.0.0.1',
  pskCallback: () => ({ psk: key, identity: 'me' }),
  ciphers: 'PSK',
  maxVersion: 'TLSv1.2',
  checkServerIdentity: () => undefined,
})
say('tls', String(await once(client, 'data')))
client.end()
secure.close()

net.createServer().listen(8080).unref()
say('done', 'yes')
