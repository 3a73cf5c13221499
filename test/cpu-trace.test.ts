import test from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { type DebugOutcome, WasmtimeCpu } from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

const onWasmtime = hasAddon() ? test : test.skip

const MEMORY_BYTES = 1 << 20

const FIRMWARE = `
  const COUNT: usize = 0x20000;
  function leaf(n: u32): u32 { return n * 3 }
  function middle(n: u32): u32 { let sum: u32 = 0; for (let i: u32 = 0; i < n; i++) sum += leaf(i); return sum }
  function endless(n: u32): u32 { return endless(n + 1) + 1 }
  export function reset(): void { store<u32>(COUNT, 0) }
  export function poll(irqs: u32): u32 {
    store<u32>(COUNT, load<u32>(COUNT) + 1);
    if (irqs == 1) return load<u32>(COUNT) / (load<u32>(COUNT + 4));
    if (irqs == 2) return load<u32>(0xfffffff0);
    if (irqs == 3) while (true) leaf(1);
    if (irqs == 4) return endless(0);
    if (irqs == 5) unreachable();
    if (irqs == 6) return call_indirect<u32>(99, 1);
    return middle(irqs & 0xff)
  }`

async function debugged(fuelPerSlice = 1_000_000) {
  const module = await assemble(FIRMWARE)
  const cpu = new WasmtimeCpu({ module, memoryBytes: MEMORY_BYTES, fuelPerSlice }).debugTwin()
  cpu.reset()
  return { cpu, module }
}

onWasmtime('a trace is what single steps see', async (t) => {
  const { cpu } = await debugged()
  const { outcome, pcs } = cpu.trace(20)
  t.is(outcome.state, 'done')
  t.is(cpu.steps, pcs.length)
  cpu.reset()
  cpu.singleStep(true)
  const seen: number[] = []
  for (let outcome: DebugOutcome = cpu.poll(20); outcome.state === 'stopped'; outcome = cpu.resume()) {
    t.is(cpu.steps, seen.length)
    seen.push(cpu.pc ?? -1)
  }
  t.deepEqual([...pcs], seen)
  t.true(pcs.length > 200)
  cpu.singleStep(false)
  const { cycles } = cpu
  cpu.poll(20)
  t.is(cpu.cycles, cycles)
  t.is(cpu.steps, undefined, 'not counted')
})

onWasmtime('a trace that is too long stops, and can be gone on with', async (t) => {
  const { cpu } = await debugged()
  const whole = cpu.trace(20).pcs
  const part = cpu.trace(20, 100)
  t.deepEqual(part.outcome, { state: 'stopped', reason: 'step' })
  t.is(cpu.steps, 100)
  const rest = cpu.trace('resume')
  t.is(rest.outcome.state, 'done')
  t.deepEqual([...part.pcs, ...rest.pcs], [...whole])
  t.is(cpu.trace('reset').outcome.state, 'done')
})

onWasmtime('goes to any instruction of a call', async (t) => {
  const { cpu: debug } = await debugged()
  const { pcs } = debug.trace(9)
  debug.addBreakpoint(pcs[40])
  debug.addWatchpoint({ start: 0x20000, end: 0x20004, kind: 'access' })
  for (const step of [0, 1, 57, pcs.length - 1]) {
    t.deepEqual(debug.runTo(9, step), { state: 'stopped', reason: 'step' }, 'and nothing else stops it')
    t.is(debug.pc, pcs[step])
    t.is(debug.steps, step)
    debug.abandon()
  }
  debug.runTo(9, 10)
  t.throws(() => debug.runTo('resume', 10), { code: 'ERR_CPU_STATE' })
  t.deepEqual(debug.runTo('resume', 60), { state: 'stopped', reason: 'step' })
  t.deepEqual(debug.runSteps(7), { state: 'stopped', reason: 'step' })
  t.is(debug.pc, pcs[67])
  t.is(debug.runSteps(pcs.length).state, 'done', 'fewer than that')
  t.is(debug.steps, pcs.length)
  t.is(debug.runTo('reset', 0).state, 'stopped')
  t.throws(() => debug.runTo(0, 0), { code: 'ERR_CPU_STATE' })
  t.throws(() => debug.trace(0), { code: 'ERR_CPU_STATE' })
  debug.abandon()
  t.throws(() => debug.runSteps(1), { code: 'ERR_CPU_STATE' })
  for (const step of [-1, 0.5, Number.NaN]) t.throws(() => debug.runTo(0, step), { code: 'ERR_CPU_OPTION' })
  t.throws(() => debug.runSteps(0), { code: 'ERR_CPU_OPTION' })
  t.throws(() => debug.trace(0, 0), { code: 'ERR_CPU_OPTION' })
})

onWasmtime('counted calls know the number of each stop', async (t) => {
  const { cpu } = await debugged()
  const { pcs } = cpu.trace(12)
  const pc = pcs[pcs.length >> 1]
  cpu.addBreakpoint(pc)
  cpu.counting = true
  const steps: number[] = []
  const fuel: number[] = []
  for (let outcome = cpu.poll(12); outcome.state === 'stopped'; outcome = cpu.resume()) {
    t.is(outcome.reason, 'breakpoint')
    steps.push(cpu.steps ?? -1)
    fuel.push(cpu.cycles)
  }
  const expected = Array.from(pcs.keys()).filter((step) => pcs[step] === pc)
  t.deepEqual(steps, expected)
  t.true(steps.length >= 10)
  t.true(fuel.every((spent, n) => spent > 0 && spent <= cpu.cycles && (n === 0 || spent >= fuel[n - 1])))
  t.true((fuel.at(-1) ?? 0) > fuel[0])
  cpu.counting = false
  cpu.poll(12)
  t.is(cpu.steps, undefined)
})

