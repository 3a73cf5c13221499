/** Timestamps and PAWS: RFC 7323. */
import { pattern, tcpTest } from './support/tcp-script.ts'
import { connected, established, type StateOptions, unattached } from './support/tcp-states.ts'

const STAMPED: StateOptions = { timestamps: true }

tcpTest("once agreed, every segment carries timestamps and echoes the peer's (RFC 7323 §3.2)", (net) => {
  for (const state of [established, connected]) {
    const c = state(net, STAMPED)
    c.write('x')
    const first = c.expect({ timestamps: true })
    net.wait(30)
    c.send({ flags: 'PA', payload: 'y' })
    net.wait(50)
    const ack = c.expect({ flags: 'A', timestamps: true })
    if (ack.timestamps![1] !== c.tsNow - 50) net.fail(`echo ${ack.timestamps![1]}, not ${c.tsNow - 50}`)
    const elapsed = ack.timestamps![0] - first.timestamps![0]
    if (elapsed < 60 || elapsed > 80) net.fail(`the clock ran ${elapsed} in 70 ms`)
    c.end()
    c.expect({ flags: 'FA', timestamps: true })
    c.abort()
    c.expect({ flags: 'RA' })
  }
})

tcpTest('a segment without the option is dropped in silence (RFC 7323 §3.2)', (net) => {
  const c = established(net, STAMPED)
  c.send({ flags: 'PA', payload: 'x', seq: 1, ts: null })
  c.expectNothing(100)
  c.expectRead('')
  c.send({ flags: 'PA', payload: 'x', seq: 1 })
  c.expectRead('x')
  c.expect({ flags: 'A', ack: 2, after: 40 })
})

tcpTest('PAWS: an older timestamp is answered and dropped (RFC 7323 §5.3 R1)', (net) => {
  const c = established(net, STAMPED)
  net.wait(100)
  c.send({ flags: 'PA', payload: 'new' })
  c.expect({ flags: 'A', ack: 4, after: 40 })
  c.send({ flags: 'PA', payload: 'old', ts: [c.tsNow - 200, c.tsRecent], seq: 4 })
  c.expect({ flags: 'A', seq: 1, ack: 4, length: 0 })
  c.expectRead('new')
})

tcpTest('PAWS: the same timestamp is good, and so is one that wrapped (RFC 7323 §5.2)', (net) => {
  const c = established(net, STAMPED)
  const now = c.tsNow
  c.send({ flags: 'A', payload: 10, ts: [now, c.tsRecent] })
  c.send({ flags: 'A', payload: 10, ts: [now, c.tsRecent] })
  c.expect({ flags: 'A', ack: 21 })
  c.send({ flags: 'A', payload: 10, ts: [(now + 0x7fffffff) >>> 0, c.tsRecent] })
  c.send({ flags: 'A', payload: 10, ts: [(now + 0xfffffff0) >>> 0, c.tsRecent] })
  c.expect({ flags: 'A', ack: 41 })
  c.expectRead(pattern(1, 40))
})

tcpTest('PAWS does not apply to RST (RFC 7323 §5.3 R1)', (net) => {
  const c = established(net, STAMPED)
  net.wait(100)
  c.send({ flags: 'PA', payload: 'x' })
  c.drain()
  c.send({ flags: 'R', ts: [c.tsNow - 1000, 0] })
  net.expectClean()
})

tcpTest('PAWS: RST without timestamps counts', (net) => {
  const c = established(net, STAMPED)
  c.send({ flags: 'R', ts: null })
  net.expectClean()
})

tcpTest('PAWS: after 24 days of silence any timestamp is good (RFC 7323 §5.5)', (net) => {
  const c = established(net, STAMPED)
  const old = c.tsNow
  net.wait(25 * 86_400_000)
  c.send({ flags: 'PA', payload: 'hello', ts: [old - 5000, c.tsRecent] })
  c.expectRead('hello')
  c.drain()
})

tcpTest('what is echoed is of the segment at the left edge, not of one out of order (RFC 7323 §4.3)', (net) => {
  const c = established(net, STAMPED)
  const base = c.tsNow
  net.wait(10)
  c.send({ flags: 'A', seq: 101, payload: 100, ts: [base + 10, c.tsRecent] })
  c.expect({ flags: 'A', ack: 1, timestamps: [c.tsRecent, base] })
  c.send({ flags: 'A', seq: 1, payload: 100, ts: [base + 5, c.tsRecent] })
  const filled = c.expect({ flags: 'A', ack: 201 })
  if (filled.timestamps![1] !== base + 5) net.fail(`echo ${filled.timestamps![1] - base}, not 5`)
})

tcpTest('with delayed ACKs the earlier of two timestamps is echoed (RFC 7323 §4.3)', (net) => {
  const c = established(net, STAMPED)
  const base = c.tsNow
  c.send({ flags: 'A', payload: 100, ts: [base + 1, c.tsRecent] })
  c.send({ flags: 'A', payload: 100, ts: [base + 9, c.tsRecent] })
  const ack = c.expect({ flags: 'A', ack: 201 })
  if (ack.timestamps![1] !== base + 1) net.fail(`echo ${ack.timestamps![1] - base}, not 1`)
})

tcpTest('segments keep within the MSS with the option in them (RFC 6691 §2)', (net) => {
  const c = established(net, { ...STAMPED, mss: 1000 })
  c.write(5000)
  const seen = c.drain()
  if (seen.some(({ length }) => length > 988)) net.fail('segment too long')
  c.send({ flags: 'A' })
  c.drain()
})

tcpTest('the clocks of two peers start at different values, and of one peer go on (RFC 7323 §5.4)', (net) => {
  const first = unattached(net, STAMPED)
  const again = unattached(net, STAMPED)
  const other = unattached(net, { ...STAMPED, peer: { port: 0, mac: '02:00:00:00:aa:fe', ip: '192.0.2.254' } })
  if (first.tsRecent !== again.tsRecent) net.fail('another clock for the same peer')
  if (Math.abs(first.tsRecent - other.tsRecent) < 1000) net.fail('the same clock for two peers')
})
