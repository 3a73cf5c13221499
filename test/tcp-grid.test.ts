/**
 * Two cards over a bad wire: whatever the wire does, both streams arrive as they were written, both sides end cleanly, and nothing is
 * left behind. `INIC_SEED=n npx ava dist/test/tcp-grid.test.js` runs every case with that seed.
 */
import test from 'ava'
import {
  BOOT_FLAG_ALWAYS_COOKIES,
  BOOT_FLAG_NO_SACK,
  BOOT_FLAG_NO_TIMESTAMPS,
  BOOT_FLAG_NO_WINDOW_SCALE,
  CONGESTION_NEWRENO,
} from '../abi/boot.ts'
import * as M from '../abi/messages.ts'
import type { CardSettings } from './support/bare-card.ts'
import { Flow, Lab, type LabSettings, type WireSettings } from './support/tcp-lab.ts'

const SEED = process.env.INIC_SEED === undefined ? undefined : Number(process.env.INIC_SEED)

/** A case; its error says how to run it again. */
function gridTest(
  title: string,
  seed: number,
  settings: Omit<LabSettings, 'seed'>,
  run: (lab: Lab) => string | undefined,
) {
  test(title, (t) => {
    const used = SEED ?? seed
    const lab = new Lab({ ...settings, seed: used })
    try {
      const note = run(lab)
      if (note) t.log(note)
      t.pass()
    } catch (cause) {
      const replay = `INIC_SEED=${used} npx ava dist/test/tcp-grid.test.js --match=${JSON.stringify(title)}`
      throw new Error(`${(cause as Error).message}\nat ${lab.nowMs} ms; replay: ${replay}\n${lab.packets}`, { cause })
    }
  })
}

/** One connection with `down` bytes from B to A and `up` from A to B. Returns milliseconds until all had arrived. */
function bulk(lab: Lab, up: number, down: number, limitMs = 600_000): number {
  const [a, b] = lab.sides
  b.listen(80)
  const client = new Flow(a, 'client', up)
  const server = new Flow(b, 'server', down)
  b.accept = () => server
  a.connect(b, 80, client)
  const start = lab.nowMs
  if (!lab.run(limitMs, () => client.done && server.done)) {
    const state = (flow: Flow) =>
      `${flow.name} wrote ${flow.written}, read ${flow.readBytes}${flow.ended ? ', ended' : ''}`
    throw new Error(`not done after ${limitMs} ms: ${state(client)}; ${state(server)}`)
  }
  const elapsed = lab.nowMs - start
  if (client.status || server.status) throw new Error(`status ${client.status} and ${server.status}`)
  if (client.readBytes !== down || server.readBytes !== up) throw new Error('bytes are missing')
  lab.expectClean(120_000)
  return elapsed
}

const WIRES: [name: string, wire: WireSettings, bytes: number][] = [
  ['no loss', {}, 400_000],
  ['1 % loss', { loss: 0.01 }, 200_000],
  ['2 % loss', { loss: 0.02 }, 200_000],
  ['5 % loss', { loss: 0.05 }, 150_000],
  ['20 % loss', { loss: 0.2 }, 40_000],
  ['5 % reordering', { reordering: 0.05 }, 200_000],
  ['50 % reordering', { reordering: 0.5, jitterMs: 10 }, 150_000],
  ['2 % duplication', { duplication: 0.02 }, 200_000],
  ['all duplicated', { duplication: 1 }, 150_000],
  ['2 % corruption', { corruption: 0.02 }, 150_000],
  ['2 % of everything', { loss: 0.02, reordering: 0.02, duplication: 0.02, corruption: 0.02 }, 150_000],
  ['10 % of everything', { loss: 0.1, reordering: 0.1, duplication: 0.1, corruption: 0.1 }, 40_000],
]

