import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { type Cpu, type CpuErrorCode, createCpu, type WasmtimeCpu } from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

/** Firmware on the leash: its fuel is not counted, and what does not return is stopped by the clock. */

const onWasmtime = hasAddon() ? test : test.skip

const MEMORY_BYTES = 1 << 20
const LIMIT = { ms: 100, leash: 0x1fff }
/** Twenty looks a second see an overdue slice soon. Milliseconds of processor time. */
const LATEST_MS = 1000

const FIRMWARE = `
  const A: usize = 0x20000;
  function spin(): void { while (true) {} }
  function count(): u32 { let n: u32 = 0; while (true) n++; return n }
  function touch(): void { while (true) store<u32>(A, load<u32>(A) + 1) }
  function fill(): void { while (true) memory.fill(0x21000, 1, 0x8000) }
  function registers(): void { while (true) memory.fill(0x1000, 0, 0x1000) }
  function calls(n: u32): u32 { return n < 2 ? n : calls(n - 1) + calls(n - 2) }
  function far(): void { for (let n: u64 = 0; n < 0xffffffffffff; n++) { if (n == 0xfffffffff) store<u32>(A, 1) } }
  function divide(n: u32): u32 { let sum: u32 = 0; for (let i: u32 = 0; i < 3; i++) { while (sum < i) sum++; sum += n / (2 - i) } return sum }
  function copy(to: usize): u32 { let i: u32 = 0; while (i < 4) i++; memory.copy(to, A, i); return divide(i) }
  export function reset(): void { if (load<u32>(A) == 99) spin() }
  export function poll(irqs: u32): u32 {
    switch (irqs) {
      case 1: spin();
      case 2: return count();
      case 3: touch();
      case 4: fill();
      case 5: registers();
      case 6: return calls(50);
      case 7: far();
      case 8: return divide(1);
      case 9: return copy(0x8000);
      case 10: { let sum: u32 = 0; for (let i: u32 = 0; i < 1000; i++) sum += i; return sum }
      case 11: unreachable();
      default: return irqs;
    }
  }`
const ENDLESS: [irqs: number, functionName: string][] = [
  [1, 'spin'],
  [2, 'count'],
  [3, 'touch'],
  [4, 'fill'],
  [5, 'registers'],
  [6, 'calls'],
  [7, 'far'],
]

async function start(options: { limit?: typeof LIMIT; flags?: readonly string[]; fuelPerSlice?: number }) {
  const { flags = [], ...rest } = options
  const module = await assemble(FIRMWARE, ...flags)
  const guard = [{ start: 0x2000, end: 0x10000 }]
  const cpu = createCpu('wasmtime', { module, memoryBytes: MEMORY_BYTES, guard, ...rest })
  cpu.reset()
  return cpu
}

/** Milliseconds of processor time that this thread has had (proc_pid_stat(5): utime and stime, in hundredths of a second); elsewhere the process. */
function processorMs(): number {
  if (process.platform !== 'linux') {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1000
  }
  const stat = readFileSync('/proc/thread-self/stat', 'utf8')
  const [utime, stime] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number)
  return (utime! + stime!) * 10
}

/** Processor time, as the limit is; a busy machine takes as long as it likes. */
const milliseconds = (run: () => void) => {
  const before = processorMs()
  run()
  return processorMs() - before
}

function overdue(t: ExecutionContext, cpu: Cpu, run: () => number): void {
  const ms = milliseconds(() => t.is(run(), -1))
  t.true(ms >= LIMIT.ms * 0.9 && ms < LATEST_MS, `stopped after ${ms} ms`)
  t.is(cpu.fault?.kind, 'watchdog')
  t.is(cpu.fault?.message, 'watchdog: the firmware ran for 100 ms without returning')
  t.is(cpu.poll(0), -1, 'until it is reset')
}

for (const [irqs, name] of ENDLESS) {
  onWasmtime(`is stopped where it is, and runs again after a reset: ${name}`, async (t) => {
    const cpu = await start({ limit: LIMIT })
    overdue(t, cpu, () => cpu.poll(irqs))
    const [frame] = cpu.fault!.frames
    t.is(frame.functionName, `firmware/${name}`)
    t.true(frame.pc! > 0)
    t.is(cpu.fault!.frames.at(-1)!.functionName, 'firmware/poll')
    t.true(cpu.reset())
    t.is(cpu.fault, null)
    t.is(cpu.poll(10), 499500)
    overdue(t, cpu, () => cpu.poll(irqs))
  })
}

