// An unmodified Node program: a web server that says what it sees, and talks to itself on demand.
import http from 'node:http'

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://here')
  if (url.pathname === '/exit') {
    response.end('bye')
    response.on('close', () => process.exit(Number(url.searchParams.get('code'))))
    return
  }
  if (url.pathname === '/throw') {
    response.end('oh')
    setTimeout(() => {
      throw new Error('thrown by the program')
    })
    return
  }
  if (url.pathname === '/reject') {
    response.end('no')
    Promise.reject(new Error('rejected by the program'))
    return
  }
  if (url.pathname === '/fetch') {
    const answer = await fetch(url.searchParams.get('url'))
    response.end(`${answer.status} ${await answer.text()}`)
    return
  }
  if (url.pathname === '/upload') {
    let bytes = 0
    for await (const chunk of request) bytes += chunk.length
    response.end(String(bytes))
    return
  }
  if (url.pathname === '/large') {
    response.end(Buffer.alloc(Number(url.searchParams.get('bytes')), 'x'))
    return
  }
  response.setHeader('content-type', 'application/json')
  response.end(
    JSON.stringify({
      argv: process.argv.slice(1),
      env: process.env,
      remote: request.socket.remoteAddress,
      local: request.socket.localAddress,
      main: import.meta.url,
    }),
  )
})
server.listen(80, () => {
  console.log('listening on', JSON.stringify(server.address()))
  console.error('warming up')
})
process.on('exit', (code) => console.log('leaving with', code))
