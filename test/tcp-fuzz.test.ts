/**
 * Random and mutated segments into live connections in every state, with a host that does as it likes: never a trap, a hang or a
 * leak, and whoever comes after is served. INIC_FUZZ_FRAMES=1000000 runs a million; INIC_SEED=n one other course.
 */
import test from 'ava'
import {
  BOOT_FLAG_ALWAYS_COOKIES,
  BOOT_FLAG_NO_SACK,
  BOOT_FLAG_NO_TIMESTAMPS,
  BOOT_FLAG_NO_WINDOW_SCALE,
  CONGESTION_NEWRENO,
} from '../abi/boot.ts'
import type { CardSettings } from './support/bare-card.ts'
import { internetChecksum, ipText, PROTOCOL_TCP, pseudoHeader, TCP_FLAGS, viewOf } from './support/packets.ts'
import { Random } from './support/tcp-lab.ts'
import { Conn, TcpNet } from './support/tcp-script.ts'
import { established, STATES, type StateOptions } from './support/tcp-states.ts'

const FRAMES = Number(process.env.INIC_FUZZ_FRAMES ?? 50_000)
const SEED = Number(process.env.INIC_SEED ?? 1)
const FRAMES_PER_ROUND = 500
const PARTS = 4

const CARDS: CardSettings[] = [
  {},
  { flags: BOOT_FLAG_NO_SACK, congestionControl: CONGESTION_NEWRENO },
  { flags: BOOT_FLAG_NO_TIMESTAMPS | BOOT_FLAG_NO_WINDOW_SCALE },
  { flags: BOOT_FLAG_ALWAYS_COOKIES },
  { receiveCredit: 700, sendCredit: 900 },
  { maximumConnections: 12, synBacklog: 2 },
  { userTimeoutMs: 2000, mslMs: 100, rtoMinimumMs: 20, unattachedTimeoutMs: 1000 },
  { startMs: 0x100000000 - 2000 },
]

const PEERS: StateOptions[] = [
  {},
  { sack: true },
  { timestamps: true },
  { sack: true, timestamps: true, windowScale: 7 },
  { mss: 88, window: 500 },
  { mss: null, windowScale: 14, window: 1 },
  { iss: 0xfffffff0, sack: true },
]

/** A distance from where the interesting numbers are: mostly small, sometimes anything. */
function distance(random: Random): number {
  const kind = random.below(10)
  if (kind < 3) return 0
  if (kind < 6) return random.below(5) - 2
  if (kind < 8) return random.below(6000) - 3000
  if (kind < 9) return random.below(200_000) - 100_000
  return random.below(0xffffffff) | 0
}

function optionBytes(random: Random): Uint8Array {
  const bytes: number[] = []
  const count = random.below(4)
  for (let i = 0; i < count; i++) {
    const kind = [0, 1, 2, 3, 4, 5, 8, 34, random.below(256)][random.below(9)]!
    const length = random.chance(0.7)
      ? [1, 1, 4, 3, 2, 10 + 8 * random.below(4), 10, 4, 6][Math.min(kind, 8)]!
      : random.below(256)
    bytes.push(kind, length)
    for (let j = 2; j < Math.min(length, 38); j++) bytes.push(random.below(256))
  }
  return Uint8Array.from(bytes.slice(0, 40))
}

/** A segment with fields near the connection's own. */
function segment(random: Random, c: Conn): Uint8Array {
  let flags = ''
  const usual = ['A', 'A', 'A', 'PA', 'FA', 'R', 'RA', 'S', 'SA', 'FPA']
  if (random.chance(0.8)) flags = usual[random.below(usual.length)]!
  else for (const flag of TCP_FLAGS) if (random.chance(0.3)) flags += flag
  // A reset at exactly the right place ends the fun; it may, but seldom.
  const exact = flags.includes('R') && random.chance(0.95) ? 1 + random.below(100) : 0
  const sack: [number, number][] = []
  if (random.chance(0.3)) {
    for (let i = random.below(4); i >= 0; i--) {
      const left = c.rcvNxt + distance(random)
      sack.push([left, left + (random.chance(0.8) ? random.below(5000) : distance(random))])
    }
  }
  return c.frame({
    flags,
    seq: c.sndNxt + distance(random) + exact,
    ack: c.rcvNxt + (random.chance(0.4) ? 0 : random.chance(0.7) ? -random.below(3000) : distance(random)),
    window: random.chance(0.5) ? random.below(65536) : random.chance(0.5) ? 0 : 65535,
    payload: random.chance(0.5) ? 0 : random.below(1400),
    urgent: random.below(65536),
    ...(random.chance(0.2) ? { options: optionBytes(random) } : {}),
    ...(sack.length > 0 ? { sack: sack.slice(0, c.stamped ? 3 : 4) } : {}),
    ...(random.chance(0.1) ? { ts: [random.below(0xffffffff), random.below(0xffffffff)] as [number, number] } : {}),
    ...(random.chance(0.03) ? { tcpChecksum: random.below(65536) } : {}),
  })
}

/** Makes the checksums of a damaged frame right, as far as its lengths allow. */
function repair(frame: Uint8Array): void {
  const view = viewOf(frame)
  const ipBytes = (frame[14]! & 15) * 4
  const total = view.getUint16(16)
  if (ipBytes < 20 || 14 + ipBytes > frame.length) return
  view.setUint16(24, 0)
  view.setUint16(24, internetChecksum(frame.subarray(14, 14 + ipBytes)))
  const from = 14 + ipBytes
  const to = 14 + total
  if (total < ipBytes + 20 || to > frame.length) return
  view.setUint16(from + 16, 0)
  const source = ipText(view.getUint32(26))
  const destination = ipText(view.getUint32(30))
  const pseudo = pseudoHeader(source, destination, PROTOCOL_TCP, to - from)
  view.setUint16(from + 16, internetChecksum(pseudo, frame.subarray(from, to)))
}

