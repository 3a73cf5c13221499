import test from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { type DebugCpu, type DebugOutcome, WasmtimeCpu } from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

const onWasmtime = hasAddon() ? test : test.skip
const onGuardedBus = hasAddon() && process.platform === 'linux' ? test : test.skip

const MEMORY_BYTES = 1 << 20

const FIRMWARE = `
  const COUNT: usize = 0x20000, OUT: usize = 0x20008;
  function square(n: i32): i32 { return n * n }
  function scale(n: i32, by: i64): i64 { const wide: i64 = square(n); return wide * by }
  function deep(n: u32): u32 { return n == 0 ? 1 : deep(n - 1) + 1 }
  export function reset(): void { store<u32>(COUNT, 0) }
  export function poll(irqs: u32): u32 {
    store<u32>(COUNT, load<u32>(COUNT) + 1);
    if (irqs == 1) store<i64>(OUT, scale(-3, 1 << 40));
    if (irqs == 2) unreachable();
    if (irqs == 3) store<u32>(0x3000, 1);
    if (irqs == 4) { let x: f64 = 1.5; let y: f32 = 0.25; store<f64>(OUT, x * <f64>y * <f64>irqs) }
    if (irqs == 5) return deep(20);
    if (irqs == 6) while (true) store<u32>(OUT, load<u32>(OUT) + 1);
    return load<u32>(COUNT)
  }`

const LOOPS: [string, string][] = [
  ['counting', 'for (let i: u32 = 0; i < n; i++) sum += i ^ n;'],
  [
    'memory',
    'for (let i: u32 = 0; i < n; i++) { store<u32>(0x20100 + (i & 0xff) * 4, sum); sum += load<u8>(0x20100 + i) }',
  ],
  ['calls', 'for (let i: u32 = 0; i < n; i++) sum += helper(i, sum);'],
  ['recursion', 'sum = fibonacci(n % 20);'],
  ['branches', 'let x = n; while (x != 1) { x = x & 1 ? 3 * x + 1 : x >> 1; sum++ }'],
  [
    'copies',
    'for (let i: u32 = 0; i < n; i++) { memory.copy(0x21000, 0x20000, i * 8); memory.fill(0x22000, <u8>i, 64) } sum = load<u32>(0x22000);',
  ],
  [
    'vectors',
    'let v = i32x4.splat(1); for (let i: u32 = 0; i < n; i++) v = i32x4.add(v, i32x4.mul(v, v)); sum = i32x4.extract_lane(v, 2);',
  ],
  ['division', 'for (let i: u32 = 1; i < n; i++) sum += n / i + n % i;'],
]

function loop(body: string): string {
  return `
    function fibonacci(n: u32): u32 { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2) }
    function helper(a: u32, b: u32): u32 { return a > b ? a - b : b * 3 }
    export function reset(): void { store<u32>(0x20000, fibonacci(3) + helper(1, 2)) }
    export function poll(n: u32): u32 { let sum: u32 = 0; ${body} return sum & 0xffff }`
}

async function debugged(options: { guarded?: boolean; fuelPerSlice?: number } = {}) {
  const { guarded = false, fuelPerSlice = 1_000_000 } = options
  const module = await assemble(FIRMWARE)
  const guard = guarded ? [{ start: 0x2000, end: 0x10000 }] : []
  const plain = new WasmtimeCpu({ module, memoryBytes: MEMORY_BYTES, fuelPerSlice, guard })
  const cpu = plain.debugTwin()
  cpu.reset()
  return { cpu, plain, module }
}

const at = (cpu: DebugCpu) => cpu.frames()[0]
const name = (cpu: DebugCpu) => at(cpu).functionName?.replace('firmware/', '')

/** Steps until a function is innermost. Fails after `limit` steps. */
function stepInto(cpu: DebugCpu, outcome: DebugOutcome, wanted: string, limit = 200): void {
  for (let n = 0; n < limit && outcome.state === 'stopped'; n++) {
    if (name(cpu) === wanted) return
    outcome = cpu.resume()
  }
  throw new Error(`${wanted} was not reached`)
}

onWasmtime('runs like the plain CPU', async (t) => {
  const { cpu, module } = await debugged()
  const plain = new WasmtimeCpu({ module, memoryBytes: MEMORY_BYTES })
  plain.reset()
  for (const irqs of [0, 1, 4, 5]) {
    t.deepEqual(cpu.poll(irqs), { state: 'done', result: plain.poll(irqs) })
    t.is(cpu.cycles, plain.cycles)
  }
  t.deepEqual(new Uint8Array(cpu.memory), new Uint8Array(plain.memory))
  t.deepEqual(cpu.frames(), [])
})

