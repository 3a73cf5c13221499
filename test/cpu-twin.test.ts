import test from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import {
  type CpuOptions,
  type DebugCpu,
  type DebugOutcome,
  USED_PAGE_BYTES,
  WasmtimeCpu,
} from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

const onWasmtime = hasAddon() ? test : test.skip
const onLinux = hasAddon() && process.platform === 'linux' ? test : test.skip

const MEMORY_BYTES = 1 << 20
const GUARD = [{ start: 0x2000, end: 0x10000 }]

/** A data segment, and a start function that changes memory: neither may happen again to memory that is in use. */
const FIRMWARE = `
  const COUNT: usize = 0x20000, OUT: usize = 0x20008;
  const WORDS = memory.data<u32>([7, 8, 9]);
  store<u32>(0x20100, load<u32>(0x20100) + 1);
  function mix(n: u32): u32 { return n * 2654435761 ^ n >> 7 }
  export function reset(): void { store<u32>(COUNT, 0) }
  export function poll(irqs: u32): u32 {
    const count = load<u32>(COUNT) + 1;
    store<u32>(COUNT, count);
    store<u32>(WORDS, load<u32>(WORDS) + count);
    if (irqs == 2) unreachable();
    if (irqs == 3) store<u32>(0x3000, 1);
    if (irqs == 4) memory.copy(0x1000, OUT, 4);
    if (irqs == 5) memory.fill(0x1f00, 1, 0x200);
    let sum = count;
    for (let i: u32 = 0; i < 50; i++) { sum = mix(sum + i); store<u32>(0x40000 + (sum & 0xfffc), sum) }
    store<u32>(OUT, sum);
    return sum & 0xffff
  }`

async function options(more: Partial<CpuOptions> = {}): Promise<CpuOptions> {
  const watch = { start: 0x1000, end: 0x1100 }
  return { module: await assemble(FIRMWARE), memoryBytes: MEMORY_BYTES, guard: GUARD, watch, ...more }
}

const finish = (cpu: DebugCpu, outcome: DebugOutcome): DebugOutcome =>
  outcome.state === 'stopped' ? finish(cpu, cpu.resume()) : outcome

onWasmtime('slices run by either of two CPUs are those of one', async (t) => {
  const [alone, plain] = [new WasmtimeCpu(await options()), new WasmtimeCpu(await options())]
  alone.reset()
  plain.reset()
  alone.poll(0)
  plain.poll(0)
  const twin = plain.debugTwin()
  t.is(twin, plain.debugTwin(), 'made once')
  t.is(twin.memory, plain.memory)
  t.deepEqual(Buffer.from(plain.memory), Buffer.from(alone.memory), 'making it changes nothing')
  for (let n = 0; n < 12; n++) {
    const irqs = n === 5 ? 4 : 0
    const result = alone.poll(irqs)
    if (n % 3 === 0) t.is(plain.poll(irqs), result)
    else {
      twin.singleStep(n % 3 === 2)
      t.deepEqual(finish(twin, twin.poll(irqs)), { state: 'done', result })
    }
    const ran = n % 3 === 0 ? plain : twin
    t.is(ran.cycles, alone.cycles)
    t.is(ran.stored, alone.stored)
    t.is(alone.stored, n === 5)
  }
  t.deepEqual(Buffer.from(plain.memory), Buffer.from(alone.memory))
})

onWasmtime('while the twin is in mid-call the CPU does not run', async (t) => {
  const plain = new WasmtimeCpu(await options())
  plain.reset()
  const twin = plain.debugTwin()
  twin.singleStep(true)
  t.is(twin.poll(0).state, 'stopped')
  t.is(plain.poll(0), -1)
  t.false(plain.reset())
  t.is(plain.fault, null)
  twin.singleStep(false)
  t.is(twin.resume().state, 'done')
  t.true(plain.poll(0) >= 0)
})

onWasmtime('a fault of one stops the other, until either is reset', async (t) => {
  const plain = new WasmtimeCpu(await options())
  plain.reset()
  const twin = plain.debugTwin()
  t.is(plain.poll(2), -1)
  t.is(twin.poll(0).state, 'fault')
  t.is(twin.fault?.kind, 'unreachable')
  t.is(twin.reset().state, 'done')
  t.is(plain.fault, null)
  t.true(plain.poll(0) >= 0)
  t.is(finish(twin, twin.poll(2)).state, 'fault')
  t.is(plain.poll(0), -1)
  t.is(plain.fault?.kind, 'unreachable')
  plain.clearFault()
  t.true(plain.poll(0) >= 0, 'or the fault is taken back')
  t.is(twin.poll(0).state, 'done')
})

