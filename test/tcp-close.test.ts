/** Closing a connection: every transition of RFC 9293 figure 5, half-open both ways, RST rules (§3.6, §3.10.4, §3.10.7.4). */
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { type Conn, pattern, type TcpNet, tcpTest } from './support/tcp-script.ts'
import {
  closeWait,
  closing,
  connected,
  established,
  finWait1,
  finWait2,
  lastAck,
  STATES,
  synReceived,
  synSent,
  timeWait,
} from './support/tcp-states.ts'

const MSL2 = 60_000

/** What is left of the connection: 1 = a TCB, 2 = a TIME-WAIT record, 0 = nothing. */
function left(net: TcpNet): string {
  return `${net.card.state('tcbUsed')} TCB, ${net.card.state('timeWaitUsed')} TIME-WAIT`
}

function expectLeft(net: TcpNet, expected: string): void {
  if (left(net) !== expected) net.fail(`${left(net)}; expected ${expected}`)
}

// ── the active close ──

tcpTest('ESTABLISHED, end: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, CLOSED after 2 MSL (RFC 9293 §3.6, case 1)', (net) => {
  const c = finWait1(net)
  c.send({ flags: 'A', ack: 2 })
  c.expectNothing(1000)
  c.send({ flags: 'FA' })
  c.expect({ flags: 'A', seq: 2, ack: 2, length: 0 })
  c.expectEnd()
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
  c.expectNothing(MSL2 - 100)
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
  net.wait(200)
  net.expectClean()
})

tcpTest('FIN and the ACK of ours in one segment: FIN-WAIT-1 to TIME-WAIT (RFC 9293 §3.10.7.4)', (net) => {
  const c = finWait1(net)
  c.send({ flags: 'FA', ack: 2 })
  c.expect({ flags: 'A', seq: 2, ack: 2 })
  c.expectEnd()
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
})

tcpTest('simultaneous close: FIN-WAIT-1, CLOSING, TIME-WAIT (RFC 9293 §3.6, figure 13)', (net) => {
  const c = finWait1(net)
  c.send({ flags: 'FA', ack: 1 })
  c.expect({ flags: 'A', seq: 2, ack: 2, length: 0 })
  c.expectEnd()
  expectLeft(net, '1 TCB, 0 TIME-WAIT')
  c.send({ flags: 'A', ack: 2 })
  // An ACK needs no ACK.
  c.expectNothing(1000)
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
})

tcpTest('CLOSING: our FIN is repeated until it is acknowledged', (net) => {
  const c = closing(net)
  c.expect({ flags: 'FA', seq: 1, ack: 2, after: 200 })
  c.expect({ flags: 'FA', seq: 1, ack: 2, after: 400 })
  c.send({ flags: 'A', ack: 2 })
  c.expectNothing(1000)
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
})

tcpTest("CLOSING: the peer's FIN again is answered, and an ACK of nothing new changes nothing", (net) => {
  const c = closing(net)
  c.send({ flags: 'FA', seq: 1, ack: 1 })
  c.expect({ flags: 'A', seq: 2, ack: 2 })
  c.send({ flags: 'A', ack: 1 })
  expectLeft(net, '1 TCB, 0 TIME-WAIT')
  c.send({ flags: 'A', ack: 2 })
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
})

tcpTest('FIN-WAIT-1 with data on its way: the FIN counts only when all before it is acknowledged', (net) => {
  const c = established(net)
  c.write(2920, { fin: true })
  c.expect({ flags: 'A', seq: 1, length: 1460 })
  c.expect({ flags: 'FA', seq: 1461, length: 1460 })
  c.send({ flags: 'A', ack: 2921 })
  c.send({ flags: 'FA', ack: 2921 })
  c.expect({ flags: 'A', seq: 2922, ack: 2 })
  expectLeft(net, '1 TCB, 0 TIME-WAIT')
  c.send({ flags: 'A', ack: 2922 })
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
})

// ── the passive close ──

