/** Attackers who cannot see the connection: RFC 5961, RFC 9293 §3.10.7.4. */
import * as M from '../abi/messages.ts'
import * as S from '../abi/status.ts'
import { tcpTest } from './support/tcp-script.ts'
import { connected, established, STATES } from './support/tcp-states.ts'

const SYNCHRONIZED = ['ESTABLISHED', 'FIN-WAIT-1', 'FIN-WAIT-2', 'CLOSE-WAIT', 'CLOSING', 'LAST-ACK']

for (const state of SYNCHRONIZED) {
  tcpTest(`${state}: RST in the window but not at RCV.NXT is challenged and does nothing (RFC 5961 §3.2)`, (net) => {
    const c = STATES[state]!(net)
    const una = { seq: c.rcvNxt, ack: c.sndNxt }
    for (const distance of [1, 100, 8000]) {
      c.send({ flags: 'R', seq: c.sndNxt + distance })
      c.expect({ flags: 'A', length: 0, ...una })
    }
    c.expectQuietHost()
    if (net.card.state('tcbUsed') !== 1) net.fail('the connection is gone')
  })

  tcpTest(`${state}: RST outside the window is dropped in silence (RFC 5961 §3.2)`, (net) => {
    const c = STATES[state]!(net)
    for (const distance of [-1, -1000, 1_000_000, 0x7fffffff]) c.send({ flags: 'R', seq: c.sndNxt + distance })
    c.expectNothing(100)
    if (net.card.state('tcbUsed') !== 1) net.fail('the connection is gone')
  })

  tcpTest(`${state}: SYN anywhere is challenged and does nothing (RFC 5961 §4.2)`, (net) => {
    const c = STATES[state]!(net)
    const una = { seq: c.rcvNxt, ack: c.sndNxt }
    for (const distance of [0, 100, -100, 1_000_000]) {
      c.send({ flags: 'S', seq: c.sndNxt + distance })
      c.expect({ flags: 'A', length: 0, ...una })
      c.send({ flags: 'SA', seq: c.sndNxt + distance, ack: 1 })
      c.expect({ flags: 'A', length: 0, ...una })
    }
    if (net.card.state('tcbUsed') !== 1) net.fail('the connection is gone')
  })
}

tcpTest('data whose ACK is of what was never sent is answered and dropped (RFC 9293 §3.10.7.4, fifth)', (net) => {
  const c = established(net)
  for (const ack of [2, 100_000, 0x7fffffff]) {
    c.send({ flags: 'A', seq: 1, ack, payload: 'evil' })
    c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  }
  c.expectRead('')
})

tcpTest('data whose ACK is older than the largest window is answered and dropped (RFC 5961 §5.2)', (net) => {
  const c = established(net, { window: 1000 })
  c.send({ flags: 'A', seq: 1, ack: 1 - 1001, payload: 'evil' })
  c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  c.expectRead('')
  // As old as the window allows it may be a real segment that was late.
  c.send({ flags: 'A', seq: 1, ack: 1 - 1000, payload: 'late' })
  c.expectRead('late')
  c.expect({ flags: 'A', ack: 5, after: 40 })
})

tcpTest('challenge ACKs are limited: no more than 100 a second over all connections (RFC 5961 §7)', (net) => {
  const conns = Array.from({ length: 4 }, () => established(net))
  net.wait(2000)
  let answers = 0
  for (let i = 0; i < 400; i++) {
    const c = conns[i % 4]!
    c.send({ flags: 'S', seq: 77 })
    answers += c.drain().length
  }
  if (answers > 100 || answers < 20) net.fail(`${answers} challenge ACKs at one instant`)
  net.wait(1000)
  conns[0]!.send({ flags: 'S', seq: 77 })
  conns[0]!.expect({ flags: 'A' })
})

tcpTest('how many challenge ACKs a second has left cannot be counted from outside (CVE-2016-5696)', (net) => {
  const c = established(net)
  const counts = new Set<number>()
  for (let second = 0; second < 8; second++) {
    net.wait(1001)
    let answers = 0
    for (let i = 0; i < 150; i++) {
      c.send({ flags: 'S', seq: 77 })
      answers += c.drain().length
    }
    counts.add(answers)
  }
  if (counts.size < 3) net.fail(`always ${[...counts]} challenge ACKs`)
})

tcpTest('resets in answer to a flood of strays are limited', (net) => {
  const c = established(net, { cardPort: 7001 })
  let answers = 0
  for (let i = 0; i < 3000; i++) {
    net.queue(
      0,
      c.frame({ flags: 'A', seq: i, ack: i }).map((byte, at) => (at === 37 ? 99 : byte)),
    )
    if (i % 100 === 99) net.run()
  }
  net.run()
  answers = net.card.counter('tcpResetsOut')
  if (answers > 1000) net.fail(`${answers} resets`)
  net.strays = []
  c.drain()
  net.lenient = true
})

tcpTest('a real reset still ends it after all the wrong ones', (net) => {
  const c = connected(net)
  for (let i = 0; i < 300; i++) c.send({ flags: 'R', seq: 10 + i })
  c.drain()
  c.send({ flags: 'R', seq: 1 })
  c.expectEvent(M.EVENT_RESET, S.STATUS_ECONNRESET)
  net.expectClean()
})

tcpTest('FIN far outside the window is answered and dropped', (net) => {
  const c = established(net)
  c.send({ flags: 'FA', seq: 1_000_000 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  if (c.ended) net.fail('ended')
})

tcpTest('a blind window: an old segment does not change the send window', (net) => {
  const c = established(net, { window: 5000 })
  c.send({ flags: 'A', seq: -500, payload: 1, window: 0 })
  c.expect({ flags: 'A', seq: 1, ack: 1 })
  c.write(1460)
  c.expect({ seq: 1, length: 1460 })
  c.send({ flags: 'A' })
})
