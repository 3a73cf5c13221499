/** The debug engine over a farm in virtual time, with the release build of ipOS. */
import test from 'ava'
import { DebugKit } from './support/debug-kit.ts'

test('a breakpoint on the line that handles the SYN: stops, shows where, steps, and the client is served all the same', async (t) => {
  const kit = new DebugKit({ servers: 1 })
  kit.listen()
  await kit.settle()
  const { session } = kit
  const breakpoint = session.addBreakpoint({ kind: 'function', name: 'handshakeInput' })
  t.true(breakpoint.verified)
  const answer = kit.ask()
  const running = kit.goFor(1000)
  const stop = await kit.nextStop()
  t.is(stop.reason, 'breakpoint')
  t.deepEqual(stop.breakpoints, [breakpoint.id])
  t.regex(kit.at(), /^handshakeInput at firmware\/tcp\/handshake\.ts:\d+$/)
  const names = session.frames(1).map(({ functionName }) => functionName)
  t.true(names.includes('tcpInput') && names.at(-1) === 'poll', names.join(' '))
  session.removeBreakpoint(breakpoint.id)
  const lines = [kit.at()]
  for (let n = 0; n < 5; n++) {
    t.is((await session.step(1, 'over')).reason, 'step')
    lines.push(kit.at())
  }
  t.true(
    lines.every((line, n) => line !== lines[n + 1]),
    lines.join('\n'),
  )
  // And back the same way.
  for (const line of lines.slice(0, -1).reverse()) {
    t.is((await session.stepBack(1, 'over')).reason, 'step')
    t.is(kit.at(), line)
    t.false(session.position.live)
  }
  t.is((await session.goLive()).reason, 'live')
  t.is(kit.at(), lines.at(-1))
  const over = session.continue()
  t.is(await answer, 'hello from the farm')
  await running
  await session.detach()
  await t.throwsAsync(over)
  await kit.close()
})

test('conditions, hit conditions and log points', async (t) => {
  const kit = new DebugKit({ servers: 1 })
  kit.listen()
  await kit.settle()
  const { session } = kit
  const log: string[] = []
  session.on('output', (category, source, text) => {
    if (category === 'log') log.push(`${source}: ${text}`)
  })
  session.addBreakpoint({ kind: 'function', name: 'handshakeInput', logMessage: 'SYN from {ip(tcb.remoteAddress)}' })
  const third = session.addBreakpoint({ kind: 'function', name: 'handshakeInput', hitCondition: '3' })
  const running = kit.goFor(5000)
  const answers = [kit.ask(), kit.ask(), kit.ask()]
  const stop = await kit.nextStop()
  t.deepEqual(stop.breakpoints, [third.id])
  t.is(third.hits, 3)
  t.is(log.length, 3, log.join('\n'))
  session.continue().catch(() => {})
  await Promise.all(answers)
  await running
  await session.detach()
  await kit.close()
})

test('the wire, TCP states, tables, watchpoints, going back to each', async (t) => {
  const kit = new DebugKit({ servers: 1 })
  kit.listen()
  await kit.settle()
  const { session } = kit
  const syn = session.addBreakpoint({ kind: 'frame', filter: 'tcp.flags.syn', direction: 'in', port: 'server1' })
  const running = kit.goFor(5000)
  const answer = kit.ask()
  const first = await kit.nextStop()
  t.is(first.reason, 'frame')
  t.regex(first.text, /^server1\.0 receives TCP 192\.0\.2\.101.*SYN/)
  session.setEnabled(syn.id, false)
  const state = session.addBreakpoint({ kind: 'tcp-state', to: 'ESTABLISHED' })
  const second = await session.continue()
  t.is(second.reason, 'state')
  t.regex(second.text, /SYN-RECEIVED.* → .*ESTABLISHED/)
  session.setEnabled(state.id, false)
  const watch = session.addBreakpoint({ kind: 'watch', expression: 'tcb[*].rcvNxt' })
  const third = await session.continue()
  t.is(third.reason, 'watchpoint')
  t.deepEqual(third.breakpoints, [watch.id])
  session.setEnabled(watch.id, false)
  session.setEnabled(state.id, true)
  const back = await session.reverseContinue()
  t.is(back.reason, 'state')
  t.is(back.text, second.text)
  session.setEnabled(state.id, false)
  session.setEnabled(syn.id, true)
  const wire = await session.reverseContinue()
  t.is(wire.reason, 'frame')
  t.is(wire.text, first.text)
  t.is((await session.reverseContinue()).reason, 'history')
  t.throws(() => session.writeMemory(1, 0x12000, Uint8Array.of(1)), { message: /past cannot be changed/ })
  session.setEnabled(syn.id, false)
  t.is((await session.continue()).reason, 'live')
  session.continue().catch(() => {})
  t.is(await answer, 'hello from the farm')
  await running
  await session.detach()
  await kit.close()
})

test('a live migration across two INICs: in the sender, in the receiver, and back', async (t) => {
  const kit = new DebugKit({ servers: 2 })
  const received: string[] = []
  for (const server of kit.servers) {
    const listener = server.net.createServer((socket) => {
      socket.once('data', () => {
        socket.write('one, ')
        socket.migrate('server2', 'state').catch((error: Error) => received.push(error.message))
      })
    })
    listener.on('migrate', (socket) => socket.end('two'))
    listener.listen(80)
  }
  await kit.settle()
  const { session } = kit
  const gives = session.addBreakpoint({ kind: 'function', name: 'giveAcknowledged', threads: [1] })
  t.true(gives.verified, gives.message)
  const answer = kit.ask()
  const running = kit.goFor(5000)
  const sender = await kit.nextStop()
  t.is(sender.thread, 1)
  t.true(
    session.frames(1).some(({ source }) => source?.file === 'firmware/ipos/give.ts'),
    kit.at(1),
  )
  t.deepEqual(session.frames(2), [], 'the other INIC is between two slices')
  const arrives = session.addBreakpoint({ kind: 'function', name: 'firmware/ipos/take/takeCommitted', threads: [2] })
  t.true(arrives.verified, arrives.message)
  const receiver = await session.continue()
  t.is(receiver.thread, 2)
  t.true(
    session.frames(2).some(({ source }) => source?.file === 'firmware/ipos/take.ts'),
    kit.at(2),
  )
  session.setEnabled(arrives.id, false)
  await session.step(2, 'over')
  t.is(session.position.live, true)
  const back = await session.reverseContinue()
  t.is(back.thread, 1)
  t.deepEqual(back.breakpoints, [gives.id])
  t.is(back.position.slice, sender.position.slice)
  session.setEnabled(gives.id, false)
  await session.goLive()
  session.continue().catch(() => {})
  t.is(await answer, 'one, two')
  await running
  t.deepEqual(received, [])
  await session.detach()
  await kit.close()
})
