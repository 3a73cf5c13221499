/** Breakpoints outlive the power of a card: what was set before it is switched off, or crashes, stops it afterwards too. */
import test from 'ava'
import { MAC_BLOCK, MAC_RX_BASE, MAC_RX_ENTRIES } from '../abi/registers.ts'
import { DESCRIPTOR_ADDRESS, DESCRIPTOR_BYTES } from '../abi/rings.ts'
import type { BreakpointSpec, StopReason } from '../toolchain/debug/session/api.ts'
import { DebugKit } from './support/debug-kit.ts'

const SPECS: readonly (readonly [name: string, reason: StopReason, spec: BreakpointSpec])[] = [
  ['code', 'breakpoint', { kind: 'function', name: 'handshakeInput' }],
  ['a TCP state', 'state', { kind: 'tcp-state', to: 'ESTABLISHED' }],
  ['rows of a table', 'row', { kind: 'row', table: 'tcb', event: 'insert' }],
  ['memory', 'watchpoint', { kind: 'watch', expression: 'tcb[*].rcvNxt' }],
  ['frames', 'frame', { kind: 'frame', filter: 'tcp.flags.syn', direction: 'in' }],
]

/** Receive descriptors without buffers: the next frame is a bus fault. */
async function crash(kit: DebugKit): Promise<void> {
  const { session } = kit
  const { memory } = kit.server(1).board
  const base = memory!.register(MAC_BLOCK + MAC_RX_BASE)
  const end = base + memory!.register(MAC_BLOCK + MAC_RX_ENTRIES) * DESCRIPTOR_BYTES
  await session.pause()
  for (let descriptor = base; descriptor < end; descriptor += DESCRIPTOR_BYTES)
    session.writeMemory(1, descriptor + DESCRIPTOR_ADDRESS, Uint8Array.of(0xff, 0xff, 0xff, 0xff))
  const crashed = session.continue()
  const datagrams = kit.client().dgram.createSocket('udp4')
  datagrams.send('anyone there?', 80, kit.server(1).address)
  const running = kit.goFor(100)
  await Promise.race([crashed, running])
  if (session.stop?.exception?.kind !== 'bus-fault') throw new Error('the card did not crash')
  session.continue().catch(() => {})
  await running
  datagrams.close()
}

const ENDS: Readonly<Record<string, (kit: DebugKit) => Promise<void>>> = {
  'switched off and on': async (kit) => kit.server(1).board.powerOff(),
  'switched off after a crash': async (kit) => {
    await crash(kit)
    kit.server(1).board.powerOff()
  },
  'switched on after a crash': crash,
}

for (const [name, reason, spec] of SPECS)
  for (const [ending, end] of Object.entries(ENDS))
    test(`a breakpoint on ${name}, of a card ${ending}`, async (t) => {
      const kit = new DebugKit({ servers: 1 })
      kit.listen()
      await kit.settle()
      const { session } = kit
      const { id } = session.addBreakpoint(spec)
      const { bytes } = kit.server(1).board.memory!
      await end(kit)
      kit.powerOnServer(kit.server(1))
      t.is(bytes.length, 0, 'every processor over the memory before is disposed of')
      kit.listen()
      await kit.settle()
      t.is(session.state, 'running', session.stop?.text)
      const answer = kit.ask()
      const stopped = kit.nextStop()
      const running = kit.goFor(2000)
      const stop = await Promise.race([stopped, running])
      t.like(stop, { reason, breakpoints: [id], thread: 1 })
      session.setEnabled(id, false)
      session.continue().catch(() => {})
      t.is(await answer, 'hello from the farm')
      await running
      await session.detach()
      await kit.close()
    })

test('a card that is switched off while it is halted in mid-slice, and on again', async (t) => {
  const kit = new DebugKit({ servers: 1 })
  kit.listen()
  await kit.settle()
  const { session } = kit
  const { id } = session.addBreakpoint({ kind: 'function', name: 'handshakeInput' })
  const answer = kit.ask()
  const running = kit.goFor(5000)
  await kit.nextStop()
  const states: string[] = []
  session.on('thread', ({ state }) => states.push(state))
  kit.server(1).board.powerOff()
  t.is(session.threads[0]!.state, 'off')
  t.throws(() => session.frames(1), { message: /server1 is off/ })
  kit.powerOnServer(kit.server(1))
  kit.listen()
  t.deepEqual(session.frames(1), [])
  const again = await session.continue()
  t.deepEqual(again.breakpoints, [id])
  t.regex(kit.at(), /^handshakeInput at /)
  t.deepEqual(states, ['off', 'halted'])
  session.setEnabled(id, false)
  session.continue().catch(() => {})
  t.is(await answer, 'hello from the farm')
  await running
  await session.detach()
  await kit.close()
})
