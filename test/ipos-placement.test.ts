import test from 'ava'
import {
  PLACEMENT_LEAST_LOADED,
  PLACEMENT_LOCAL_FIRST,
  PLACEMENT_LOCAL_ONLY,
  PLACEMENT_ROUND_ROBIN,
} from '../abi/boot.ts'
import {
  COMMITTED_FLAG_COMPLETE,
  COMMITTED_FLAGS,
  IPOS_TCP,
  IPOS_UDP,
  SERVICE_FLAG_TAKES_OVER,
  STATE_FLAG_DRAINING,
} from '../abi/ipos.ts'
import * as M from '../abi/messages.ts'
import { type Captured, command } from './support/bare-card.ts'
import { FarmCard, type FarmSettings, HUB_MAC, HUB_PORT, INTERVAL_MS, LEASE_MS } from './support/farm-card.ts'
import { between, CARD, greet, PEER } from './support/lan.ts'
import {
  bytes,
  type IposFields,
  type IposPacket,
  iposFrame,
  parse,
  resealIpos,
  tcpFrame,
  viewOf,
} from './support/packets.ts'

/** Who is chosen is told by row, which is the place in the farm: 0 is the card, 1 and 2 are its peers. */
const NOBODY = -1
const HTTP = { port: 80, protocol: IPOS_TCP, flags: M.FIRST_SPEAKER_CLIENT }
const SERVES = { services: [HTTP] }

interface Question {
  port?: number
  protocol?: number
  localServes?: boolean
  needsTakeOver?: boolean
  /** Rows that were tried. */
  excluded?: number[]
}

function choose(card: FarmCard, question: Question = {}): number {
  const { port = 80, protocol = IPOS_TCP, localServes = true, needsTakeOver = false, excluded = [] } = question
  const bits = excluded.reduce((all, row) => all | (1 << row), 0)
  return card.call('choose', port, protocol, localServes ? 1 : 0, needsTakeOver ? 1 : 0, bits)
}

function sequence(card: FarmCard, count: number, question?: Question): string {
  return Array.from({ length: count }, () => choose(card, question)).join(' ')
}

/** How often each row of the first `rows` is chosen in `count` placements. */
function tally(card: FarmCard, count: number, rows = 3, question?: Question): number[] {
  const counts = Array<number>(rows).fill(0)
  for (let n = 0; n < count; n++) counts[choose(card, question)]!++
  return counts
}

/** What the card's own main board says; per mille of CPU, and what else is named. */
function board(card: FarmCard, cpu: number, { memory = [0, 0], bandwidth = [0, 0], connections = 0 } = {}): void {
  const fields = [cpu, ...memory, ...bandwidth, connections]
  card.command(0, command({ op: M.OP_BOARD_STATE, fields }))
  card.run()
}

/** A card and peers that serve port 80, with the CPU loads given, the card's first. */
async function loaded(cpus: number[], settings: FarmSettings = {}): Promise<FarmCard> {
  const card = await FarmCard.settled({ count: cpus.length - 1, ...settings }, SERVES)
  board(card, cpus[0]!)
  for (const peer of card.hub) peer.say({ ...SERVES, cpu: cpus[peer.row]! })
  return card
}

// ── policies ──

test('round-robin: exact, in the order of the farm', async (t) => {
  const card = await loaded([0, 0, 0], { placement: PLACEMENT_ROUND_ROBIN })
  t.is(sequence(card, 9), '0 1 2 0 1 2 0 1 2')
  t.deepEqual(tally(card, 999), [333, 333, 333])
})

test('round-robin: places in the farm count, not rows', async (t) => {
  const peers = [5, 2].map((index, n) => {
    const row = n + 1
    return { mac: `02:00:00:00:01:0${row}`, index, addresses: [`192.0.2.${101 + row}`] }
  })
  const card = await loaded([0, 0, 0], { placement: PLACEMENT_ROUND_ROBIN, serverIndex: 3, peers })
  // Row 2 has place 2, the card place 3, row 1 place 5.
  t.is(sequence(card, 6), '2 0 1 2 0 1')
})

