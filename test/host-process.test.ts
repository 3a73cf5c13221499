import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { type BoardApi, startBoardProgram } from '../host/board-program.ts'
import { createDgram } from '../host/dgram.ts'
import { createNet, type Net } from '../host/net.ts'
import { startNodeProgram } from '../host/node-program.ts'
import { describeExit, type HostedProcess, type ProcessSettings } from '../host/process.ts'
import { wallClock } from '../host/worker/clock.ts'
import type { FakeCard } from './support/fake-card.ts'
import { FakeNetwork } from './support/fake-network.ts'
import { stackOn } from './support/network.ts'
import { readAll, sleep } from './support/sockets.ts'

/** Programs stay as they are written: nothing compiles them. */
const program = (name: string): string => fileURLToPath(new URL(`../../test/programs/${name}`, import.meta.url))

interface Running {
  readonly process: HostedProcess
  readonly lines: string[]
  readonly client: Net
  readonly card: FakeCard
  /** Resolves once the program has printed a line with `text`. */
  printed(text: string): Promise<string>
}

/** A program on a board at 10.0.0.1, and a client's sockets at 10.0.0.2. */
async function run(name: string, settings: Partial<ProcessSettings> = {}): Promise<Running> {
  const network = new FakeNetwork()
  const card = network.addCard(0x0a000001, 32 << 20, true)
  const clientStack = stackOn(network.addCard(0x0a000002))
  const lines: string[] = []
  const waiting: [string, (line: string) => void][] = []
  const output = (line: string, stream: string) => {
    lines.push(stream === 'stderr' ? `! ${line}` : line)
    for (const [text, resolve] of waiting) if (line.includes(text)) resolve(line)
  }
  // An echo on the client's side, for programs that are clients themselves.
  const client = createNet(clientStack)
  const echo = client.createServer((socket) => socket.pipe(socket)).listen(7)
  const udp = createDgram(clientStack).createSocket('udp4')
  udp.on('message', (message, from) => udp.send(message, from.port, from.address))
  udp.bind(7)
  await Promise.all([once(echo, 'listening'), once(udp, 'listening')])
  const process = startNodeProgram(card, {
    name: `test/${name}`,
    program: program(name),
    hosts: { Echo: '10.0.0.2' },
    output,
    ...settings,
  })
  return {
    process,
    lines,
    client,
    card,
    printed(text) {
      const line = lines.find((l) => l.includes(text))
      if (line !== undefined) return Promise.resolve(line)
      return Promise.race([
        new Promise<string>((resolve) => waiting.push([text, resolve])),
        process.exited.then((exit) => Promise.reject(new Error(`${describeExit(name, exit)}\n${lines.join('\n')}`))),
      ])
    },
  }
}

async function get(client: Net, path: string, options: http.RequestOptions = {}): Promise<string> {
  const request = http.request({
    host: '10.0.0.1',
    port: 80,
    path,
    createConnection: client.createConnection as unknown as http.RequestOptions['createConnection'],
    ...options,
  })
  request.end()
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk
  return text
}

test('an unmodified web server serves from its worker', async (t) => {
  const { process, printed, client, lines } = await run('http.mjs', {
    args: ['--fast', 'yes'],
    env: { COLOUR: 'green' },
  })
  t.is(await printed('listening'), 'listening on {"address":"0.0.0.0","family":"IPv4","port":80}')
  const seen = JSON.parse(await get(client, '/'))
  t.deepEqual(seen.argv, [program('http.mjs'), '--fast', 'yes'])
  t.deepEqual(seen.env, { COLOUR: 'green' })
  t.is(seen.remote, '10.0.0.2')
  t.is(seen.local, '10.0.0.1')
  t.true(seen.main.endsWith('test/programs/http.mjs'))
  t.is((await get(client, '/large?bytes=3000000')).length, 3_000_000)
  const agent = Object.assign(new http.Agent({ keepAlive: true, maxSockets: 4 }), {
    createConnection: client.createConnection,
  })
  const answers = await Promise.all(Array.from({ length: 40 }, () => get(client, '/large?bytes=1000', { agent })))
  t.true(answers.every((answer) => answer.length === 1000))
  agent.destroy()
  t.is(await get(client, '/fetch?url=http://127.0.0.1/large?bytes=5'), '200 xxxxx', 'its own requests go into the card')
  t.true(lines.includes('! warming up'))
  t.deepEqual(await process.stop(), { code: 0, error: null })
  t.true(lines.includes('leaving with 143'))
})

