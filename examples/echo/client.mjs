/** A board program: `client.mjs SERVER ROUNDS` sends so many messages to the echo server of SERVER, and says how long they took. */
export function main(board) {
  const [server, rounds] = [board.args[0], Number(board.args[1])]
  const message = Buffer.from('there and back again')
  const socket = board.net.connect({ host: server, port: 7, noDelay: true })
  let startedNs = 0
  let left = rounds
  let missing = message.length

  socket.on('connect', () => {
    startedNs = board.clock.now()
    socket.write(message)
  })
  socket.on('data', (chunk) => {
    missing -= chunk.length
    if (missing > 0) return
    missing = message.length
    if (--left > 0) socket.write(message)
    else socket.end()
  })
  socket.on('close', (failed) => {
    if (failed) return
    const us = (board.clock.now() - startedNs) / 1000
    board.console.log(`${rounds} round trips with ${server}, ${(us / rounds).toFixed(2)} us each`)
    board.exit()
  })
  socket.on('error', (error) => {
    board.console.log(`${server}: ${error.message}`)
    board.exit(1)
  })
}