/** Damage to a frame: bits, lengths, ends; with right checksums as often as not. */
function damage(random: Random, frame: Uint8Array): Uint8Array {
  let damaged = frame.slice()
  const kind = random.below(4)
  if (kind === 0) for (let i = random.below(4); i >= 0; i--) damaged[14 + random.below(60)]! ^= 1 << random.below(8)
  if (kind === 1) damaged = damaged.subarray(0, 14 + random.below(damaged.length - 14))
  if (kind === 2) damaged[46] = random.below(256) // data offset
  if (kind === 3) for (let at = 34; at < damaged.length; at++) damaged[at] = random.below(256)
  const longer = random.chance(0.2) ? new Uint8Array([...damaged, ...new Uint8Array(random.below(100))]) : damaged
  if (random.chance(0.6) && longer.length > 34) repair(longer)
  return longer
}

/** The application does something, sensible or not. */
function hostAct(random: Random, c: Conn): void {
  const kind = random.below(12)
  if (kind < 5) {
    const count = Math.min(c.sendCredit, random.below(4000))
    c.sendCredit -= count
    c.write(count)
  } else if (kind < 8) c.credit(random.chance(0.9) ? c.read().length : random.below(0xffffffff))
  else if (kind === 8) c.setOption(random.below(5), random.below(3))
  else if (kind === 9) c.end()
  else if (random.chance(0.3)) random.chance(0.5) ? c.close() : c.abort()
}

function round(seed: number): void {
  const random = new Random(seed)
  const settings = CARDS[random.below(CARDS.length)]!
  const net = new TcpNet({ seed, sets: [0, 1], ...settings })
  net.lenient = true
  const states = Object.values(STATES)
  const conns: Conn[] = []
  for (let i = 0; i < 12; i++) {
    const options = { ...PEERS[random.below(PEERS.length)]!, peerPort: 20_000 + i }
    try {
      conns.push(states[random.below(states.length)]!(net, options))
    } catch {
      // A small pool is used up, or a cookie takes the place of a state.
      conns.push(new Conn(net, options))
    }
  }
  for (let sent = 0; sent < FRAMES_PER_ROUND; sent++) {
    const c = conns[random.below(conns.length)]!
    let frame = segment(random, c)
    if (random.chance(0.25)) frame = damage(random, frame)
    if (random.chance(0.7)) net.inject(0, frame)
    else net.queue(0, frame)
    if (random.chance(0.1)) hostAct(random, c)
    if (random.chance(0.1)) net.wait(random.chance(0.9) ? random.below(300) : random.below(100_000))
    if (random.chance(0.002)) net.killProcess(1)
    // Go on from where the card is.
    for (const other of conns) {
      const last = other.inbox.at(-1)
      if (last?.flags.includes('A') && random.chance(0.9)) other.sndNxt = last.ack
      other.inbox.length = 0
      other.events.length = 0
    }
  }
  // The board still serves, unless all its endpoints are taken.
  if ((settings.maximumConnections ?? 256) > 100 && settings.flags !== BOOT_FLAG_ALWAYS_COOKIES) {
    const c = established(net, { peerPort: 50_000 })
    c.write('still here')
    net.wait(10)
    const got = c.inbox.reduce((text, { payload }) => text + Buffer.from(payload).toString(), '')
    if (!got.startsWith('still')) net.fail('a client after all that is not served')
    c.abort()
  }
  net.finish()
}

/** One round by itself: what a failure asks for. */
const ROUND = process.env.INIC_FUZZ_ROUND
if (ROUND !== undefined) {
  test(`round ${ROUND}`, (t) => {
    round(Number(ROUND))
    t.pass()
  })
}

for (let part = 0; part < PARTS && ROUND === undefined; part++) {
  test(`${FRAMES / PARTS} random segments, part ${part + 1} of ${PARTS}: no trap, no hang, no leak`, (t) => {
    t.timeout(3_600_000)
    const rounds = Math.ceil(FRAMES / PARTS / FRAMES_PER_ROUND)
    for (let i = 0; i < rounds; i++) {
      const seed = SEED * 1_000_003 + part * 100_000 + i
      try {
        round(seed)
      } catch (cause) {
        const replay = `INIC_FUZZ_ROUND=${seed} npx ava dist/test/tcp-fuzz.test.js`
        throw new Error(`${(cause as Error).message}\nreplay: ${replay}`, { cause })
      }
    }
    t.pass()
  })
}

test('random bytes behind an Ethernet and an IPv4 header', (t) => {
  const random = new Random(SEED)
  const net = new TcpNet({ seed: SEED })
  net.lenient = true
  const c = established(net)
  const frame = c.frame({ flags: 'A' })
  for (let i = 0; i < 5000; i++) {
    const bytes = new Uint8Array(34 + random.below(200))
    bytes.set(frame.subarray(0, 34))
    for (let at = 34; at < bytes.length; at++) bytes[at] = random.below(256)
    viewOf(bytes).setUint16(16, bytes.length - 14)
    if (bytes.length >= 38 && random.chance(0.5)) viewOf(bytes).setUint32(34, (c.peerPort << 16) | c.cardPort)
    repair(bytes)
    net.inject(0, bytes)
  }
  c.inbox.length = 0
  net.finish()
  t.pass()
})