for (const [kind, body] of LOOPS) {
  for (const flags of [[], ['-O3']]) {
    onWasmtime(`spends the same fuel: ${kind} ${flags}`, async (t) => {
      const options = { module: await assemble(loop(body), ...flags), memoryBytes: MEMORY_BYTES }
      const [plain, debug] = [new WasmtimeCpu(options), new WasmtimeCpu(options).debugTwin()]
      plain.reset()
      debug.reset()
      t.is(debug.cycles, plain.cycles)
      for (const n of [1, 7, 100, 333]) {
        const result = plain.poll(n)
        t.deepEqual(debug.poll(n), { state: 'done', result })
        t.is(debug.cycles, plain.cycles, `n ${n}`)
      }
    })
  }
}

onWasmtime('stepping and breakpoints spend the same fuel', async (t) => {
  const { cpu } = await debugged()
  cpu.poll(5)
  const { cycles } = cpu
  cpu.singleStep(true)
  let outcome = cpu.poll(5)
  let steps = 0
  while (outcome.state === 'stopped') {
    steps++
    outcome = cpu.resume()
  }
  t.is(outcome.state, 'done')
  t.is(cpu.cycles, cycles)
  t.true(steps > 100)
})

onWasmtime('shows frames, locals and operands', async (t) => {
  const { cpu, module } = await debugged()
  cpu.singleStep(true)
  stepInto(cpu, cpu.poll(1), 'square')
  cpu.resume()
  const frames = cpu.frames()
  t.deepEqual(
    frames.map((frame) => frame.functionName),
    ['firmware/square', 'firmware/scale', 'firmware/poll'],
  )
  const [square, scale, poll] = frames
  t.deepEqual(square.locals, [{ type: 'i32', value: -3 }])
  t.deepEqual(square.stack, [{ type: 'i32', value: -3 }], 'the first operand of the product')
  t.deepEqual(scale.locals, [
    { type: 'i32', value: -3 },
    { type: 'i64', value: 1n << 40n },
    { type: 'i64', value: 0n },
  ])
  t.deepEqual(poll.locals[0], { type: 'i32', value: 1 })
  t.is(module[square.pc], 0x20, 'local.get')
  t.is(module[scale.pc - 2], 0x10, 'behind the call')
})

onWasmtime('shows floats', async (t) => {
  const { cpu } = await debugged()
  const stop = cpu.addBreakpoint(
    await pcOf(cpu, 4, (frame) => frame.stack.some(({ type, value }) => type === 'f64' && value === 0.375)),
  )
  const outcome = cpu.poll(4)
  t.deepEqual(outcome, { state: 'stopped', reason: 'breakpoint' })
  t.is(at(cpu).pc, stop)
  t.deepEqual(at(cpu).locals.slice(1), [
    { type: 'f64', value: 1.5 },
    { type: 'f32', value: 0.25 },
  ])
})

/** Offset of the first instruction of `poll(irqs)` before which a frame looks like that. */
async function pcOf(
  cpu: DebugCpu,
  irqs: number,
  like: (frame: ReturnType<DebugCpu['frames']>[0]) => boolean,
): Promise<number> {
  cpu.singleStep(true)
  let outcome = cpu.poll(irqs)
  let pc = -1
  while (outcome.state === 'stopped') {
    const [frame] = cpu.frames()
    if (pc < 0 && like(frame)) pc = frame.pc
    outcome = cpu.resume()
  }
  cpu.singleStep(false)
  return pc
}

onWasmtime('stops at a breakpoint each time, until it is removed', async (t) => {
  const { cpu } = await debugged()
  const pc = await pcOf(cpu, 5, (frame) => frame.functionName === 'firmware/deep')
  t.is(cpu.addBreakpoint(pc), pc)
  t.is(cpu.addBreakpoint(pc), pc, 'once more is the same one')
  let outcome = cpu.poll(5)
  for (let depth = 1; depth <= 21; depth++) {
    t.deepEqual(outcome, { state: 'stopped', reason: 'breakpoint' })
    t.is(cpu.frames().length, depth + 1)
    t.is(at(cpu).locals[0].value, 21 - depth)
    if (depth === 10) cpu.removeBreakpoint(pc)
    if (depth === 10) break
    outcome = cpu.resume()
  }
  t.deepEqual(cpu.resume(), { state: 'done', result: 21 })
  t.false(cpu.removeBreakpoint(pc))
  t.deepEqual(cpu.poll(5), { state: 'done', result: 21 })
})