test('process.exit, exceptions and rejections end the program alone', async (t) => {
  const cases: [string, number, string | undefined][] = [
    ['/exit?code=7', 7, undefined],
    ['/throw', 1, 'thrown by the program'],
    ['/reject', 1, 'rejected by the program'],
  ]
  for (const [path, code, message] of cases) {
    const { process, printed, client } = await run('http.mjs')
    await printed('listening')
    await get(client, path, { headers: { connection: 'close' } })
    const exit = await process.exited
    t.is(exit.code, code)
    t.is(exit.error?.message, message)
    if (message !== undefined)
      t.regex(
        describeExit('server1/shop', exit),
        /^server1\/shop ended with code 1: Error: (thrown|rejected) by the program\n\s+at .*http\.mjs/,
      )
  }
})

test('a CommonJS program is main, and stops when it is told to', async (t) => {
  const { process, printed, client, lines } = await run('main.cjs', { args: ['a', 'b'] })
  t.is(await printed('main'), 'main true a,b')
  const socket = client.connect(7, '10.0.0.1')
  socket.end('echo')
  t.is(String(await readAll(socket)), 'echo')
  t.deepEqual(await process.stop(), { code: 0, error: null })
  t.deepEqual(lines.slice(1), ['told to stop', 'closed'])
})

test('a program that is done ends by itself', async (t) => {
  const { process, lines } = await run('client.mjs')
  const exit = await process.exited
  t.is(exit.error, null, describeExit('client', exit))
  t.is(exit.code, 0)
  t.deepEqual(lines, [
    'talker: early! true true 1 5000 10.0.0.2',
    'refused: connect ECONNREFUSED 10.0.0.2:9',
    'unknown: getaddrinfo ENOTFOUND no.such.name',
    'pipe: through a pipe',
    'udp: datagram',
    'lookup: [{"address":"10.0.0.2","family":4}]',
    'tls: secret',
    'done: yes',
  ])
})

test('what does not count keeps a program alive while the card is asked for something, as with Node itself', async (t) => {
  const { stdout } = await promisify(execFile)(globalThis.process.execPath, [program('unref.mjs')])
  const { process, lines } = await run('unref.mjs')
  t.deepEqual(await process.exited, { code: 0, error: null }, lines.join('\n'))
  t.is(lines.join('\n'), stdout.trimEnd())
})

test('asynchronous contexts are those of whoever made the socket, as with Node itself', async (t) => {
  const file = program('context.mjs')
  const { stdout } = await promisify(execFile)(globalThis.process.execPath, ['-e', await onHighPorts(file)])
  const { process, lines } = await run('context.mjs')
  t.deepEqual(await process.exited, { code: 0, error: null }, lines.join('\n'))
  t.deepEqual(JSON.parse(lines[0]!), JSON.parse(stdout))
  t.like(JSON.parse(lines[0]!), {
    'first data': 'first',
    'second data': 'second',
    connection: 'server',
    isolated: true,
  })
})

/** The program's text, for a machine on which low ports are not everybody's. */
async function onHighPorts(file: string): Promise<string> {
  const text = await readFile(file, 'utf8')
  return text
    .replaceAll(/\b([79]), /g, '4870$1, ')
    .replaceAll(/^import (.*) from '(.*)'$/gm, "const $1 = require('$2')")
}

test('a program that is not there is said so at once', async (t) => {
  await t.throwsAsync(run('missing.mjs'), {
    message: /^The program of test\/missing\.mjs is not there: .*missing\.mjs$/,
  })
})

test('a program hears that its card has stopped', async (t) => {
  const { process, printed, card } = await run('http.mjs')
  await printed('listening')
  card.stop()
  const exit = await process.exited
  t.is(exit.code, 1)
  t.is(exit.error?.message, 'listen ENETDOWN: network is down 0.0.0.0:80')
})

test('a program that does not listen to the signal is terminated', async (t) => {
  const { process, printed } = await run('stubborn.mjs')
  await printed('up')
  const exit = await process.stop(50)
  t.is(exit.code, 0)
})

