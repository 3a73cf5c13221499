/**
 * A small shop: an ordinary Node program that knows nothing of INICs. `PORT=3000 node examples/shop/server.mjs` runs it on
 * the machine's own network, `inic run` runs it behind one.
 *
 *   GET  /                        the page
 *   GET  /api/products            what there is
 *   GET  /api/cart                what is in the cart of this session (a cookie names it)
 *   POST /api/cart                { "id": ..., "quantity": ... }
 *   POST /upload                  answers with length and SHA-256 of what came
 *   GET  /download/BYTES          so many bytes of a fixed sequence
 *   GET  /download/BYTES/sha256   their SHA-256
 *   WS   /echo                    sends back what it gets
 */
import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { hostname } from 'node:os'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { WebSocketServer } from 'ws'

const PORT = Number(process.env.PORT ?? 3000)
const MAXIMUM_BODY_BYTES = 64 * 1024
const MAXIMUM_DOWNLOAD_BYTES = 2 ** 34
/** Carts are kept in memory; the oldest goes when one too many comes. */
const MAXIMUM_CARTS = 10_000
const MAXIMUM_QUANTITY = 99

const PRODUCTS = [
  { id: 'nic', name: 'Network card', detail: 'Two ports, one opinion', price: 129, hue: 225 },
  { id: 'cable', name: 'Patch cable', detail: 'Three metres, never the wrong length', price: 9, hue: 150 },
  { id: 'switch', name: 'Switch', detail: 'Learns quickly, forgets politely', price: 89, hue: 280 },
  { id: 'crimper', name: 'Crimping tool', detail: 'For ends that must meet', price: 35, hue: 25 },
  { id: 'analyser', name: 'Analyser', detail: 'Sees what you said to the wire', price: 499, hue: 340 },
  { id: 'coffee', name: 'Coffee', detail: 'For the other layer eight problem', price: 4, hue: 35 },
]

const FILES = new Map(
  [
    ['/', 'index.html', 'text/html; charset=utf-8'],
    ['/shop.css', 'shop.css', 'text/css; charset=utf-8'],
    ['/shop.js', 'shop.js', 'text/javascript; charset=utf-8'],
  ].map(([path, file, type]) => [path, { type, body: readFileSync(new URL(`./public/${file}`, import.meta.url)) }]),
)

/** Session → product → quantity. @type {Map<string, Map<string, number>>} */
const carts = new Map()

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    if (response.headersSent) response.destroy()
    else sendJson(response, error.status ?? 500, { error: error.status ? error.message : 'internal error' })
    if (!error.status && error.code !== 'ERR_STREAM_PREMATURE_CLOSE' && error.code !== 'ECONNRESET')
      console.error(error)
  })
})

async function serve(request, response) {
  const { pathname } = new URL(request.url ?? '/', 'http://shop')
  const route = `${request.method === 'HEAD' ? 'GET' : request.method} ${pathname}`
  const file = FILES.get(pathname)
  if (file && route.startsWith('GET ')) {
    response.writeHead(200, { 'content-type': file.type, 'content-length': file.body.length })
    response.end(request.method === 'HEAD' ? undefined : file.body)
    return
  }
  const download = /^GET \/download\/(\d+)(\/sha256)?$/.exec(route)
  if (download) return serveDownload(response, Number(download[1]), download[2] !== undefined)
  switch (route) {
    case 'GET /api/products':
      return sendJson(response, 200, { products: PRODUCTS, servedBy: describeServer(request.socket) })
    case 'GET /api/cart':
      return sendJson(response, 200, listCart(cartOf(request, response)))
    case 'POST /api/cart':
      return sendJson(response, 200, changeCart(cartOf(request, response), await readJson(request)))
    case 'POST /upload':
    case 'PUT /upload':
      return serveUpload(request, response)
    default:
      throw httpError(404, `there is nothing at ${pathname}`)
  }
}

/** The numbers 0, 1, 2, ... times an odd constant: no word repeats within 16 GiB, so a lost or moved byte shows. */
function* sequence(bytes) {
  const words = new Uint32Array(16 * 1024)
  for (let done = 0, word = 0; done < bytes; done += words.byteLength) {
    for (let at = 0; at < words.length; at++) words[at] = Math.imul(word++, 0x9e3779b1)
    yield Buffer.from(words.buffer.slice(0, Math.min(words.byteLength, bytes - done)))
  }
}

async function serveDownload(response, bytes, digestOnly) {
  if (bytes > MAXIMUM_DOWNLOAD_BYTES) throw httpError(400, `at most ${MAXIMUM_DOWNLOAD_BYTES} bytes`)
  if (digestOnly) {
    const hash = createHash('sha256')
    await pipeline(Readable.from(sequence(bytes)), hash)
    response.end(`${hash.digest('hex')}\n`)
    return
  }
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes })
  await pipeline(Readable.from(sequence(bytes), { objectMode: false }), response)
}

async function serveUpload(request, response) {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of request) {
    bytes += chunk.length
    hash.update(chunk)
  }
  sendJson(response, 200, { bytes, sha256: hash.digest('hex') })
}

function cartOf(request, response) {
  const session = /(?:^|; )shop=([0-9a-f-]{36})(?:;|$)/.exec(request.headers.cookie ?? '')?.[1]
  const known = session && carts.get(session)
  if (known) return known
  const cart = new Map()
  const name = randomUUID()
  carts.set(name, cart)
  if (carts.size > MAXIMUM_CARTS) carts.delete(carts.keys().next().value)
  response.setHeader('set-cookie', `shop=${name}; Path=/; HttpOnly; SameSite=Lax`)
  return cart
}

function changeCart(cart, { id, quantity }) {
  if (!PRODUCTS.some((product) => product.id === id)) throw httpError(400, 'no such product')
  if (!Number.isInteger(quantity) || quantity < 0 || quantity > MAXIMUM_QUANTITY) {
    throw httpError(400, `a quantity is 0 to ${MAXIMUM_QUANTITY}`)
  }
  if (quantity === 0) cart.delete(id)
  else cart.set(id, quantity)
  return listCart(cart)
}

function listCart(cart) {
  const items = [...cart].map(([id, quantity]) => ({ id, quantity }))
  const total = items.reduce(
    (sum, { id, quantity }) => sum + quantity * PRODUCTS.find((item) => item.id === id).price,
    0,
  )
  return { items, total }
}

async function readJson(request) {
  const chunks = []
  let bytes = 0
  for await (const chunk of request) {
    bytes += chunk.length
    if (bytes > MAXIMUM_BODY_BYTES) throw httpError(413, 'too much')
    chunks.push(chunk)
  }
  try {
    return Object(JSON.parse(Buffer.concat(chunks).toString()))
  } catch {
    throw httpError(400, 'not JSON')
  }
}

/** What the page shows: which addresses this very connection runs between. */
function describeServer({ localAddress, localPort, remoteAddress, remotePort }) {
  return {
    host: process.env.INIC_SERVER ?? hostname(),
    local: `${localAddress}:${localPort}`,
    remote: `${remoteAddress}:${remotePort}`,
  }
}

function sendJson(response, status, value) {
  const body = JSON.stringify(value)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
  response.end(body)
}

function httpError(status, message) {
  return Object.assign(new Error(message), { status })
}

const sockets = new WebSocketServer({ server, path: '/echo', maxPayload: 2 ** 20 })
sockets.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  socket.on('error', () => socket.terminate())
})

server.listen(PORT, () => console.log(`shop: listening on port ${PORT}`))
