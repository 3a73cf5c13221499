import { once } from 'node:events'
import http from 'node:http'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { WebSocket } from 'ws'
import { createNet, type Net } from '../host/net.ts'
import { startNodeProgram } from '../host/node-program.ts'
import { describeExit, type HostedProcess } from '../host/process.ts'
import { type Boards, boards, processOn } from './support/network.ts'
import { pattern } from './support/sockets.ts'

/** Servers from npm as they are, each in a worker on an emulated board, spoken to from another board through both cards. */

interface World {
  readonly boards: Boards
  /** A client's sockets on the other board. */
  readonly client: Net
  readonly lines: string[]
  /** Starts test/programs/NAME.mjs; resolves once it has printed `ready`, or has ended. */
  start(name: string, where: 'server' | 'client'): Promise<HostedProcess>
  get(path: string, options?: http.RequestOptions, body?: string): Promise<string>
}

function world(): World {
  const both = boards()
  const client = createNet(processOn(both.client))
  const lines: string[] = []
  return {
    boards: both,
    client,
    lines,
    async start(name, where) {
      const { bus, set } = both[where].attachProcess({ ramBytes: 32 << 20, shared: true })
      let ready = () => {}
      const isReady = new Promise<void>((resolve) => {
        ready = resolve
      })
      const process = startNodeProgram(bus, {
        name,
        program: fileURLToPath(new URL(`../../test/programs/${name}.mjs`, import.meta.url)),
        hosts: { mailhost: '10.0.0.1' },
        output(line, stream) {
          if (stream === 'stdout') lines.push(line)
          if (line === 'ready') ready()
        },
      })
      void process.exited.then(() => both[where].detachProcess(set))
      await Promise.race([isReady, process.exited])
      return process
    },
    async get(path, options = {}, body = '') {
      const request = http.request({
        host: '10.0.0.1',
        path,
        createConnection: client.createConnection as unknown as NonNullable<http.RequestOptions['createConnection']>,
        ...options,
      })
      request.end(body)
      const [response] = (await once(request, 'response')) as [http.IncomingMessage]
      let text = ''
      for await (const chunk of response.setEncoding('utf8')) text += chunk
      return `${response.statusCode} ${text}`
    },
  }
}

function programTest(name: string, run: (t: ExecutionContext, w: World) => Promise<void>): void {
  test.serial(name, async (t) => {
    const w = world()
    try {
      await run(t, w)
    } finally {
      await w.boards.close()
    }
  })
}

programTest('a ws server', async (t, { start, client }) => {
  const server = await start('ws', 'server')
  const socket = new WebSocket('ws://10.0.0.1/', {
    createConnection: client.createConnection,
  } as unknown as ConstructorParameters<typeof WebSocket>[2])
  await once(socket, 'open')
  for (const size of [0, 125, 65536, 500_000]) {
    const bytes = pattern(size)
    socket.send(bytes)
    const [data] = (await once(socket, 'message')) as [Buffer]
    t.true(data.equals(bytes), `${size} bytes`)
  }
  const over = once(socket, 'close')
  socket.close(1000)
  t.is((await over)[0], 1000)
  t.deepEqual(await server.stop(), { code: 0, error: null })
})

programTest('an Express application', async (t, { start, get }) => {
  const server = await start('express', 'server')
  t.is(await get('/hello/you'), '200 {"hello":"you","ip":"10.0.0.2"}')
  t.is(await get('/sum', { method: 'POST', headers: { 'content-type': 'application/json' } }, '[1,2,39]'), '200 42')
  t.regex(await get('/nothing'), /^404 /)
  t.deepEqual(await server.stop(), { code: 0, error: null })
})

programTest('a Fastify application', async (t, { start, get }) => {
  const server = await start('fastify', 'server')
  t.is(await get('/where'), '200 {"ip":"10.0.0.2","host":"10.0.0.1"}')
  t.deepEqual(await server.stop(), { code: 0, error: null })
})

programTest('an SMTP server, which speaks first, and a client that starts TLS', async (t, { start, lines }) => {
  const server = await start('smtp', 'server')
  const client = await start('mail', 'client')
  const exit = await client.exited
  t.is(exit.code, 0, describeExit('mail', exit))
  t.deepEqual(lines, ['ready', 'from a@example.test: through two cards, secure', '250 OK: message queued'])
  t.deepEqual(await server.stop(), { code: 0, error: null })
})
