import type { Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import {
  CONSTANTS_BASE,
  DIRECTORY_BASE,
  DIRECTORY_COUNT,
  DIRECTORY_ENTRIES,
  DIRECTORY_ENTRY_BYTES,
  DIRECTORY_MAGIC,
  DIRECTORY_TCBS,
} from '../abi/memory.ts'
import { InicMemoryReader } from '../toolchain/inspect/inic-memory.ts'
import { readPools } from '../toolchain/inspect/memory.ts'
import { type Cell, type Table, tableObjects } from '../toolchain/inspect/table.ts'
import { readTables } from '../toolchain/inspect/tables.ts'
import { bootCard, frames, projectFirmware } from '../toolchain/testing/index.ts'
import { FarmKit, type FarmKitOptions, type Node } from './support/farm-kit.ts'
import { linkedProject } from './support/project.ts'

/** `inic inspect tables` over a farm in virtual time. The command itself, JSON included, is in run.test.ts. */

/** FIG. 12: columns of the drawing, units left out. */
const DRAWING: Readonly<Record<string, readonly string[]>> = {
  Forward: ['source IP', 'source TCP port', 'destination IP', 'destination TCP port'],
  Local: ['source IP', 'source port', 'destination IP', 'destination port', 'endpoint reference'],
  'Forward-Connect': ['source IP', 'source port', 'destination IP', 'destination port', 'endpoint reference'],
  Temporary: ['source IP', 'source port', 'destination IP', 'destination port', 'endpoint reference'],
  'Server State': [
    'server IP',
    'established TCP connections',
    'main-board CPU utilization',
    'available memory',
    'available bandwidth',
  ],
  'Listening Sockets': ['server IP', 'TCP port', 'process'],
  'Application Information': ['process ID', 'process memory requirement', 'process CPU utilization'],
  'URL Map': ['URL', 'server IP'],
  'Cookie Map': ['cookie ID', 'server IP'],
}

function farmTest(
  name: string,
  run: (t: ExecutionContext, kit: FarmKit) => Promise<void>,
  options: FarmKitOptions = {},
): void {
  test(name, async (t) => {
    const kit = new FarmKit(options)
    try {
      await kit.settle()
      await run(t, kit)
    } finally {
      await kit.close()
    }
  })
}

function table(node: Node, title: string, limit?: number): Table {
  const found = readTables(node.memory(), limit).find((candidate) => candidate.title === title)
  if (found === undefined) throw new Error(`no table ${title}`)
  return found
}

function rows(node: Node, title: string): Record<string, Cell>[] {
  return tableObjects(table(node, title))
}

/** An application on one server, which answers; the client's connection to another one. */
async function forwarded(kit: FarmKit): Promise<Socket> {
  const server = kit.server(2).net.createServer((socket) => socket.pipe(socket))
  server.listen(80)
  await kit.settle()
  const socket = kit.client().net.connect(80, kit.server(1).address)
  await kit.until(() => socket.readyState === 'open')
  return socket
}

farmTest("the drawing's tables, in its order, with its columns first", async (t, kit) => {
  const tables = readTables(kit.server(1).memory())
  t.deepEqual(
    tables.map(({ title }) => title),
    Object.keys(DRAWING),
  )
  for (const { title, columns } of tables) {
    const names = columns.map((column) => column.replace(/ \(.*\)$/, ''))
    t.deepEqual(names.slice(0, DRAWING[title].length), DRAWING[title])
  }
})

farmTest('tables that nobody keeps yet say so', async (t, kit) => {
  const tables = readTables(kit.server(1).memory())
  t.deepEqual(
    tables.filter(({ remark }) => remark !== undefined).map(({ title }) => title),
    ['URL Map', 'Cookie Map'],
  )
  t.is(table(kit.server(1), 'URL Map').remark, 'not yet kept by this firmware')
})

farmTest('without layouts there are no tables, rather than empty ones', async (t, kit) => {
  const { bytes } = kit.server(1).board.memory!
  const memory = new InicMemoryReader(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), undefined)
  t.deepEqual(readTables(memory), [])
})