const CARDS: [name: string, card: CardSettings, mtu: number][] = [
  ['defaults', {}, 0],
  ['without SACK', { flags: BOOT_FLAG_NO_SACK }, 0],
  [
    'NewReno without SACK and timestamps',
    { flags: BOOT_FLAG_NO_SACK | BOOT_FLAG_NO_TIMESTAMPS, congestionControl: CONGESTION_NEWRENO },
    0,
  ],
  ['without scaling', { flags: BOOT_FLAG_NO_WINDOW_SCALE }, 0],
  ['cookies', { flags: BOOT_FLAG_ALWAYS_COOKIES }, 0],
  ['receive window of 3000', { receiveCredit: 3000 }, 0],
  ['receive window of 500', { receiveCredit: 500 }, 0],
  ['send credit of 2000', { sendCredit: 2000 }, 0],
  ['MTU 576', {}, 576],
]

let number = 1
for (const [wireName, wire, bytes] of WIRES) {
  for (const [cardName, card, mtu] of CARDS) {
    const seed = number++
    const tiny = (card.receiveCredit ?? 0x10000) < 4000 || (card.sendCredit ?? 0x10000) < 4000
    const size = tiny ? Math.ceil(bytes / 8) : bytes
    gridTest(`${wireName}, ${cardName}`, seed, { wire: { delayMs: 5, ...wire }, a: card, b: card, mtu }, (lab) => {
      bulk(lab, size, size + 777)
      return undefined
    })
  }
}

gridTest('one way with 2 % loss, the other way nothing', 201, { wire: { delayMs: 10, loss: 0.02 } }, (lab) => {
  bulk(lab, 0, 500_000)
  return undefined
})

gridTest(
  'sequence numbers and clocks that wrap',
  202,
  {
    wire: { delayMs: 5, loss: 0.02, reordering: 0.02 },
    a: { startMs: 0x100000000 - 3000 },
  },
  (lab) => {
    lab.nowNs = (0x100000000 - 3000) * 1e6
    bulk(lab, 300_000, 300_000)
    return undefined
  },
)

for (const [name, card] of [
  ['defaults', {}],
  ['a receive window of 3000', { receiveCredit: 3000 }],
  ['cookies', { flags: BOOT_FLAG_ALWAYS_COOKIES }],
] as const) {
  gridTest(`over the card's own loopback, ${name}`, 210, { a: card }, (lab) => {
    const side = lab.sides[0]
    side.listen(80)
    const clients: Flow[] = []
    side.accept = (port) => new Flow(side, `server for ${port}`, 100_000)
    for (let i = 0; i < 5; i++) {
      clients.push(new Flow(side, `client ${i}`, 50_000 + i))
      side.connect(side, 80, clients[i]!)
    }
    if (!lab.run(120_000, () => side.flows.length === 10 && side.flows.every(({ done }) => done)))
      throw new Error('not done')
    if (clients.some(({ readBytes, status }) => readBytes !== 100_000 || status !== 0))
      throw new Error('bytes are missing')
    lab.expectClean(120_000)
    return undefined
  })
}

/** What a window-limited or loss-limited sender should get, bytes a millisecond. */
const mathis = (mss: number, rttMs: number, loss: number) => (mss / rttMs) * (1.22 / Math.sqrt(loss))

