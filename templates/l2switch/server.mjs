/** An ordinary Node program, on the server on lan-a. */
import { createServer } from 'node:http'

let count = 0
createServer((_request, response) => response.end(`answer ${++count}`)).listen(80)