farmTest('Server State: this server and the others, what they say, and whether they are heard', async (t, kit) => {
  const [one, two] = [kit.server(1), kit.server(2)]
  two.stack.driver.reportBoard({
    cpuPermille: 375,
    memoryAvailableKib: 1000,
    memoryTotalKib: 4000,
    bandwidthAvailableKbit: 0,
    bandwidthTotalKbit: 0,
  })
  two.stack.driver.drain(true)
  await kit.run(1000)
  const [self, second, third] = rows(one, 'Server State')
  t.like(self, { 'server IP': '192.0.2.1', state: 'this server', 'heard (ms ago)': null })
  t.like(second, {
    'server IP': '192.0.2.2',
    'established TCP connections': 0,
    'main-board CPU utilization (%)': 37.5,
    'available memory (KiB)': 1000,
    'available bandwidth (kbit/s)': null,
    'memory (KiB)': 4000,
    state: 'up, draining',
  })
  t.like(third, { 'server IP': '192.0.2.3', state: 'up' })
  t.true(Number(third['heard (ms ago)']) < 1000)
  kit.server(3).board.powerOff()
  await kit.run(10_000)
  t.is(rows(one, 'Server State')[2].state, 'silent')
})

farmTest('Temporary, then Forward there and Forward-Connect here', async (t, kit) => {
  const [one, two] = [kit.server(1), kit.server(2)]
  const socket = await forwarded(kit)
  const key = { 'source IP': kit.client().address, 'source port': socket.localPort }
  const endpoint = { ...key, 'destination IP': '192.0.2.1', 'destination port': 80, state: 'ESTABLISHED' }
  t.like(rows(one, 'Temporary'), [{ ...endpoint, attached: 'no', move: null }])
  t.is(table(one, 'Forward').total, 0)

  socket.write('request')
  t.true(await kit.until(() => socket.bytesRead === 7))
  t.is(table(one, 'Temporary').total, 0)
  t.is(table(one, 'Local').total, 0)
  const [row] = rows(one, 'Forward')
  t.like(row, {
    'source IP': key['source IP'],
    'source TCP port': key['source port'],
    'destination IP': '192.0.2.2',
    protocol: 'tcp',
    'server IP': '192.0.2.1',
    'server port': 80,
    what: 'forwarded',
    moves: 1,
  })
  t.like(rows(two, 'Forward-Connect'), [
    { ...endpoint, attached: 'yes', 'entry INIC': '192.0.2.1', 'thread port': row['destination TCP port'] },
  ])
  t.is(table(two, 'Local').total, 0)
  t.is(rows(two, 'Server State')[0]['established TCP connections'], 1)

  // The endpoint reference is the handle by which the host knows it.
  const reference = Number(rows(two, 'Forward-Connect')[0]['endpoint reference'])
  t.true(two.rows(DIRECTORY_TCBS).some((tcb) => tcb.number('handle') === reference))
  socket.destroy()
})

farmTest('Local: an endpoint whose application is here', async (t, kit) => {
  const server = kit.server(1).net.createServer((socket) => socket.pipe(socket))
  server.listen(80)
  await kit.settle()
  const socket = kit.client().net.connect(80, kit.server(1).address)
  socket.write('request')
  t.true(await kit.until(() => socket.bytesRead === 7))
  t.like(rows(kit.server(1), 'Local'), [{ 'source port': socket.localPort, attached: 'yes', move: null }])
  t.like(rows(kit.server(1), 'Listening Sockets'), [{ 'server IP': '0.0.0.0', 'TCP port': 80 }])
  socket.destroy()
})

farmTest('UDP: a conversation is in the Forward table there and in Forward-Connect here', async (t, kit) => {
  const [one, two] = [kit.server(1), kit.server(2)]
  const echo = two.dgram.createSocket('udp4')
  echo.on('message', (message, { address, port }) => echo.send(message, port, address))
  echo.bind(53)
  const client = kit.client().dgram.createSocket('udp4')
  client.bind(5300)
  await kit.settle()
  let answers = 0
  client.on('message', () => answers++)
  client.send('question', 53, one.address)
  t.true(await kit.until(() => answers === 1))
  const [row] = rows(one, 'Forward')
  t.like(row, { 'source TCP port': 5300, 'destination IP': '192.0.2.2', protocol: 'udp', 'server port': 53 })
  t.like(rows(two, 'Forward-Connect'), [
    { 'source port': 5300, 'destination port': 53, state: 'UDP', 'thread port': row['destination TCP port'] },
  ])
})