const TRAPS: [string, number, string][] = [
  ['division', 1, 'divide-by-zero'],
  ['a load past the end', 2, 'memory-out-of-bounds'],
  ['the watchdog', 3, 'watchdog'],
  ['endless recursion', 4, 'stack-overflow'],
  ['unreachable', 5, 'unreachable'],
  ['a call of no function', 6, 'indirect-call'],
]
for (const [name, irqs, kind] of TRAPS) {
  onWasmtime(`stops before a trap is raised: ${name}`, async (t) => {
    const { cpu } = await debugged(irqs === 4 ? 10_000_000 : 20_000)
    t.like(cpu.poll(irqs), { state: 'stopped', reason: 'trap', trap: kind })
    const frames = cpu.frames()
    t.is(frames.at(-1)?.functionName, 'firmware/poll')
    t.is(cpu.pc, frames[0].pc)
    const outcome = cpu.resume()
    t.like(outcome, { state: 'fault', fault: { kind } })
    cpu.reset()
    if (irqs === 4) return
    const { pcs } = cpu.trace(irqs)
    t.is(cpu.steps, pcs.length)
    t.is(cpu.resume().state, 'fault')
    cpu.reset()
    t.like(cpu.runTo(irqs, pcs.length - 1), { state: 'stopped', reason: 'step' }, 'before the instruction itself')
    t.is(cpu.pc, pcs.at(-1))
    t.like(cpu.resume(), { state: 'stopped', reason: 'trap' })
  })
}

onWasmtime('a histogram counts each instruction, over many calls', async (t) => {
  const { cpu, module } = await debugged()
  const { pcs } = cpu.trace(15)
  cpu.startProfile()
  cpu.poll(15)
  cpu.poll(15)
  cpu.stopProfile()
  cpu.poll(15)
  t.is(cpu.histogram.length, module.length)
  const expected = new Uint32Array(module.length)
  for (const pc of pcs) expected[pc] += 2
  t.deepEqual(cpu.histogram, expected)
  cpu.histogram.fill(0)
  cpu.startProfile()
  cpu.poll(0)
  t.true(cpu.histogram.some((count) => count === 1))
})

onWasmtime('samples are call stacks', async (t) => {
  const { cpu } = await debugged()
  const { pcs } = cpu.trace(200)
  cpu.startProfile({ samplePeriod: 10 })
  cpu.poll(200)
  const samples = cpu.takeSamples()
  t.is(cpu.takeSamples().length, 0)
  let count = 0
  const depths = new Set<number>()
  for (let at = 0; at < samples.length; at += 1 + 2 * samples[at]) {
    depths.add(samples[at])
    count++
    t.is(samples[at + 2], pcs[count * 10 - 1], 'every tenth instruction')
  }
  t.is(count, Math.floor(pcs.length / 10))
  t.deepEqual([...depths].sort(), [1, 2, 3])
  cpu.startProfile({ samplePeriod: 10, sampleWords: 40 })
  cpu.poll(200)
  t.true(cpu.takeSamples().length <= 40, 'no more than there is room for')
  t.throws(() => cpu.startProfile({ samplePeriod: -1 }), { code: 'ERR_CPU_OPTION' })
})

onWasmtime('the locals of a stop are those of its innermost frame', async (t) => {
  const source = `
    function inner(a: i32, b: i64, c: f32, d: f64): i32 {
      let v = i64x2.splat(b); return <i32>(<f64>a + <f64>i64x2.extract_lane(v, 1) + <f64>c + d) }
    export function reset(): void { store<u32>(0x20000, 0) }
    export function poll(n: u32): u32 { return inner(-5 - n, 1 << 40, 0.5, 2.25) }`
  const cpu = new WasmtimeCpu({ module: await assemble(source), memoryBytes: MEMORY_BYTES }).debugTwin()
  const { pcs } = cpu.trace(2)
  let vectors = 0
  for (let step = 0; step < pcs.length; step++) {
    cpu.runTo(2, step)
    const { locals } = cpu.frames()[0]
    t.deepEqual(
      locals.map((_, n) => cpu.local(n)),
      locals.map(({ value }) => value),
    )
    for (const none of [-1, 0.5, locals.length]) t.is(cpu.local(none), undefined)
    vectors += locals.filter(({ type, value }) => type === 'v128' && value !== 0n).length
    cpu.abandon()
  }
  t.true(vectors > 0)
  t.is(cpu.local(0), undefined)
})

onWasmtime('many calls abandoned leave a CPU that works', async (t) => {
  const { cpu: debug } = await debugged()
  for (let step = 0; step < 100; step++) {
    debug.runTo(50, step)
    debug.abandon()
  }
  const other = new WasmtimeCpu({ module: await assemble(FIRMWARE), memoryBytes: MEMORY_BYTES })
  other.reset()
  t.deepEqual(debug.poll(50), { state: 'done', result: other.poll(50) })
  t.is(debug.cycles, other.cycles)
})