test('round-robin: whoever drops out leaves the others their turns, and each port has its own', async (t) => {
  const card = await loaded([0, 0, 0], { placement: PLACEMENT_ROUND_ROBIN })
  t.is(sequence(card, 2), '0 1')
  card.peer(2).say({ ...SERVES, flags: STATE_FLAG_DRAINING })
  t.is(sequence(card, 3), '0 1 0')
  card.peer(2).say({ services: [HTTP, { ...HTTP, port: 443 }] })
  card.peer(1).say({ services: [HTTP, { ...HTTP, port: 443 }] })
  const both = Array.from({ length: 3 }, () => `${choose(card)}${choose(card, { port: 443 })}`)
  t.deepEqual(both, ['10', '21', '02'])
})

test('least-loaded: free capacity 60 : 40 : 20 % is 3 : 2 : 1, evenly spread', async (t) => {
  const card = await loaded([400, 600, 800])
  // Shares after each choice: 600 400 200 → -600 400 200, 0 800 400 → 0 -400 400, 600 0 600 → -600 0 600, ...
  t.is(sequence(card, 6), '0 1 0 2 1 0')
  const counts = tally(card, 600)
  t.deepEqual(counts, [300, 200, 100])
  t.is(sequence(card, 6), '0 1 0 2 1 0', 'and round again')
})

test('least-loaded is what a board does that is told nothing', async (t) => {
  const told = await loaded([100, 450, 700], { placement: PLACEMENT_LEAST_LOADED })
  const untold = await loaded([100, 450, 700])
  t.is(sequence(told, 50), sequence(untold, 50))
})

test('least-loaded: any loads are met within five per cent, and nobody is overrun between two messages', async (t) => {
  for (const cpus of [
    [0, 0, 0],
    [900, 100, 500],
    [123, 456, 789],
    [0, 940, 940],
  ]) {
    const card = await loaded(cpus)
    const free = cpus.map((cpu) => 1000 - cpu)
    const all = free.reduce((sum, capacity) => sum + capacity, 0)
    const counts = [0, 0, 0]
    for (let n = 1; n <= 400; n++) {
      counts[choose(card)]!++
      for (const [row, capacity] of free.entries()) {
        const due = (n * capacity) / all
        t.true(Math.abs(counts[row]! - due) <= 2, `${cpus} after ${n}: row ${row} has ${counts[row]}, not ${due}`)
      }
    }
    for (const [row, capacity] of free.entries()) {
      const share = (400 * capacity) / all
      t.true(Math.abs(counts[row]! - share) <= Math.max(share * 0.05, 1))
    }
  }
})

test('least-loaded follows what the next message says', async (t) => {
  const card = await loaded([500, 500, 500])
  t.deepEqual(tally(card, 300), [100, 100, 100])
  card.peer(1).say({ ...SERVES, cpu: 0 })
  t.deepEqual(tally(card, 400), [100, 200, 100])
  board(card, 900)
  t.deepEqual(tally(card, 320), [20, 200, 100])
})

test('local-first: this server while it is below its limit, then the least loaded', async (t) => {
  const card = await loaded([799, 0, 0], { placement: PLACEMENT_LOCAL_FIRST })
  t.deepEqual(tally(card, 100), [100, 0, 0])
  board(card, 800)
  t.deepEqual(tally(card, 100), [100, 0, 0])
  board(card, 801)
  t.deepEqual(tally(card, 2199), [199, 1000, 1000])
  t.is(choose(card, { excluded: [1, 2] }), 0)
})

test('local-first: the limit is a setting, 0 included', async (t) => {
  const card = await loaded([301, 0], { placement: PLACEMENT_LOCAL_FIRST, localLimit: 300 })
  t.is(sequence(card, 3), '1 0 1')
  board(card, 300)
  t.deepEqual(tally(card, 10, 2), [10, 0])
  const idle = await loaded([0, 0], { placement: PLACEMENT_LOCAL_FIRST, localLimit: 0 })
  t.deepEqual(tally(idle, 10, 2), [10, 0])
  board(idle, 1)
  t.true(tally(idle, 10, 2)[1]! > 0)
})

test('local-only: this server or nobody', async (t) => {
  const card = await loaded([1000, 0, 0], { placement: PLACEMENT_LOCAL_ONLY })
  t.deepEqual(tally(card, 10), [10, 0, 0])
  t.is(choose(card, { localServes: false }), NOBODY)
  card.command(0, command({ op: M.OP_DRAIN, a: 1 }))
  card.run()
  t.is(choose(card), 0)
})

