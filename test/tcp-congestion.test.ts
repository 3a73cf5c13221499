/** Congestion control: initial window, slow start, avoidance, CUBIC and NewReno, idle restart (RFC 5681, 6928, 9438). */
import { BOOT_FLAG_NO_TAIL_PROBES, CONGESTION_CUBIC, CONGESTION_NEWRENO } from '../abi/boot.ts'
import { type Conn, tcpTest } from './support/tcp-script.ts'
import { established, type StateOptions } from './support/tcp-states.ts'

const MSS = 1460
type Net = Parameters<typeof established>[0]
const WIDE: StateOptions = { windowScale: 7, window: 0xffff, sack: true }

/** A connection with a writer that always has more to say. */
class Bulk {
  readonly c: Conn
  written = 0
  next = 1

  constructor(net: Net, options: StateOptions = WIDE) {
    this.c = established(net, options)
    this.fill()
  }

  fill(): void {
    const bytes = Math.min(this.c.sendCredit, 65536)
    if (bytes === 0) return
    this.c.sendCredit -= bytes
    this.c.write(bytes, { from: this.written + 1 })
    this.written += bytes
    if (this.c.sendCredit > 0) this.fill()
  }

  /** Segments that came since the last call. */
  burst(): number {
    const data = this.c.data()
    for (const [seq, length] of data) this.next = Math.max(this.next, seq + length)
    return data.length
  }

  /** One round trip of `ms` in which every second segment is acknowledged; returns the segments that were on their way. */
  round(ms: number): number {
    const { c } = this
    const segments = this.burst()
    c.net.wait(ms)
    const end = this.next
    let ack = end - segments * MSS
    while (ack < end) {
      ack = Math.min(ack + 2 * MSS, end)
      c.send({ flags: 'A', ack })
      this.fill()
    }
    return segments
  }

  /** Loses the first segment on its way and recovers; returns the segments that were out. */
  lose(ms: number): number {
    const { c } = this
    const segments = this.burst()
    const una = this.next - segments * MSS
    c.net.wait(ms)
    c.send({ flags: 'A', ack: una, sack: [[una + MSS, this.next]] })
    this.burst()
    c.net.wait(ms)
    c.send({ flags: 'A', ack: this.next })
    this.fill()
    return segments
  }
}

tcpTest('the initial window is ten segments, at most 14600 bytes (RFC 6928 §2)', (net) => {
  for (const [mss, expected] of [
    [1460, 10],
    [536, 10],
    [1000, 10],
    [88, 10],
  ] as const) {
    const c = established(net, { ...WIDE, mss })
    c.write(40_000)
    if (c.data().length !== expected) net.fail(`MSS ${mss}`)
    c.abort()
    c.expect({ flags: 'RA' })
  }
})

tcpTest(
  'slow start doubles the window in a round trip, ACKs by twos included (RFC 5681 §3.1, RFC 3465)',
  (net) => {
    const bulk = new Bulk(net)
    const windows = Array.from({ length: 5 }, () => bulk.round(50))
    if (windows.join() !== '10,20,40,80,160') net.fail(`windows ${windows}`)
    bulk.burst()
  },
  { flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest('an application that sends little does not grow the window (RFC 7661)', (net) => {
  const c = established(net, WIDE)
  for (let i = 0; i < 50; i++) {
    c.write(1000, { from: c.rcvNxt })
    c.sendCredit -= 1000
    c.drain()
    net.wait(20)
    c.send({ flags: 'A' })
  }
  c.write(c.sendCredit, { from: c.rcvNxt })
  const burst = c.data().length
  if (burst > 12) net.fail(`a burst of ${burst}`)
})

for (const [name, congestionControl] of [
  ['NewReno', CONGESTION_NEWRENO],
  ['CUBIC', CONGESTION_CUBIC],
] as const) {
  const beta = congestionControl === CONGESTION_NEWRENO ? 0.5 : 0.7
  tcpTest(
    `${name}: a loss reduces the window to ${beta} of what was on its way`,
    (net) => {
      const bulk = new Bulk(net)
      for (let i = 0; i < 3; i++) bulk.round(50)
      const before = bulk.lose(50)
      const after = bulk.burst()
      if (before !== 80 || Math.abs(after - before * beta) > 2) net.fail(`${before} became ${after}`)
    },
    { congestionControl, flags: BOOT_FLAG_NO_TAIL_PROBES },
  )
}

tcpTest(
  'NewReno: congestion avoidance adds one segment a round trip (RFC 5681 §3.1)',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 3; i++) bulk.round(50)
    bulk.lose(50)
    const windows = Array.from({ length: 10 }, () => bulk.round(50))
    const growth = windows.at(-1)! - windows[0]!
    if (growth < 8 || growth > 10) net.fail(`windows ${windows}`)
    bulk.burst()
  },
  { congestionControl: CONGESTION_NEWRENO, flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest(
  'CUBIC: the window comes back to where the loss was, flattens there, and goes beyond (RFC 9438 §4.2)',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 4; i++) bulk.round(50)
    const peak = bulk.lose(50)
    const windows = Array.from({ length: 220 }, () => bulk.round(50))
    // K = cbrt(Wmax (1 - 0.7) / 0.4) seconds
    const k = Math.cbrt((peak * 0.3) / 0.4)
    const at = (seconds: number) => windows[Math.round(seconds / 0.05)]!
    if (Math.abs(at(k) - peak) > peak * 0.08) net.fail(`${at(k)} after K = ${k} s, not about ${peak}: ${windows}`)
    if (at(k / 2) < peak * 0.9) net.fail(`${at(k / 2)} half way: ${windows}`)
    if (at(k) - at(k * 0.8) > peak * 0.05) net.fail(`not flat before K: ${windows}`)
    if (at(2 * k) < peak * 1.15) net.fail(`${at(2 * k)} after 2 K: ${windows}`)
    for (let i = 1; i < windows.length; i++) {
      if (windows[i]! > windows[i - 1]! * 1.5 + 2) net.fail(`a jump at ${i}: ${windows}`)
    }
    bulk.burst()
  },
  {
    congestionControl: CONGESTION_CUBIC,
    flags: BOOT_FLAG_NO_TAIL_PROBES,
    memoryBytes: 0x4000000,
    sendCredit: 0x100000,
  },
)

