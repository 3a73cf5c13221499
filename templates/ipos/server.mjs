/** An ordinary Node program: its sockets are the card's. */
import { createServer } from 'node:http'

createServer((request, response) => {
  response.end(`Hello, ${request.socket.remoteAddress}. Your request came through {{name}}.\n`)
}).listen(80)