// ── at the request packet ──

const REQUEST = bytes('GET / HTTP/1.1\r\n\r\n')

test('decided when the request comes, not before; what has moved is counted no more', async (t) => {
  const card = await loaded([900, 0])
  greet(card, PEER, CARD)
  listen(card)
  const peer = card.peer(1)
  const segment = { ...between(PEER, CARD), sourcePort: 4000, destinationPort: 80 }
  const offered = (frames: Captured[]) =>
    frames.flatMap(({ frame }) => {
      const { ipos, destinationMac } = parse(frame)
      return ipos?.kind === 'connect' ? [{ ...ipos, destinationMac }] : []
    })
  /** Opens and asks; true if the endpoint was offered to the peer. */
  const request = (sourcePort: number) => {
    card.receive(0, tcpFrame({ ...segment, sourcePort, sequence: 99, flags: 'S' }))
    const syn = card.run().map(({ frame }) => parse(frame).tcp)[0]!
    const next = { ...segment, sourcePort, sequence: 100, acknowledgment: syn.sequence + 1 }
    card.receive(0, tcpFrame({ ...next, flags: 'A' }))
    t.deepEqual(offered(card.run()), [], 'before the request')
    card.receive(0, tcpFrame({ ...next, flags: 'PA', payload: REQUEST }))
    return offered(card.run())
  }
  const [connect] = request(4000)
  t.like(connect, { destinationMac: peer.mac, source: PEER.ip, sourcePort: 4000, server: CARD.ip, serverPort: 80 })
  const { source, sourcePort, thread, server, serverPort } = connect!
  const link = { destinationMac: HUB_MAC, sourceMac: peer.mac }
  const naming = { ...link, source, sourcePort, destination: CARD.ip, thread, server, serverPort }
  card.receive(HUB_PORT, iposFrame('acknowledge', naming))
  const commit = card
    .run()
    .flatMap(({ frame }) => parse(frame).ipos ?? [])
    .find(({ kind }) => kind === 'commit')
  t.like(commit, { kind: 'commit', receiveEnd: 100 + REQUEST.length })
  const { receiveEnd, sendEnd } = commit as Extract<IposPacket, { kind: 'commit' }>
  const committed = iposFrame('committed', { ...naming, received: receiveEnd, queued: sendEnd })
  viewOf(committed).setUint16(14 + COMMITTED_FLAGS, COMMITTED_FLAG_COMPLETE)
  card.receive(HUB_PORT, resealIpos(committed))
  card.advance(INTERVAL_MS)
  t.is(card.last?.connections, 0)
  peer.say({ ...SERVES, flags: STATE_FLAG_DRAINING })
  t.deepEqual(request(4001), [])
  card.advance(INTERVAL_MS)
  t.is(card.last?.connections, 1, 'it stays')
})

// ── who can serve at all ──

type Able = [name: string, prepare: (card: FarmCard) => void, question: Question, chosen: number[]]
const ABLE: Able[] = [
  ['everybody', () => {}, {}, [0, 1, 2]],
  ['peers alone, if no application listens here', () => {}, { localServes: false }, [1, 2]],
  ['here alone, if no peer serves the port', () => {}, { port: 81 }, [0]],
  ['nobody, if none does', () => {}, { port: 81, localServes: false }, []],
  ['a port of another protocol is another port', () => {}, { protocol: IPOS_UDP, localServes: false }, []],
  ['not who was tried', () => {}, { excluded: [1] }, [0, 2]],
  ['not this one, if it was tried', () => {}, { excluded: [0] }, [1, 2]],
  ['nobody, if all were tried', () => {}, { excluded: [0, 1, 2] }, []],
  ['not a draining peer', (card) => card.peer(1).say({ ...SERVES, flags: STATE_FLAG_DRAINING }), {}, [0, 2]],
  ['not this server while it drains', (card) => drain(card), {}, [1, 2]],
  ['this one though it drains, if nobody else can', (card) => drain(card), { excluded: [1, 2] }, [0]],
  ['not even so, if it was tried', (card) => drain(card), { excluded: [0, 1, 2] }, []],
  ['a draining peer never', (card) => drainPeers(card), { localServes: false }, []],
  ['not a peer that falls silent', (card) => silence(card, LEASE_MS), {}, [0, 2]],
  ['not a peer that is gone', (card) => silence(card, 3 * LEASE_MS), {}, [0, 2]],
  ['not a peer that does not hear us', (card) => deafen(card), {}, [0, 2]],
  ['not a peer that has stopped serving', (card) => card.peer(1).say({ services: [] }), {}, [0, 2]],
  ['a hand-over: peers that take such', (card) => takeOver(card, 2), { needsTakeOver: true, localServes: false }, [2]],
  ['a hand-over to an application here', (card) => takeOver(card, 2), { needsTakeOver: true }, [0, 2]],
  ['a hand-over that nobody takes', () => {}, { needsTakeOver: true, localServes: false }, []],
]

