// A download, and an upload, whose connection goes on to the next server again and again while it runs (docs/applications.md).
//   GET /BYTES/MOVES       so many bytes, over so many moves
//   GET /BYTES/sha256      their hash
//   PUT /BYTES/MOVES       takes such bytes, over so many moves, and says whether they were right
// An ordinary Node program; its argument is the server where connections go from here.
import { createHash } from 'node:crypto'
import http from 'node:http'

const next = process.argv[2]
const name = process.env.INIC_SERVER
/** Byte i of the file is byte i modulo its length: a prime, so that no shift of the file equals it. */
const pattern = Buffer.alloc(65_521)
for (let i = 0; i < pattern.length; i++) pattern[i] = Math.imul(i, 2_654_435_761) >>> 13

const server = http.createServer((request, response) => {
  const [, bytes, what] = /^\/(\d+)\/(\d+|sha256)$/.exec(request.url) ?? []
  if (bytes === undefined) return response.writeHead(404).end()
  if (what === 'sha256') return response.end(`${hash(Number(bytes))}\n`)
  // From here on the program speaks for itself: Node's HTTP cannot go on in the middle of a message elsewhere.
  const { socket } = request
  const journey = {
    direction: request.method === 'PUT' ? 'up' : 'down',
    at: 0,
    bytes: Number(bytes),
    moves: Number(what),
    moved: 0,
  }
  request.pause()
  detach(socket)
  if (journey.direction === 'down')
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\nConnection: close\r\n\r\n`)
  else if (request.headers.expect === '100-continue') socket.write('HTTP/1.1 100 Continue\r\n\r\n')
  travel(socket, journey)
})

server.on('checkContinue', (request, response) => server.emit('request', request, response))
server.on('migrate', travel)
server.listen(80, () => console.log(`${name}: listening`))

/** Takes the socket away from Node's HTTP server; bytes that it has read already go back into the stream. */
function detach(socket) {
  for (const event of ['data', 'end', 'close', 'drain', 'error', 'timeout', 'readable'])
    socket.removeAllListeners(event)
  socket.setTimeout(0)
}

function travel(socket, journey) {
  socket.on('error', (error) => console.log(`${name}: ${error.message}`))
  if (journey.direction === 'down') download(socket, journey)
  else upload(socket, journey)
}

/** The next stage of the journey ends at this byte. */
function milestone({ bytes, moves, moved }) {
  return moved < moves ? Math.ceil((bytes * (moved + 1)) / (moves + 1)) : bytes
}

async function goOn(socket, journey, stay) {
  try {
    await socket.migrate(next, { ...journey, moved: journey.moved + 1 })
  } catch (error) {
    console.log(`${name}: ${error.message}; it goes on here`)
    stay({ ...journey, moved: journey.moves })
  }
}

function download(socket, journey) {
  const end = milestone(journey)
  let { at } = journey
  const pump = () => {
    while (at < end) {
      const start = at % pattern.length
      const piece = pattern.subarray(start, Math.min(pattern.length, start + end - at))
      at += piece.length
      if (!socket.write(piece) && at < end) return void socket.once('drain', pump)
    }
    if (end === journey.bytes) socket.end()
    else goOn(socket, { ...journey, at }, (rest) => download(socket, rest))
  }
  pump()
}

function upload(socket, journey) {
  const end = milestone(journey)
  let { at } = journey
  const take = (chunk) => {
    for (let i = 0; i < chunk.length; ) {
      const start = (at + i) % pattern.length
      const length = Math.min(pattern.length - start, chunk.length - i)
      if (pattern.compare(chunk, i, i + length, start, start + length) !== 0) journey.wrong ??= at + i
      i += length
    }
    at += chunk.length
    if (at >= journey.bytes) {
      const answer = journey.wrong === undefined ? `${at} bytes, all right\n` : `byte ${journey.wrong} is wrong\n`
      socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${answer.length}\r\nConnection: close\r\n\r\n${answer}`)
    } else if (at >= end && journey.moved < journey.moves) {
      socket.off('data', take)
      goOn(socket, { ...journey, at }, (rest) => upload(socket, rest))
    }
  }
  socket.on('data', take)
  socket.resume()
}

function hash(bytes) {
  const sum = createHash('sha256')
  for (let at = 0; at < bytes; at += pattern.length)
    sum.update(pattern.subarray(0, Math.min(pattern.length, bytes - at)))
  return sum.digest('hex')
}