onWasmtime('a loop that the optimizer has left nothing of but itself', async (t) => {
  const cpu = await start({ limit: LIMIT, flags: ['-O3'] })
  for (const [irqs] of ENDLESS) {
    overdue(t, cpu, () => cpu.poll(irqs))
    t.true(cpu.reset())
  }
})

onWasmtime('whose host functions keep touching the page of the leash: mostly as soon as another', async (t) => {
  const cpu = await start({ limit: LIMIT })
  const stops = 10
  const ms = milliseconds(() => {
    for (let stop = 0; stop < stops; stop++) {
      t.is(cpu.poll(5), -1)
      cpu.reset()
    }
  })
  t.true(ms / stops < 3 * LIMIT.ms, `stopped after ${ms / stops} ms`)
})

onWasmtime('a reset that does not return', async (t) => {
  const cpu = await start({ limit: LIMIT })
  new Uint32Array(cpu.memory, 0x20000, 1)[0] = 99
  overdue(t, cpu, () => (cpu.reset() ? 0 : -1))
})

onWasmtime('faults are those of a CPU that counts, instruction by instruction', async (t) => {
  const [limited, counting] = await Promise.all([start({ limit: LIMIT }), start({})])
  for (const irqs of [8, 9, 11]) {
    t.is(limited.poll(irqs), -1)
    t.is(counting.poll(irqs), -1)
    t.true(limited.fault!.frames.length > 0)
    t.deepEqual(limited.fault, counting.fault, `irqs ${irqs}`)
    limited.reset()
    counting.reset()
  }
})

onWasmtime('a slice that returns in time is left alone, however many there are', async (t) => {
  const cpu = await start({ limit: LIMIT })
  let wrong = 0
  const ms = milliseconds(() => {
    const before = process.cpuUsage()
    while (process.cpuUsage(before).user < 5000 * LIMIT.ms) if (cpu.poll(10) !== 499500) wrong++
  })
  t.true(ms > 4 * LIMIT.ms)
  t.is(wrong, 0)
  t.is(cpu.cycles, 0, 'nobody counts')
  t.is(new Uint8Array(cpu.memory)[LIMIT.leash], 0)
})

onWasmtime('fuel is counted for who asks, over the same memory and with the same allowance', async (t) => {
  const [cpu, counting] = await Promise.all([start({ limit: LIMIT, fuelPerSlice: 50_000 }), start({})])
  counting.poll(10)
  t.is(cpu.poll(10), 499500)
  t.is(cpu.cycles, 0)
  cpu.count!(true)
  t.is(cpu.poll(10), 499500)
  t.is(cpu.cycles, counting.cycles)
  t.is(cpu.poll(3), -1)
  t.regex(cpu.fault!.message, /used up its cycles/)
  t.true(new Uint32Array(cpu.memory, 0x20000, 1)[0] > 0, 'the memory is one')
  cpu.count!(false)
  t.is(cpu.poll(0), -1, 'the fault is one')
  t.true(cpu.reset())
  overdue(t, cpu, () => cpu.poll(1))
  cpu.count!(true)
  t.true(cpu.reset())
  t.is(cpu.poll(10), 499500)
  cpu.count!(false)
  t.is(cpu.poll(10), 499500, 'the page is given back, whoever has reset it')
  t.is(cpu.cycles, 0)
  const twin = (cpu as WasmtimeCpu).debugTwin()
  twin.poll(10)
  t.is(twin.cycles, counting.cycles)
  cpu.dispose()
  twin.dispose()
  t.throws(() => cpu.count!(true), { code: 'ERR_CPU_DISPOSED' satisfies CpuErrorCode })
})

onWasmtime('a successor has the limit too', async (t) => {
  const cpu = await start({ limit: LIMIT })
  const next = cpu.successor!(await assemble(FIRMWARE, '-O2'), { start: 0x10000, end: 0x20000 })
  cpu.dispose()
  t.is(next.poll(10), 499500)
  t.is(next.cycles, 0)
  overdue(t, next, () => next.poll(1))
})

for (const [what, limit] of [
  ['no time', { ms: 0, leash: 0x1fff }],
  ['no number', { ms: Number.NaN, leash: 0x1fff }],
  ['a leash outside of memory', { ms: 100, leash: MEMORY_BYTES }],
] as const) {
  onWasmtime(`refused: ${what}`, async (t) => {
    await t.throwsAsync(start({ limit }), { code: 'ERR_CPU_OPTION' satisfies CpuErrorCode, message: /^limit is/ })
  })
}