farmTest('Application Information: what processes say of themselves', async (t, kit) => {
  kit.server(1).stack.driver.reportProcess({ processId: 4711, memoryKib: 2048, cpuPermille: 125 })
  await kit.run(10)
  t.deepEqual(rows(kit.server(1), 'Application Information'), [
    {
      'process ID': 4711,
      'process memory requirement (KiB)': 2048,
      'process CPU utilization (%)': 12.5,
      'queue set': 0,
    },
  ])
})

farmTest('rows beyond the limit are counted and not shown', async (t, kit) => {
  const socket = await forwarded(kit)
  const more = Array.from({ length: 4 }, () => kit.client().net.connect(80, kit.server(1).address))
  t.true(await kit.until(() => more.every(({ readyState }) => readyState === 'open')))
  for (const limit of [0, 2, 5]) {
    const { total, rows: shown } = table(kit.server(1), 'Temporary', limit)
    t.is(total, 5)
    t.is(shown.length, limit)
  }
  t.is(table(kit.server(1), 'Server State', 1).rows.length, 1)
  for (const each of [socket, ...more]) each.destroy()
})

farmTest('inspect memory names the pools of the ipOS layer, and says how much of them is used', async (t, kit) => {
  const socket = await forwarded(kit)
  socket.write('request')
  await kit.until(() => socket.bytesRead === 7)
  const pools = tableObjects(readPools(kit.server(1).memory()))
  t.like(
    pools.find(({ what }) => what === 'forwarded connections'),
    { used: 1 },
  )
  t.deepEqual(
    pools.filter(({ what }) => String(what).startsWith('kind ')),
    [],
  )
  socket.destroy()
})

test("firmware of one's own: tables by the names of their classes, addresses as addresses, free rows left out", async (t) => {
  t.timeout(300_000)
  const card = bootCard({ firmware: await projectFirmware({ directory: await linkedProject('l2switch') }) })
  const frame = frames.ethernet({
    destinationMac: frames.BROADCAST_MAC,
    sourceMac: '02:00:00:00:00:0a',
    type: 0x88b5,
    payload: frames.bytes(46),
  })
  card.port(1).inject(frame)
  await card.port(2).expectFrame({})
  const tables = readTables(card.memory())
  t.deepEqual(
    tables.map(({ title, total }) => [title, total]),
    [
      ['Station', 1],
      ['State', 1],
      ['Counters', 1],
    ],
  )
  t.deepEqual(tableObjects(tables[0]), [{ mac: '02:00:00:00:00:0a', seenMs: 0, port: 1 }])
  t.like(tableObjects(tables[2])[0], { framesIn: 1, flooded: 1 })
  await card.close()
})

test('a directory that names nonsense is shown as far as it can be', (t) => {
  const memory = new DataView(new ArrayBuffer(0x40000))
  const entries: Readonly<Record<string, number>> = {
    'kind 99': 99,
    // No name there, a name longer than the region, one at an odd address, one outside of the constants.
    'kind 73744': CONSTANTS_BASE + 16,
    'kind 73984': CONSTANTS_BASE + 256,
    'kind 73777': CONSTANTS_BASE + 49,
    'kind 4294967295': 0xffffffff,
  }
  memory.setUint32(CONSTANTS_BASE + 252, 0x7fffffff, true)
  memory.setUint32(DIRECTORY_BASE, DIRECTORY_MAGIC, true)
  memory.setUint32(DIRECTORY_BASE + DIRECTORY_COUNT, Object.keys(entries).length, true)
  Object.values(entries).forEach((kind, index) => {
    const at = DIRECTORY_BASE + DIRECTORY_ENTRIES + index * DIRECTORY_ENTRY_BYTES
    for (const [field, value] of [kind, 0x30000, 16, 4].entries()) memory.setUint32(at + field * 4, value, true)
  })
  const reader = new InicMemoryReader(memory, { format: 2, classes: [], constants: {} })
  t.deepEqual(
    reader.entries.map(({ name }) => name),
    Object.keys(entries),
  )
  t.notThrows(() => readTables(reader))
})