onWasmtime('a breakpoint within an instruction slips to the next', async (t) => {
  const { cpu, module } = await debugged()
  const pc = await pcOf(cpu, 1, (frame) => frame.functionName === 'firmware/square')
  t.is(cpu.addBreakpoint(pc + 1), pc + 2)
  t.deepEqual(cpu.poll(1), { state: 'stopped', reason: 'breakpoint' })
  t.is(at(cpu).pc, pc + 2)
  t.true(cpu.removeBreakpoint(pc + 1))
  t.is(cpu.resume().state, 'done')
  t.is(cpu.poll(1).state, 'done')
  t.throws(() => cpu.addBreakpoint(module.length), { code: 'ERR_CPU_BREAKPOINT' })
})

onWasmtime('stops before a trap, and ends with the fault', async (t) => {
  const { cpu } = await debugged()
  t.deepEqual(cpu.poll(2), { state: 'stopped', reason: 'trap', trap: 'unreachable' })
  t.is(name(cpu), 'poll')
  const outcome = cpu.resume()
  t.is(outcome.state, 'fault')
  if (outcome.state !== 'fault') return
  t.is(outcome.fault.kind, 'unreachable')
  t.is(outcome.fault.frames[0].functionName, 'firmware/poll')
  t.deepEqual(cpu.poll(0), outcome, 'and stays stopped')
  t.is(cpu.reset().state, 'done')
  t.is(cpu.poll(0).state, 'done')
})

onWasmtime('the watchdog is a trap like others', async (t) => {
  const { cpu } = await debugged({ fuelPerSlice: 10_000 })
  t.deepEqual(cpu.poll(6), { state: 'stopped', reason: 'trap', trap: 'watchdog' })
  t.true(new Uint32Array(cpu.memory)[0x20008 / 4] > 100)
  t.is(cpu.resume().state, 'fault')
})

onGuardedBus('a bus fault ends the call at the instruction', async (t) => {
  const { cpu, module } = await debugged({ guarded: true })
  const outcome = cpu.poll(3)
  t.is(outcome.state, 'fault')
  if (outcome.state !== 'fault') return
  t.is(outcome.fault.kind, 'bus-fault')
  t.is(outcome.fault.address, 0x3000)
  const [{ functionName, pc = 0 }] = outcome.fault.frames
  t.is(functionName, 'firmware/poll')
  t.is(module[pc], 0x36, 'i32.store')
  t.is(cpu.reset().state, 'done')
})

onWasmtime('memory can be read and written at a stop', async (t) => {
  const { cpu } = await debugged()
  const words = new Uint32Array(cpu.memory)
  cpu.singleStep(true)
  cpu.poll(0)
  words[0x20000 / 4] = 41
  cpu.singleStep(false)
  t.deepEqual(cpu.resume(), { state: 'done', result: 42 })
})

onWasmtime('other CPUs run while one is stopped', async (t) => {
  const [{ cpu: one, module }, { cpu: two }] = await Promise.all([debugged(), debugged()])
  const plain = new WasmtimeCpu({ module, memoryBytes: MEMORY_BYTES })
  plain.reset()
  one.singleStep(true)
  t.is(one.poll(1).state, 'stopped')
  two.singleStep(true)
  t.is(two.poll(2).state, 'stopped')
  t.is(plain.poll(0), 1)
  t.is(plain.poll(2), -1, 'a trap too')
  t.is(one.frames().length, 1)
  one.singleStep(false)
  t.is(one.resume().state, 'done')
  two.singleStep(false)
  t.deepEqual(two.resume(), { state: 'stopped', reason: 'trap', trap: 'unreachable' })
})

onWasmtime('says when a request does not fit its state', async (t) => {
  const { cpu } = await debugged()
  t.throws(() => cpu.resume(), { code: 'ERR_CPU_STATE' })
  cpu.singleStep(true)
  cpu.poll(0)
  t.throws(() => cpu.poll(0), { code: 'ERR_CPU_STATE', message: /resume it first/ })
  t.throws(() => cpu.reset(), { code: 'ERR_CPU_STATE' })
  cpu.singleStep(false)
  t.is(cpu.resume().state, 'done', 'nothing was lost')
})

onWasmtime('can be disposed of in mid-call', async (t) => {
  const { cpu, plain } = await debugged()
  cpu.singleStep(true)
  stepInto(cpu, cpu.poll(1), 'square')
  cpu.dispose()
  cpu.dispose()
  plain.dispose()
  t.is(cpu.memory.byteLength, 0)
  for (const request of [() => cpu.poll(0), () => cpu.resume(), () => cpu.frames(), () => cpu.singleStep(true)]) {
    t.throws(request, { code: 'ERR_CPU_DISPOSED' })
  }
})
