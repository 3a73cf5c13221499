// What a CommonJS program asks before it does anything.
const net = require('node:net')
if (require.main === module) {
  const server = net.createServer((socket) => socket.pipe(socket))
  server.listen(7, '0.0.0.0', () =>
    console.log('main', __filename === process.argv[1], process.argv.slice(2).join(',')),
  )
  process.on('SIGTERM', () => {
    console.log('told to stop')
    server.close(() => console.log('closed'))
  })
}
