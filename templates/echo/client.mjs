/** Sends a datagram a second to the echo card, and says what came back and when. */
import { createSocket } from 'node:dgram'

const [address] = process.argv.slice(2)
const socket = createSocket('udp4')
let count = 0
socket.on('message', (message, { address: from }) => {
  const [number, sentMs] = message.toString().split(' ')
  console.log(`${from}: datagram ${number} after ${(performance.now() - Number(sentMs)).toFixed(1)} ms`)
})
setInterval(() => socket.send(`${++count} ${performance.now()}`, 7, address), 1000)