const SPEED: [name: string, wire: WireSettings, bytes: number, leastRate: number, settings?: CardSettings][] = [
  // 256 KiB of window a round trip of 20 ms are 13 MB/s.
  ['no loss, 20 ms: half of a window a round trip', { delayMs: 10 }, 8_000_000, (0.5 * 262_144) / 20],
  ['2 % loss, 20 ms: half of what Mathis gives', { delayMs: 10, loss: 0.02 }, 2_000_000, 0.5 * mathis(1448, 20, 0.02)],
  ['1 % loss, 20 ms: half of what Mathis gives', { delayMs: 10, loss: 0.01 }, 3_000_000, 0.5 * mathis(1448, 20, 0.01)],
  [
    '2 % loss, 20 ms, NewReno',
    { delayMs: 10, loss: 0.02 },
    2_000_000,
    0.5 * mathis(1448, 20, 0.02),
    { congestionControl: CONGESTION_NEWRENO },
  ],
  [
    '2 % loss, 20 ms, without SACK: an eighth',
    { delayMs: 10, loss: 0.02 },
    1_000_000,
    0.125 * mathis(1448, 20, 0.02),
    { flags: BOOT_FLAG_NO_SACK },
  ],
  [
    '5 % loss, 20 ms: a quarter, as timeouts come in',
    { delayMs: 10, loss: 0.05 },
    1_000_000,
    0.25 * mathis(1448, 20, 0.05),
  ],
  // 12500 bytes a millisecond are 100 Mbit/s.
  [
    '100 Mbit/s, 10 ms, a queue of 64 KiB: four fifths of the rate',
    { delayMs: 5, rate: 12_500, queueBytes: 65_536 },
    20_000_000,
    0.8 * 12_500,
  ],
  [
    '10 Mbit/s, 40 ms, a queue of 30 KB: three quarters of the rate',
    { delayMs: 20, rate: 1250, queueBytes: 30_000 },
    5_000_000,
    0.75 * 1250,
  ],
]
for (const [i, [name, wire, bytes, least, card]] of SPEED.entries()) {
  gridTest(`throughput: ${name}`, 300 + i, { wire, a: card ?? {}, b: card ?? {} }, (lab) => {
    const ms = bulk(lab, bytes, 0)
    const rate = bytes / ms
    if (rate < least) throw new Error(`${rate.toFixed(0)} bytes a millisecond, not ${least.toFixed(0)}`)
    return `${rate.toFixed(0)} bytes/ms (at least ${least.toFixed(0)})`
  })
}

/** Many short connections both ways, each with its own habits. */
for (const seed of [401, 402, 403, 404]) {
  const wire = { delayMs: 3, loss: 0.03, reordering: 0.05, duplication: 0.02, corruption: 0.01 }
  gridTest(`churn of 120 connections, seed ${seed}`, seed, { wire, b: { synBacklog: 8 } }, (lab) => {
    const { random } = lab
    for (const side of lab.sides) {
      side.listen(80)
      side.listen(81, M.FIRST_SPEAKER_AUTO)
      side.accept = (port) => {
        const flow = new Flow(side, `server for ${port}`, random.below(30_000))
        flow.chunk = 1 + random.below(5000)
        flow.creditEvery = 1 + random.below(20_000)
        return flow
      }
    }
    let opened = 0
    const clients: Flow[] = []
    for (; opened < 120; opened++) {
      const from = random.below(2)
      const side = lab.sides[from]!
      const flow = new Flow(side, `client ${opened}`, 1 + random.below(20_000))
      flow.chunk = 1 + random.below(3000)
      flow.creditEvery = 1 + random.below(10_000)
      side.connect(lab.sides[1 - from]!, 80 + random.below(2), flow)
      clients.push(flow)
      lab.run(random.below(40))
      // Some lose patience.
      const victim = clients[random.below(clients.length)]!
      if (random.chance(0.15) && victim.connected && !victim.done) {
        side.control({ op: M.OP_CANCEL, socket: 0xffffff })
        victim.side.stream({ op: random.chance(0.5) ? M.OP_ABORT : M.OP_CLOSE, socket: victim.handle })
        victim.status = -1
        victim.side.byHandle.set(victim.handle, deaf(victim))
      }
    }
    const all = () => lab.sides.every(({ flows }) => flows.every((flow) => flow.done))
    if (!lab.run(600_000, all)) throw new Error('not all connections ended')
    const failed = clients.filter(({ status }) => status !== 0).length
    lab.expectClean()
    return `${failed} of ${opened} were ended early`
  })
}

/** The application has let go: what still comes is nobody's. */
function deaf(flow: Flow): Flow {
  const silent = new Flow(flow.side, `${flow.name}, let go`, 0)
  silent.take = () => {}
  silent.pump = () => {}
  return silent
}
