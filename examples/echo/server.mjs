/** A board program: sends back what it gets on TCP port 7 (RFC 862). It has the board's network, clock and console, and nothing else. */
export function main(board) {
  const server = board.net.createServer({ noDelay: true }, (socket) => {
    socket.pipe(socket)
    socket.on('error', (error) => board.console.log(`${socket.remoteAddress}: ${error.message}`))
  })
  server.listen(7, () => board.console.log('listening on port 7'))
}