tcpTest('the peer ends first: CLOSE-WAIT, LAST-ACK, CLOSED at once (RFC 9293 §3.6, case 2)', (net) => {
  const c = closeWait(net)
  c.expectNothing(100_000)
  c.write('late')
  c.expect({ flags: 'A', seq: 1, ack: 2, payload: 'late' })
  c.send({ flags: 'A' })
  c.end()
  c.expect({ flags: 'FA', seq: 5, ack: 2 })
  c.send({ flags: 'A', ack: 6 })
  c.expectNothing(1000)
  net.expectClean()
})

tcpTest('LAST-ACK: an ACK of less than the FIN does not end it', (net) => {
  const c = lastAck(net)
  c.send({ flags: 'A', ack: 1 })
  expectLeft(net, '1 TCB, 0 TIME-WAIT')
  c.send({ flags: 'A', ack: 2 })
  net.expectClean()
})

tcpTest('FIN is acknowledged with the data before it, and both reach the host', (net) => {
  const c = established(net)
  c.send({ flags: 'FPA', payload: 'last words' })
  c.expectRead('last words')
  c.expectEnd()
  c.expect({ flags: 'A', ack: 12, after: 40 })
})

tcpTest('FIN before the data it follows waits, is answered, and then counts (RFC 9293 §3.10.7.4)', (net) => {
  const c = established(net)
  c.send({ flags: 'FA', seq: 101, payload: 50 })
  c.expect({ flags: 'A', ack: 1 })
  c.send({ flags: 'FA', seq: 151 })
  c.expect({ flags: 'A', ack: 1 })
  if (c.ended) net.fail('ended early')
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.expect({ flags: 'A', ack: 152 })
  c.expectRead(pattern(1, 150))
  c.expectEnd()
})

tcpTest('a repeated FIN is answered and told once', (net) => {
  const c = closeWait(net)
  for (let i = 0; i < 3; i++) {
    c.send({ flags: 'FA', seq: 1 })
    c.expect({ flags: 'A', ack: 2 })
  }
  net.wait(1000)
})

tcpTest('data beyond the FIN is ignored (RFC 9293 §3.10.7.4, seventh: CLOSE-WAIT)', (net) => {
  const c = closeWait(net)
  c.send({ flags: 'A', seq: 2, payload: 100 })
  c.expectRead('')
  net.wait(100)
  c.drain()
})

tcpTest('a FIN that contradicts bytes that came before is not believed, and the connection goes on', (net) => {
  const c = established(net)
  c.send({ flags: 'A', seq: 101, payload: 100 })
  c.send({ flags: 'FA', seq: 51 })
  c.drain()
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.expectRead(pattern(1, 200))
  if (c.ended) net.fail('ended')
  c.drain()
  c.send({ flags: 'FA', seq: 201 })
  c.expectEnd()
  // At once, as the peer has just repaired a loss.
  c.expect({ flags: 'A', ack: 202, after: 0 })
})

tcpTest('bytes beyond a FIN that waits are cut off', (net) => {
  const c = established(net)
  c.send({ flags: 'FA', seq: 101 })
  c.send({ flags: 'A', seq: 51, payload: 100 })
  c.send({ flags: 'A', seq: 1, payload: 100 })
  c.expectRead(pattern(1, 100))
  c.expectEnd()
  if (c.drain().at(-1)!.ack !== 102) net.fail('FIN not acknowledged')
})

// ── half-open ──

tcpTest('after our FIN we still receive, for as long as the peer likes (RFC 9293 §3.6)', (net) => {
  const c = finWait2(net)
  let from = 1
  for (let i = 0; i < 10; i++) {
    c.send({ flags: 'A', payload: 1000 })
    c.expect({ flags: 'A', seq: 2, after: 40 })
    c.expectRead(pattern(from, 1000))
    from += 1000
    net.wait(60_000)
  }
  c.send({ flags: 'FA' })
  c.expect({ flags: 'A', ack: from + 1 })
  c.expectEnd()
})

