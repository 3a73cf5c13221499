import test, { type ExecutionContext } from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { type Cpu, type CpuKind, createCpu, precompile, type WasmtimeCpu } from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

/** A firmware that goes on where another one was, over the same INIC memory. */

const MEMORY_BYTES = 1 << 20
const CONSTANTS = { start: 0x10000, end: 0x20000 }
const KINDS: CpuKind[] = hasAddon() ? ['wasmtime', 'v8'] : ['v8']

interface Variant {
  /** Added to the count at each poll. */
  readonly step?: number
  readonly word?: number
  /** More of the source. */
  readonly more?: string
  readonly flags?: readonly string[]
}

/** Counts its polls in memory, and gives the count plus a constant from its data segment. */
function firmware({ step = 1, word = 7, more = '', flags = [] }: Variant = {}): Promise<Uint8Array> {
  const source = `
    const COUNT: usize = 0x20000;
    const WORDS = memory.data<u32>([${word}, 8]);
    ${more}
    export function reset(): void { store<u32>(COUNT, 1000) }
    export function poll(irqs: u32): u32 {
      if (irqs == 9) unreachable();
      if (irqs == 8) store<u32>(0x3000, 1);
      if (irqs == 7) while (true) store<u32>(0x20010, load<u32>(0x20010) + 1);
      store<u32>(COUNT, load<u32>(COUNT) + ${step});
      return load<u32>(COUNT) + load<u32>(WORDS);
    }`
  return assemble(source, ...flags)
}

async function start(kind: CpuKind): Promise<Cpu> {
  const cpu = createCpu(kind, {
    module: await firmware(),
    memoryBytes: MEMORY_BYTES,
    guard: [{ start: 0x2000, end: 0x10000 }],
    fuelPerSlice: 1_000_000,
  })
  cpu.reset()
  return cpu
}

const succeed = (cpu: Cpu, module: Uint8Array) => cpu.successor!(module, CONSTANTS)

for (const kind of KINDS) {
  test(`${kind}: state goes on, constants are those of the new firmware`, async (t) => {
    const before = await start(kind)
    t.is(before.poll(0), 1001 + 7)
    const memory = new Uint8Array(before.memory)
    memory[0x1f000] = 0x55
    const next = succeed(before, await firmware({ step: 100, word: 50_000 }))
    t.is(next.memory, before.memory, 'no buffer over it is to be made anew')
    before.dispose()
    t.is(memory.length, MEMORY_BYTES)
    t.is(next.poll(0), 1101 + 50_000)
    t.is(memory[0x1f000], 0x55, 'nothing else is written')
    const back = succeed(next, await firmware())
    next.dispose()
    t.is(back.poll(0), 1102 + 7)
    back.dispose()
    if (kind === 'wasmtime') t.is(memory.length, 0, 'memory goes with the last of them')
  })

  const refused: Record<string, { variant: Variant; message: RegExp }> = {
    'a data segment in carved state': {
      variant: { flags: ['--memoryBase', '131072', '--initialMemory', '3'] },
      message: /constants at 0x20000 to 0x2000. are not within 0x10000 to 0x20000/,
    },
    'a start function': { variant: { more: 'store<u32>(0x20020, 1);' }, message: /start function/ },
    'another import': {
      variant: {
        more: '@external("env", "now") declare function now(): u32; export function t(): u32 { return now() }',
      },
      message: /imports function env\.now/,
    },
  }
  for (const [name, { variant, message }] of Object.entries(refused)) {
    test(`${kind}: ${name} is refused, and changes nothing`, async (t) => {
      const cpu = await start(kind)
      const before = Buffer.from(cpu.memory.slice(0))
      const error = await refusal(t, cpu, variant)
      t.like(error, { code: 'ERR_CPU_MODULE' })
      t.regex(error.message, message)
      t.deepEqual(Buffer.from(cpu.memory), before)
      t.is(cpu.poll(0), 1001 + 7)
    })
  }

  test(`${kind}: a firmware that has stopped has no successor`, async (t) => {
    const cpu = await start(kind)
    cpu.poll(9)
    t.like(await refusal(t, cpu, {}), { code: 'ERR_CPU_STATE' })
    cpu.dispose()
    t.like(await refusal(t, cpu, {}), { code: 'ERR_CPU_DISPOSED' })
  })

  test(`${kind}: a firmware is compiled beforehand, or said to be none`, async (t) => {
    await precompile(kind, await firmware({ step: 3 }))
    const broken = Uint8Array.from(await firmware({ step: 3 }))
    broken.fill(0xff, broken.length - 200)
    await t.throwsAsync(precompile(kind, broken), { code: 'ERR_CPU_MODULE' })
  })
}

async function refusal(t: ExecutionContext, cpu: Cpu, variant: Variant): Promise<Error> {
  const module = await firmware(variant)
  return t.throws(() => succeed(cpu, module))!
}

const onLinux = hasAddon() && process.platform === 'linux' ? test : test.skip

onLinux('the guard, the watchdog and the fault are those of the board', async (t) => {
  const before = (await start('wasmtime')) as WasmtimeCpu
  const next = succeed(before, await firmware({ step: 2 })) as WasmtimeCpu
  t.is(next.poll(8), -1)
  t.like(next.fault, { kind: 'bus-fault', address: 0x3000 })
  t.is(before.poll(0), -1, 'no firmware runs over this memory any more')
  next.reset()
  t.is(next.poll(7), -1)
  t.is(next.fault?.kind, 'watchdog')
  t.true(next.cycles >= 1_000_000)
})

onLinux('a debugged twin of the new firmware is one of its own', async (t) => {
  const next = succeed(await start('wasmtime'), await firmware({ step: 5 })) as WasmtimeCpu
  t.deepEqual(next.debugTwin().poll(0), { state: 'done', result: 1005 + 7 })
  t.is(next.poll(0), 1010 + 7)
})
