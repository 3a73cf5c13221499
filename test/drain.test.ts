import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { inic, type RunningCommand, startInic } from './support/cli.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

/** `inic drain`, with a farm of two servers and real clients. */

const PROGRAM = `
import http from 'node:http'
import net from 'node:net'
const name = process.env.INIC_SERVER
http.createServer((request, response) => {
  const delay = request.url === '/slow' ? 3000 : 0
  setTimeout(() => response.end(name), delay)
}).listen(80, () => console.log('listening'))
// A protocol of its own: it counts the lines of a conversation, and takes the count along.
const counter = net.createServer((socket) => count(socket, 0))
function count(socket, lines) {
  socket.on('data', (data) => {
    lines += String(data).split('\\n').length - 1
    socket.write(name + ' ' + lines + '\\n')
  })
  socket.on('error', () => {})
  socket.count = () => lines
}
if (process.env.HANDS_OVER) counter.on('drain', (socket, to) => socket.migrate(to, socket.count()).catch(() => {}))
counter.on('migrate', count)
counter.listen(81)
`

interface Running {
  readonly farm: RunningCommand
  readonly selection: string[]
  /** Local ports of servers' 80 and 81. */
  readonly web: number
  readonly counter: number
  drain(...args: string[]): ReturnType<typeof inic>
}

async function start(t: ExecutionContext, { hub = true, handsOver = true } = {}): Promise<Running> {
  const directory = await temporaryDirectory()
  await writeFile(join(directory, 'server.mjs'), PROGRAM)
  const file = join(directory, 'farm.json')
  const server = (name: string, address: string) => ({
    name,
    interfaces: [{ network: 'lan-a', address }, ...(hub ? [{ network: 'sync' }] : [])],
    applications: [{ name: 'web', program: 'server.mjs', env: handsOver ? { HANDS_OVER: '1' } : {} }],
  })
  await writeFile(
    file,
    JSON.stringify({
      networks: [{ name: 'lan-a' }, ...(hub ? [{ name: 'sync', kind: 'hub' }] : [])],
      ...(hub && { placement: { policy: 'local-first', localLimit: '100%' } }),
      servers: [server('server1', '10.0.0.1/24'), server('server2', '10.0.0.3/24')],
      publish: ['0:server1:80', '0:server1:81'],
    }),
  )
  const farm = startInic(t, ['run', file])
  await farm.until(/server1\/web \| listening/)
  await farm.until(/server2\/web \| listening/)
  const [, web] = await farm.until(/http:\/\/127\.0\.0\.1:(\d+) → server1:80/)
  const [, counter] = await farm.until(/http:\/\/127\.0\.0\.1:(\d+) → server1:81/)
  const selection = ['--farm', file]
  return {
    farm,
    selection,
    web: Number(web),
    counter: Number(counter),
    drain: (...args) => inic(['drain', ...args, ...selection]),
  }
}

function get(port: number, agent: http.Agent, path = '/'): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ port, path, agent, host: '127.0.0.1' }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve(text)).on('error', reject)
    })
    request.on('error', reject)
  })
}

/** A conversation with the counter. */
async function talk(port: number): Promise<{ say(): Promise<string>; close(): void }> {
  const socket = connect(port, '127.0.0.1').setEncoding('utf8')
  return {
    say: () =>
      new Promise((resolve, reject) => {
        socket.once('data', (line) => resolve(String(line).trim()))
        socket.once('close', () => reject(new Error('closed')))
        socket.write('line\n')
      }),
    close: () => socket.destroy(),
  }
}

test.serial('a server under load is emptied without an error, and takes connections again', async (t) => {
  const { web, counter, drain, farm, selection } = await start(t)
  const agent = new http.Agent({ keepAlive: true, maxSockets: 16 })
  let stop = false
  const served: Record<string, number> = { server1: 0, server2: 0 }
  const clients = Array.from({ length: 16 }, async () => {
    while (!stop) served[await get(web, agent)]!++
  })
  const conversation = await talk(counter)
  t.is(await conversation.say(), 'server1 1')
  const slow = get(web, new http.Agent({ keepAlive: true }), '/slow')
  await new Promise((resolve) => setTimeout(resolve, 1000))

  const drained = await drain('server1', '--to', 'server2', '--timeout', '20s')
  t.is(drained.code, 0, drained.stderr)
  t.regex(drained.stdout, /^server1: \d+ connections moved, 0 left$/m)
  t.regex(drained.stderr, /takes nothing new until: inic drain server1 --undo/)
  t.is(await slow, 'server1', 'a response that was due is given here first')
  t.is(await conversation.say(), 'server2 2')
  const before = served.server1
  await new Promise((resolve) => setTimeout(resolve, 1000))
  t.is(served.server1, before)
  t.is(await get(web, new http.Agent()), 'server2', 'nothing new is placed there')
  const status = JSON.parse((await drain('server1', '--to', 'server2', '--json')).stdout)
  t.like(status, { server: 'server1', draining: true, to: 'server2', left: 0 })
  t.true(status.moved >= 18)
  t.like(status.processes[0], { name: 'server1/web', left: 0 })

  const undone = await drain('server1', '--undo')
  t.is(undone.code, 0, undone.stderr)
  t.is(undone.stdout, 'server1 takes connections again\n')
  t.is(await get(web, new http.Agent()), 'server1')
  const back = await drain('server2', '--json')
  t.is(back.code, 0, back.stderr)
  t.is(await conversation.say(), 'server1 3')

  stop = true
  await Promise.all(clients)
  conversation.close()
  t.is((await drain('server9')).code, 2)
  t.regex((await drain('server9')).stderr, /no server 'server9'\s+did you mean 'server1'\?/)
  t.regex((await drain('server1', '--to', 'server1')).stderr, /server1 cannot be drained to itself/)
  t.regex((await drain('server1', '--to', 'server3')).stderr, /cannot move to 'server3'\s+did you mean 'server2'\?/)
  const tables = JSON.parse((await inic(['inspect', 'tables', '--json', ...selection])).stdout)
  t.is(tables[0].server, 'server1')
  t.is((await farm.interrupt()).code, 0)
})

test.serial('what its application does not hand over is left when the time is over', async (t) => {
  const { counter, drain } = await start(t, { handsOver: false })
  const conversation = await talk(counter)
  t.is(await conversation.say(), 'server1 1')
  const result = await drain('server1', '--timeout', '300ms', '--json')
  t.is(result.code, 1)
  t.like(JSON.parse(result.stdout), { draining: true, moved: 0, left: 1 })
  t.regex(
    result.stderr,
    /server1: 1 connection left when the time was over\s+it goes on; inic drain server1 waits again/,
  )
  t.is(await conversation.say(), 'server1 2', 'it goes on where it is')
  conversation.close()
  t.is((await drain('server1', '--timeout', '5s')).code, 0)
})

test.serial('a server without a hub has nowhere to go', async (t) => {
  const { drain } = await start(t, { hub: false })
  const result = await drain('server1')
  t.is(result.code, 2)
  t.regex(result.stderr, /server1 is alone.*\s+servers hand connections over by a synchronization hub/)
})