tcpTest("after the peer's FIN we still send, window, retransmission and all (RFC 9293 §3.6)", (net) => {
  const c = closeWait(net)
  c.write(30_000)
  let got = 1
  let bursts = 0
  for (let i = 0; i < 300 && got < 30_001; i++) {
    const data = c.data()
    if (data.length === 0) net.wait(100)
    // Every third burst is lost.
    if (data.length > 0 && ++bursts % 3 === 2) continue
    for (const [seq, length] of data) if (seq <= got) got = Math.max(got, seq + length)
    c.send({ flags: 'A', ack: got })
  }
  if (got !== 30_001) net.fail(`stopped at ${got}`)
  c.drain()
})

// ── the application lets go ──

tcpTest("close: FIN after what was written; the rest is TCP's own affair (RFC 9293 §3.10.4)", (net) => {
  const c = established(net)
  c.write('bye')
  c.close()
  c.expect({ flags: 'A', seq: 1, payload: 'bye' })
  c.expect({ flags: 'FA', seq: 4 })
  c.send({ flags: 'A', ack: 5 })
  c.send({ flags: 'FA' })
  c.expect({ flags: 'A', seq: 5, ack: 2 })
  c.expectQuietHost()
  expectLeft(net, '0 TCB, 1 TIME-WAIT')
})

tcpTest('close with bytes that nobody consumed: RST (RFC 1122 §4.2.2.13, RFC 9293 §3.6.1)', (net) => {
  const c = established(net)
  c.send({ flags: 'PA', payload: 'unread' })
  c.expectRead('unread') // delivered to the host, but the application has not taken it
  c.close()
  c.expect({ flags: 'RA', seq: 1, ack: 7 })
  net.expectClean()
})

tcpTest('close with bytes that wait on the card: RST', (net) => {
  net.card.setReplenish(2, false)
  const c = established(net)
  for (let i = 0; i < 300; i++) c.send({ flags: 'A', payload: 100 })
  c.drain()
  c.close()
  c.expect({ flags: 'RA', seq: 1 })
  net.expectClean()
})

tcpTest('close after everything was consumed: FIN', (net) => {
  const c = established(net)
  c.send({ flags: 'PA', payload: 'read' })
  c.credit(4)
  c.drain()
  c.close()
  c.expect({ flags: 'FA', seq: 1, ack: 5 })
  c.send({ flags: 'A' })
})

tcpTest('close after the end of the stream and all consumed: FIN', (net) => {
  const c = established(net)
  c.send({ flags: 'FPA', payload: 'read' })
  c.expectEnd()
  c.credit(4)
  c.drain()
  c.close()
  c.expect({ flags: 'FA', seq: 1, ack: 6 })
  c.send({ flags: 'A' })
  net.expectClean()
})

for (const [name, state] of Object.entries({ ESTABLISHED: established, 'FIN-WAIT-2': finWait2 })) {
  tcpTest(`data that comes after close in ${name} is reset (RFC 1122 §4.2.2.13)`, (net) => {
    const c = state(net)
    c.close()
    if (name === 'ESTABLISHED') c.expect({ flags: 'FA', seq: 1 })
    c.send({ flags: 'PA', payload: 'anybody there?' })
    c.expect({ flags: 'RA', seq: 2 })
    c.expectNothing(1000)
    net.expectClean()
  })
}

tcpTest('data out of order after close is reset too', (net) => {
  const c = established(net)
  c.close()
  c.expect({ flags: 'FA', seq: 1 })
  c.send({ flags: 'A', seq: 101, payload: 100, ack: 2 })
  c.expect({ flags: 'RA', seq: 2 })
  net.expectClean()
})

tcpTest('FIN-WAIT-2 ends after a minute once the application has let go', (net) => {
  const c = established(net)
  c.close()
  c.expect({ flags: 'FA' })
  c.send({ flags: 'A', ack: 2 })
  c.expectNothing(59_000)
  expectLeft(net, '1 TCB, 0 TIME-WAIT')
  net.wait(2000)
  c.expectNothing()
  net.expectClean()
})