tcpTest(
  'CUBIC: on a short round trip it is no slower than Reno (RFC 9438 §4.3)',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 2; i++) bulk.round(2)
    bulk.lose(2)
    const windows = Array.from({ length: 60 }, () => bulk.round(2))
    const growth = windows.at(-1)! - windows[0]!
    // Reno-friendly: about 0.53 segments a round trip.
    if (growth < 20) net.fail(`windows ${windows}`)
    if (growth > 120) net.fail(`windows ${windows}`)
    bulk.burst()
  },
  { congestionControl: CONGESTION_CUBIC, flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest(
  'CUBIC: a second loss below the first makes room (RFC 9438 §4.7), and the window stays two segments at least',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 3; i++) bulk.round(50)
    for (let i = 0; i < 20; i++) bulk.lose(50)
    const left = bulk.burst()
    if (left < 2 || left > 6) net.fail(`${left} segments after 20 losses`)
  },
  { congestionControl: CONGESTION_CUBIC, flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest(
  'after an RTO slow start ends at ssthresh (RFC 5681 §3.1)',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 2; i++) bulk.round(10)
    if (bulk.burst() !== 40) net.fail('not 40 on their way')
    const { c } = bulk
    net.wait(400)
    const una = bulk.next - 40 * MSS
    c.expect({ seq: una, length: MSS })
    // All of it had arrived but the first.
    c.send({ flags: 'A', ack: bulk.next })
    bulk.fill()
    const windows = Array.from({ length: 6 }, () => bulk.round(10))
    if (windows[0] !== 2 || windows[1] !== 4 || windows[2] !== 8) net.fail(`windows ${windows}`)
    if (windows[5]! > 30) net.fail(`slow start goes on beyond 28: ${windows}`)
    bulk.burst()
  },
  { flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest(
  'after an idle time of more than an RTO the window starts again at the initial one (RFC 5681 §4.1)',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 3; i++) bulk.round(50)
    const segments = bulk.burst()
    const { c } = bulk
    if (segments !== 80) net.fail(`${segments} on their way`)
    // The writer stops: everything is acknowledged, and nothing is sent for a while.
    for (;;) {
      c.send({ flags: 'A', ack: bulk.next })
      if (bulk.burst() === 0) break
    }
    net.wait(5000)
    bulk.fill()
    const burst = bulk.burst()
    if (burst !== 10) net.fail(`a burst of ${burst} after idling`)
  },
  { flags: BOOT_FLAG_NO_TAIL_PROBES },
)

tcpTest(
  'short of an RTO the window is kept',
  (net) => {
    const bulk = new Bulk(net)
    for (let i = 0; i < 3; i++) bulk.round(50)
    bulk.burst()
    const { c } = bulk
    for (;;) {
      c.send({ flags: 'A', ack: bulk.next })
      if (bulk.burst() === 0) break
    }
    net.wait(100)
    bulk.fill()
    const burst = bulk.burst()
    if (burst < 40) net.fail(`a burst of ${burst}`)
  },
  { flags: BOOT_FLAG_NO_TAIL_PROBES },
)