test('a board program has a board and nothing else', async (t) => {
  const network = new FakeNetwork()
  const lines: string[] = []
  const settings = { env: { LEVEL: '3' }, args: ['x'], random: () => 0.25, output: (line: string) => lines.push(line) }
  const clock = wallClock()
  const server = startBoardProgram(network.addCard(0x0a000001), clock, {
    ...settings,
    name: 'server1/echo',
    program: {
      main(board: BoardApi) {
        board.net
          .createServer((socket) => socket.pipe(socket))
          .listen(7, () => board.console.log('up %d', board.random()))
      },
    },
  })
  const client = startBoardProgram(network.addCard(0x0a000002), clock, {
    ...settings,
    name: 'client1/caller',
    hosts: { Server: '10.0.0.1' },
    program: {
      async main(board: BoardApi) {
        await board.clock.sleep(5)
        const before = board.clock.now()
        const socket = board.net.connect(7, 'server')
        socket.end(`hello from ${board.name} ${board.env.LEVEL} ${board.args[0]}`)
        board.console.log(String(await readAll(socket)))
        let ticks = 0
        const interval = board.clock.setInterval(() => {
          if (++ticks < 3) return
          board.clock.clear(interval)
          board.console.log(board.clock.now() > before ? 'later' : 'never')
          board.exit(4)
        }, 1)
      },
    },
  })
  t.deepEqual(await client.exited, { code: 4, error: null })
  t.deepEqual(lines, ['up 0.25', 'hello from client1/caller 3 x', 'later'])
  t.deepEqual(await server.stop(), { code: 0, error: null })
})

test('a board program that throws ends alone', async (t) => {
  const network = new FakeNetwork()
  const start = (main: (board: BoardApi) => unknown) =>
    startBoardProgram(network.addCard(0x0a000001 + network.cards.length), wallClock(), {
      name: 'b',
      random: Math.random,
      program: { main },
    })
  const bystander = start((board) => board.net.createServer((socket) => socket.pipe(socket)).listen(7))
  const exits = await Promise.all(
    [
      start(() => {
        throw new Error('in main')
      }),
      start(async () => Promise.reject(new Error('in a promise of main'))),
      start((board) => {
        board.clock.setTimeout(() => {
          throw new Error('in a timer')
        }, 1)
      }),
      start((board) => {
        board.net.connect(7, '10.0.0.1', () => {
          throw new Error('in a handler')
        })
      }),
      start((board) => {
        board.signal.addEventListener('abort', () => {})
        board.clock.setTimeout(() => board.exit(), 1)
      }),
    ].map((p) => p.exited),
  )
  t.deepEqual(
    exits.map((exit) => [exit.code, exit.error?.message]),
    [
      [1, 'in main'],
      [1, 'in a promise of main'],
      [1, 'in a timer'],
      [1, 'in a handler'],
      [0, undefined],
    ],
  )
  const client = createNet(stackOn(network.addCard(0x0a0000ff)))
  const socket = client.connect(7, '10.0.0.1')
  socket.end('still there')
  t.is(String(await readAll(socket)), 'still there')
  await bystander.stop()
})

test('a board program from a file', async (t) => {
  const network = new FakeNetwork()
  const lines: string[] = []
  const process = startBoardProgram(network.addCard(0x0a000001), wallClock(), {
    name: 'b',
    random: () => 0,
    program: program('board.mjs'),
    output: (line) => lines.push(line),
  })
  t.deepEqual(await process.exited, { code: 0, error: null })
  t.deepEqual(lines, ['board program b, 0 connections'])
  const broken = startBoardProgram(network.addCard(0x0a000002), wallClock(), {
    name: 'c',
    random: () => 0,
    program: program('main.cjs'),
  })
  t.regex((await broken.exited).error!.message, /^The board program of c exports no function main\(board\)/)
})

// Serial, so before all others and alone.
test.serial('an idle worker costs nothing', async (t) => {
  const { process, printed } = await run('http.mjs')
  await printed('listening')
  await sleep(300)
  const before = globalThis.process.cpuUsage()
  await sleep(1000)
  const { user, system } = globalThis.process.cpuUsage(before)
  t.true(user + system < 20_000, `${(user + system) / 1000} ms of processor in a second`)
  await process.stop()
})