function drain(card: FarmCard): void {
  card.command(0, command({ op: M.OP_DRAIN, a: 1 }))
  card.run()
}

function drainPeers(card: FarmCard): void {
  for (const peer of card.hub) peer.say({ ...SERVES, flags: STATE_FLAG_DRAINING })
}

/** Peer 1 says nothing for so long, peer 2 goes on. */
function silence(card: FarmCard, ms: number): void {
  for (let left = ms; left > 0; left -= INTERVAL_MS) {
    card.advance(Math.min(left, INTERVAL_MS))
    card.peer(2).say(SERVES)
  }
}

/** Peer 1 goes on, but hears nothing for a lease. */
function deafen(card: FarmCard): void {
  for (let left = LEASE_MS + INTERVAL_MS; left > 0; left -= INTERVAL_MS) {
    card.advance(INTERVAL_MS)
    card.peer(1).say({ ...SERVES, heard: [] })
    card.peer(2).say(SERVES)
  }
}

function takeOver(card: FarmCard, row: number): void {
  card.peer(row).say({ services: [{ ...HTTP, flags: SERVICE_FLAG_TAKES_OVER }] })
}

for (const placement of [PLACEMENT_LEAST_LOADED, PLACEMENT_ROUND_ROBIN]) {
  for (const [name, prepare, question, chosen] of ABLE) {
    test(`who can serve, policy ${placement}: ${name}`, async (t) => {
      const card = await loaded([0, 0, 0], { placement })
      prepare(card)
      const seen = new Set(Array.from({ length: 12 }, () => choose(card, question)))
      t.deepEqual([...seen].sort(), chosen.length > 0 ? chosen : [NOBODY])
    })
  }
}

// ── load ──

/** The load that `fields` of a peer make, per mille, seen in how often it is chosen beside a card that is idle. */
async function loadOf(fields: IposFields<'state'>, settings: FarmSettings = {}): Promise<number> {
  const card = await loaded([0, 0], { loadLimit: 1001, ...settings })
  card.peer(1).say({ ...SERVES, ...fields })
  const rounds = 1000
  const [own = 0, other = 0] = tally(card, rounds, 2)
  return Math.round(1000 * (1 - other / own))
}

const LOADS: Record<string, { fields: IposFields<'state'>; settings?: FarmSettings; load: number }> = {
  CPU: { fields: { cpu: 500 }, load: 500 },
  'more CPU than there is': { fields: { cpu: 65535 }, load: 990 },
  memory: { fields: { memoryAvailable: 1000, memoryTotal: 4000 }, load: 750 },
  'a lot of memory': { fields: { memoryAvailable: 0x40000000, memoryTotal: 0x80000000 }, load: 500 },
  'memory that is not known': { fields: { memoryAvailable: 0, memoryTotal: 0 }, load: 0 },
  'more memory available than there is': { fields: { memoryAvailable: 5000, memoryTotal: 4000 }, load: 0 },
  bandwidth: { fields: { bandwidthAvailable: 800, bandwidthTotal: 1000 }, load: 200 },
  connections: { fields: { connections: 100, connectionsMaximum: 1000 }, load: 100 },
  'more connections than there can be': { fields: { connections: 5000, connectionsMaximum: 1000 }, load: 990 },
  'connections of an unknown number': { fields: { connections: 5000 }, load: 0 },
  'the largest counts': {
    fields: { cpu: 300, memoryAvailable: 300, memoryTotal: 1000, bandwidthAvailable: 999, bandwidthTotal: 1000 },
    load: 700,
  },
  weights: {
    fields: { cpu: 900, memoryAvailable: 300, memoryTotal: 1000 },
    settings: { weightCpu: 50 },
    load: 700,
  },
  'a weight of 0': { fields: { cpu: 900 }, settings: { weightCpu: 0 }, load: 0 },
  'a weight of 200 %': {
    fields: { connections: 100, connectionsMaximum: 1000 },
    settings: { weightConnections: 200 },
    load: 200,
  },
  'nobody is starved where all are busy': { fields: { cpu: 1000 }, load: 990 },
}
for (const [name, { fields, settings, load }] of Object.entries(LOADS)) {
  test(`load: ${name}`, async (t) => {
    const measured = await loadOf(fields, settings)
    t.true(Math.abs(measured - load) <= 4, `${measured}, not ${load}`)
  })
}