tcpTest('FIN-WAIT-2 does not end while the application reads; close starts the minute', (net) => {
  const c = finWait2(net)
  c.expectNothing(600_000)
  c.close()
  c.expectNothing(59_000)
  expectLeft(net, '1 TCB, 0 TIME-WAIT')
  net.wait(2000)
  net.expectClean()
})

tcpTest('close twice, end after close, abort after close: the handle is dead and nothing happens', (net) => {
  const c = established(net)
  c.close()
  c.expect({ flags: 'FA' })
  c.close()
  c.end()
  c.abort()
  c.write('x')
  c.credit(1)
  c.expectNothing(100)
  c.send({ flags: 'A', ack: 2 })
})

tcpTest(
  'the handle is dead once both sides have ended, and the connection goes on by itself (abi/messages.ts)',
  (net) => {
    const c = closeWait(net)
    c.write('last', { fin: true })
    c.expect({ flags: 'FA', seq: 1, payload: 'last' })
    c.abort()
    c.expectNothing(100)
    c.expect({ flags: 'FA', seq: 1, after: 100 })
    c.send({ flags: 'A' })
    net.expectClean()
  },
)

// ── abort and reset ──

const ABORT: Record<string, { seq: number; ack: number; reset: boolean }> = {
  ESTABLISHED: { seq: 1, ack: 1, reset: true },
  'FIN-WAIT-1': { seq: 2, ack: 1, reset: true },
  'FIN-WAIT-2': { seq: 2, ack: 1, reset: true },
  'CLOSE-WAIT': { seq: 1, ack: 2, reset: true },
}
for (const [name, { seq, ack }] of Object.entries(ABORT)) {
  tcpTest(`abort in ${name} sends RST, and nothing is left (RFC 9293 §3.10.5)`, (net) => {
    const c = STATES[name]!(net)
    c.abort()
    c.expect({ flags: 'RA', seq, ack, length: 0 })
    c.expectNothing(5000)
    c.expectQuietHost()
    net.expectClean()
  })
}

tcpTest('abort throws away what was written and not sent', (net) => {
  const c = established(net, { window: 1460 })
  c.write(10_000)
  c.expect({ length: 1460 })
  c.abort()
  c.expect({ flags: 'RA', seq: 1461 })
  c.expectNothing(5000)
  net.expectClean()
})

tcpTest('abort while a retransmission is under way: RST at SND.NXT', (net) => {
  const c = established(net)
  c.write(14_600)
  c.data()
  c.expect({ seq: 1, after: 200 })
  c.abort()
  c.expect({ flags: 'RA', seq: 14_601 })
  net.expectClean()
})

/** What the host hears of a RST in each state. */
const RESET: Record<string, (c: Conn) => void> = {
  ESTABLISHED: (c) => void c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET),
  'FIN-WAIT-1': (c) => void c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET),
  'FIN-WAIT-2': (c) => void c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET),
  'CLOSE-WAIT': (c) => void c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET),
  CLOSING: (c) => c.expectQuietHost(),
  'LAST-ACK': (c) => c.expectQuietHost(),
  unattached: (c) => c.expectQuietHost(),
  'SYN-RECEIVED': (c) => c.expectQuietHost(),
}
for (const [name, told] of Object.entries(RESET)) {
  tcpTest(`RST in ${name} ends it at once (RFC 9293 §3.10.7.4, second)`, (net) => {
    const c = STATES[name]!(net)
    c.drain()
    c.send({ flags: 'R', seq: c.sndNxt })
    c.expectNothing(5000)
    told(c)
    net.expectClean()
  })
}

