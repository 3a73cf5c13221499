// A long download that goes on although its server is emptied: inic drain server1, docs/applications.md.
// An ordinary Node program; `socket.migrate`, `server.on('migrate')` and `server.on('drain')` are what it uses of the card.
import http from 'node:http'

const SIZE = Number(process.env.SIZE ?? 1 << 30)
const PIECE = 65536
const name = process.env.INIC_SERVER

/** The downloads of this server, by their sockets. */
const downloads = new Map()

const server = http.createServer((request, response) => {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': SIZE, 'first-server': name })
  send(request.socket, response, 0, () => response.end())
})

/** Writes the download from byte `at` on to `out`, which leads to `socket`. */
function send(socket, out, at, done) {
  const download = { at, moving: false, more }
  downloads.set(socket, download)
  socket.once('close', () => downloads.delete(socket))
  out.on('drain', more)
  more()

  function more() {
    while (!download.moving && download.at < SIZE) {
      const piece = bytes(download.at, Math.min(PIECE, SIZE - download.at))
      download.at += piece.length
      if (!out.write(piece)) return
    }
    if (download.moving || !downloads.delete(socket)) return
    out.off('drain', more)
    done()
  }
}

// This server is to be emptied, and the connection is not between two requests: Node cannot know how to go on with it elsewhere.
server.on('drain', async (socket, to) => {
  const download = downloads.get(socket)
  if (download === undefined) return
  // All that was written until now goes along. Nothing is written from here on: it would not.
  download.moving = true
  try {
    await socket.migrate(to, { at: download.at })
    console.log(`${name}: the download goes on elsewhere, from byte ${download.at}`)
  } catch (error) {
    console.log(`${name}: ${error.message}; the download goes on here`)
    download.moving = false
    download.more()
  }
})

// The other end of that: the download goes on where it was, and then the connection is one for HTTP again.
server.on('migrate', (socket, { at }) => {
  console.log(`${name}: a download goes on here, from byte ${at}`)
  socket.on('error', () => {})
  send(socket, socket, at, () => server.emit('connection', socket))
})

server.listen(80, () => console.log(`${name}: listening`))

/** `count` bytes of the file: byte i is 7 i modulo 251, so that whoever receives them can tell if one is missing. */
function bytes(at, count) {
  const piece = Buffer.allocUnsafe(count)
  for (let i = 0; i < count; i++) piece[i] = ((at + i) * 7) % 251
  return piece
}