test('load: this server counts its own connections', async (t) => {
  const card = await loaded([0, 0], { maximumConnections: 1000 })
  board(card, 0, { connections: 500 + 1 })
  t.deepEqual(tally(card, 300, 2), [100, 200])
  board(card, 0, { memory: [250, 1000] })
  t.deepEqual(tally(card, 300, 2), [60, 240])
  board(card, 0, { bandwidth: [250, 1000] })
  t.deepEqual(tally(card, 300, 2), [60, 240])
})

for (const placement of [PLACEMENT_LEAST_LOADED, PLACEMENT_ROUND_ROBIN, PLACEMENT_LOCAL_FIRST]) {
  test(`load limit, policy ${placement}: nothing new at it while another is below`, async (t) => {
    const card = await loaded([950, 949, 950], { placement, localLimit: 1000 })
    t.deepEqual(tally(card, 20), [0, 20, 0])
    card.peer(1).say({ ...SERVES, cpu: 950 })
    const counts = tally(card, 30)
    t.deepEqual(counts, placement === PLACEMENT_LOCAL_FIRST ? [30, 0, 0] : [10, 10, 10], 'all are at it')
  })
}

test('load limit: a setting', async (t) => {
  const card = await loaded([500, 499], { loadLimit: 500 })
  t.deepEqual(tally(card, 20, 2), [0, 20])
  const none = await loaded([1000, 0], { loadLimit: 1001 })
  t.is(tally(none, 202, 2)[0], 2)
})

// ── applications ──

function listen(card: FarmCard, { port = 80, process = 7, address = 0 } = {}): void {
  const record = { op: M.OP_LISTEN, socket: process, a: address, b: port, fields: [0, 0, process, 0] }
  card.command(0, command(record))
}

function needs(card: FarmCard, process: number, memory: number): void {
  card.command(0, command({ op: M.OP_PROCESS_STATE, a: process, fields: [memory, 0] }))
  card.run()
}

test('a process that needs more memory than is left leaves work to others', async (t) => {
  const card = await loaded([0, 0])
  listen(card)
  board(card, 0, { memory: [5000, 10000] })
  needs(card, 7, 5000)
  t.true(tally(card, 20, 2)[0]! > 0, 'just enough')
  needs(card, 7, 5001)
  t.deepEqual(tally(card, 20, 2), [0, 20])
  t.is(choose(card, { excluded: [1] }), 0, 'nobody else can')
  t.is(choose(card, { port: 81 }), 0, 'another port')
  board(card, 0, { memory: [6000, 10000] })
  t.true(tally(card, 20, 2)[0]! > 0, 'there is enough again')
})

test('what is not known of memory keeps nobody from serving', async (t) => {
  const card = await loaded([0, 0])
  listen(card)
  needs(card, 8, 5001)
  board(card, 0, { memory: [5000, 10000] })
  t.true(tally(card, 20, 2)[0]! > 0, "another process's need")
  needs(card, 7, 5001)
  board(card, 0)
  t.is(tally(card, 20, 2)[0], 10, 'memory of the board not known')
  card.disableSet(0)
  card.run()
  t.is(tally(card, 20, 2)[0], 10, 'nobody listens')
})