onLinux('both guard the bus, and forget each their own faults', async (t) => {
  const plain = new WasmtimeCpu(await options())
  plain.reset()
  const twin = plain.debugTwin()
  for (const irqs of [3, 5]) {
    t.is(plain.poll(irqs), -1)
    t.is(plain.fault?.kind, 'bus-fault')
    t.is(twin.reset().state, 'done')
    t.true(plain.poll(0) >= 0)
    const outcome = twin.poll(irqs)
    t.like(outcome, { state: 'fault', fault: { kind: 'bus-fault' } })
    if (outcome.state !== 'fault') return
    t.is(outcome.fault.frames.at(-1)?.functionName, 'firmware/poll')
    const pc = outcome.fault.frames[0].pc ?? 0
    const { module } = await options()
    t.deepEqual([...module.subarray(pc, pc + 2)], irqs === 3 ? [0x36, 0x02] : [0xfc, 0x0b])
    t.true(plain.reset())
    t.is(twin.poll(0).state, 'done')
  }
})

for (const first of ['plain', 'twin'] as const) {
  onWasmtime(`memory goes with the last: ${first} first`, async (t) => {
    const plain = new WasmtimeCpu(await options())
    plain.reset()
    const { memory } = plain
    const twin = plain.debugTwin()
    if (first === 'plain') plain.dispose()
    else twin.dispose()
    t.is(memory.byteLength, MEMORY_BYTES)
    if (first === 'plain') {
      t.is(twin.poll(0).state, 'done')
      t.throws(() => plain.debugTwin(), { code: 'ERR_CPU_DISPOSED' })
      twin.dispose()
    } else {
      t.true(plain.poll(0) >= 0)
      const another = plain.debugTwin()
      t.not(another, twin)
      t.is(another.poll(0).state, 'done')
      plain.dispose()
      another.dispose()
    }
    t.is(memory.byteLength, 0)
    t.is(plain.poll(0), -1)
  })
}

onWasmtime('a twin disposed of in mid-call leaves the CPU usable', async (t) => {
  const plain = new WasmtimeCpu(await options())
  plain.reset()
  const twin = plain.debugTwin()
  twin.singleStep(true)
  twin.poll(0)
  twin.dispose()
  t.true(plain.poll(0) >= 0)
})

onWasmtime('an abandoned call can be run again from a copy of memory', async (t) => {
  const plain = new WasmtimeCpu(await options())
  const debug = plain.debugTwin()
  plain.reset()
  const before = Buffer.from(plain.memory.slice(0))
  t.is(debug.runTo(0, 400).state, 'stopped')
  const there = Buffer.from(plain.memory.slice(0))
  t.is(debug.runSteps(100).state, 'stopped')
  debug.abandon()
  t.false(debug.stopped)
  t.deepEqual(debug.frames(), [])
  new Uint8Array(plain.memory).set(before)
  t.is(debug.runTo(0, 400).state, 'stopped')
  t.deepEqual(Buffer.from(plain.memory), there)
  const { state } = debug.resume()
  t.is(state, 'done')
  const after = Buffer.from(plain.memory.slice(0))
  new Uint8Array(plain.memory).set(before)
  plain.poll(0)
  t.deepEqual(Buffer.from(plain.memory), after)
})

onLinux('memory that was never used takes no room', async (t) => {
  const plain = new WasmtimeCpu(await options({ memoryBytes: 64 << 20 }))
  plain.reset()
  const bytes = new Uint8Array(plain.memory)
  bytes[0x3000 * USED_PAGE_BYTES] = 1
  const used = plain.usedPages()
  t.true(used.length >= 4)
  const pages = Array.from({ length: used.length / 2 }, (_, n) => used[2 * n + 1] - used[2 * n])
  t.true(pages.reduce((a, b) => a + b) < 64, `${used}`)
  t.true(Array.from(used).includes(0x3000))
  t.deepEqual(plain.debugTwin().usedPages(), used, 'a twin uses none of its own')
})