tcpTest('RST drops bytes that wait on both sides', (net) => {
  net.card.setReplenish(2, false)
  const c = established(net)
  for (let i = 0; i < 400; i++) c.send({ flags: 'A', payload: 100 })
  c.write(50_000)
  c.drain()
  c.send({ flags: 'R', seq: c.sndNxt })
  c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET)
  net.expectClean()
})

/** A segment for a connection that is gone. */
for (const [name, finish] of Object.entries({
  'after RST': (c: Conn) => c.send({ flags: 'R', seq: c.sndNxt }),
  'after abort': (c: Conn) => {
    c.abort()
    c.expect({ flags: 'RA' })
  },
})) {
  tcpTest(`what still comes ${name} is reset (RFC 9293 §3.10.7.1)`, (net) => {
    const c = established(net)
    finish(c)
    c.send({ flags: 'PA', payload: 'x', seq: 1, ack: 1 })
    c.expect({ flags: 'R', seq: 1 })
  })
}

tcpTest('half-open connection: the peer has rebooted and sends a new SYN (RFC 9293 §3.5.1, figure 9)', (net) => {
  const c = established(net)
  // The rebooted peer's SYN is challenged, its RST in answer ends the old connection, and its next SYN is served.
  c.send({ flags: 'S', seq: 50_000 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  c.send({ flags: 'R', seq: 1 })
  c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET)
  c.handle = 0
  c.iss = (c.iss + 50_000) >>> 0
  c.sndNxt = 0
  c.sendSyn()
  c.expect({ flags: 'SA', seq: 0, ack: 1 })
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
})

tcpTest('half-open connection: we send into a peer that has rebooted (RFC 9293 §3.5.1, figure 10)', (net) => {
  const c = established(net)
  c.write('hello?')
  c.expect({ payload: 'hello?' })
  c.send({ flags: 'R', seq: 1 })
  c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET)
  net.expectClean()
})

// ── the host's side of closing ──

tcpTest('a host without buffers hears of the end later, and the connection is not kept open for it', (net) => {
  net.card.setReplenish(2, false)
  const c = finWait2(net)
  for (let i = 0; i < 256; i++) c.send({ flags: 'A', payload: 10 })
  c.send({ flags: 'FA', payload: 5 })
  c.drain()
  const before = c.read().length
  if (c.ended) net.fail('told without a buffer')
  net.wait(MSL2 + 1000)
  net.card.replenish(2, 4)
  net.run()
  if (before + c.read().length !== 2565) net.fail('bytes missing')
  c.expectEnd()
  net.expectClean()
})

tcpTest('many connections close at once, in both ways, and all come back', (net) => {
  const conns = Array.from({ length: 100 }, (_, i) =>
    i % 2 ? connected(net, { peerPort: 20_000 + i }) : established(net),
  )
  for (const [i, c] of conns.entries()) {
    if (i % 3 === 0) c.close()
    else if (i % 3 === 1) c.send({ flags: 'FA' })
    else c.end()
  }
  for (const [i, c] of conns.entries()) {
    if (i % 3 === 1) c.close()
    c.drain()
    c.send(i % 3 === 1 ? { flags: 'A' } : { flags: 'FA' })
    c.drain()
  }
  expectLeft(net, '0 TCB, 67 TIME-WAIT')
  net.wait(MSL2 + 1000)
  net.expectClean()
})

tcpTest('a process that dies leaves to TCP what it had closed, and the rest is reset', (net) => {
  const open = established(net)
  const closed = established(net)
  closed.write('last words')
  closed.close()
  closed.drain()
  const opening = synSent(net)
  const half = synReceived(net)
  const done = timeWait(net)
  net.killProcess()
  open.expect({ flags: 'RA', seq: 1, ack: 1 })
  half.expect({ flags: 'RA', seq: 1, ack: 1 })
  opening.expectNothing(5000)
  done.expectNothing()
  closed.drain()
  closed.send({ flags: 'A' })
  closed.send({ flags: 'FA' })
  closed.expect({ flags: 'A' })
  net.wait(MSL2 + 1000)
  net.expectClean()
})
