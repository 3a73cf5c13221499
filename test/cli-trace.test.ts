/** `inic trace`: the trace rings of a running farm. */
import { EventEmitter } from 'node:events'
import { writeFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { TRACE_ENTRIES } from '../abi/registers.ts'
import type { Board } from '../emulator/board.ts'
import type { TraceEntry, TracePiece } from '../emulator/devices/trace.ts'
import { type TraceLine, traceToSocket } from '../toolchain/farm/traces.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { inic, startInic } from './support/cli.ts'
import { FarmKit } from './support/farm-kit.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const SHOP = join(packageRoot, 'examples/shop/server.mjs')

/** The part of a connection that traces use. */
class FakeSocket extends EventEmitter {
  writableNeedDrain = false
  ended = false
  readonly lines: TraceLine[] = []

  write(text: string): boolean {
    for (const line of text.trimEnd().split('\n')) this.lines.push(JSON.parse(line) as TraceLine)
    return true
  }

  end(): void {
    this.ended = true
  }
}

const follow = (boards: readonly Pick<Board, 'name' | 'traceFrom'>[], socket: FakeSocket) =>
  traceToSocket(boards as Board[], socket as unknown as Socket)

/** A ring that somebody else fills. */
function ring(name: string): { name: string; traceFrom(from: number): TracePiece; add(text: string): void } {
  const all: TraceEntry[] = []
  return {
    name,
    add: (text) => all.push({ timeNs: all.length, event: 2, a: 0, b: 0, c: 0, text }),
    traceFrom(from) {
      const oldest = Math.max(0, all.length - 4)
      return { entries: all.slice(Math.max(from, oldest)), head: all.length, lost: Math.max(0, oldest - from) }
    },
  }
}

test('entries come once and in order, from when one began to look; those that were overwritten are counted', async (t) => {
  const [one, two] = [ring('server1'), ring('server2')]
  one.add('before')
  const socket = new FakeSocket()
  const end = follow([one, two], socket)
  one.add('a')
  two.add('b')
  await sleep(30)
  for (let n = 0; n < 10; n++) one.add(`c${n}`)
  await sleep(30)
  end()
  t.deepEqual(
    socket.lines.map((line) => ('lost' in line ? `${line.server} lost ${line.lost}` : `${line.server} ${line.text}`)),
    ['server1 a', 'server2 b', 'server1 lost 6', 'server1 c6', 'server1 c7', 'server1 c8', 'server1 c9'],
  )
  t.true(socket.ended)
  one.add('after')
  await sleep(20)
  t.is(socket.lines.length, 7)
})

test('whoever reads too slowly loses entries and is told how many; nothing piles up', async (t) => {
  const one = ring('server1')
  const socket = new FakeSocket()
  const end = follow([one], socket)
  t.teardown(end)
  socket.writableNeedDrain = true
  for (let n = 0; n < 100; n++) one.add(String(n))
  await sleep(30)
  t.deepEqual(socket.lines, [])
  socket.writableNeedDrain = false
  await sleep(30)
  t.deepEqual(socket.lines[0], { server: 'server1', lost: 96 })
  t.is(socket.lines.length, 5)
})

test("a board's ring: what is older than the ring is lost, and counted", async (t) => {
  const kit = new FarmKit({ servers: 1, clients: 1 })
  const { board } = kit.server(1)
  const listener = kit.server(1).net.createServer((socket) => socket.end('traced'))
  listener.listen(80)
  const before = board.traceFrom(0).head
  const ringEntries = board.memory!.register(TRACE_ENTRIES)
  await kit.settle()
  // A connection leaves a handful of entries.
  const filled = () => board.traceFrom(before).head - before > ringEntries + 100
  for (let n = 0; n < 100 && !filled(); n++) {
    for (let connections = 0; connections < 50; connections++) {
      kit.client().net.connect(80, kit.server(1).address).resume().end('x')
    }
    await kit.run(50)
  }
  const { entries, head, lost } = board.traceFrom(before)
  t.is(entries.length + lost, head - before)
  t.is(entries.length, ringEntries)
  t.true(lost >= 100)
  await kit.close()
})

test.serial(
  'inic trace follows a running farm, filtered or as JSON; a server that is not there is refused',
  async (t) => {
    const directory = await temporaryDirectory()
    const file = join(directory, 'farm.json')
    const application = `{ "name": "shop", "program": ${JSON.stringify(SHOP)}, "env": { "PORT": "80" } }`
    await writeFile(
      file,
      `{ "networks": [{ "name": "lan-a" }], "publish": ["0:server1:80"], "servers": [{ "name": "server1",
       "interfaces": [{ "network": "lan-a", "address": "10.0.0.1/24" }], "applications": [${application}] }] }`,
    )
    const farm = startInic(t, ['run', file])
    await farm.until(/shop: listening on port 80/)
    const [, url] = await farm.until(/(http:\/\/127\.0\.0\.1:\d+) → server1:80/)

    const refused = await inic(['trace', 'server9', '--farm', file])
    t.is(refused.code, 2)
    t.regex(refused.stderr, /there is no server 'server9'\n {2}there are: server1/)
    t.is(refused.stdout, '')

    const all = startInic(t, ['trace', 'server1', '--farm', file])
    const states = startInic(t, ['trace', '--grep', 'ESTABLISHED', '--farm', file])
    const json = startInic(t, ['trace', '--json', '--farm', file])
    for (const command of [all, states]) await command.until(/tracing; Ctrl-C ends it/)
    await sleep(1000) // --json says nothing when it begins
    t.is((await fetch(url, { headers: { connection: 'close' } })).status, 200)
    await all.until(/^ +\d+\.\d{6} {2}server1 {2}.*SYN-RECEIVED/m)
    await states.until(/server1 {2}.*ESTABLISHED/)
    await json.until(/"text":".*ESTABLISHED.*\n/)
    for (const command of [all, states, json]) t.is((await command.interrupt()).code, 0)
    for (const line of states.result().stdout.trim().split('\n')) t.regex(line, /ESTABLISHED/)
    for (const line of json.result().stdout.trim().split('\n')) {
      const { server, timeNs, event, text } = JSON.parse(line)
      t.deepEqual([server, typeof timeNs, typeof event, typeof text], ['server1', 'number', 'number', 'string'])
    }

    // The farm goes, and its traces end.
    const last = startInic(t, ['trace', '--farm', file])
    await last.until(/tracing/)
    t.is((await farm.interrupt()).code, 0)
    t.is((await last.ended).code, 0)
  },
)

test('no farm to trace', async (t) => {
  const { code, stderr } = await inic(['trace', '--state', '/nonexistent'])
  t.is(code, 3)
  t.regex(stderr, /no farm is running/)
})
