import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { availableCpu, type Cpu, type CpuErrorCode, type CpuKind, createCpu } from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

const KINDS: CpuKind[] = hasAddon() ? ['wasmtime', 'v8'] : ['v8']
const onWasmtime = hasAddon() ? test : test.skip
const onGuardedBus = hasAddon() && process.platform === 'linux' ? test : test.skip

const MEMORY_BYTES = 1 << 20
/** The memory map's bus space: a null page, a page of registers, and nothing up to 64 KiB. */
const GUARD = [
  { start: 0, end: 0x1000 },
  { start: 0x2000, end: 0x10000 },
]

/** `poll` does what `irqs` says with two words that the test puts at 0x20000. */
const FIRMWARE = `
  const A: usize = 0x20000, B: usize = 0x20004, COUNT: usize = 0x20008;
  function recurse(n: u32): u32 { return recurse(n + 1) + 1 }
  function indirect(n: u32): u32 { return call_indirect<u32>(n, 1) }
  function copy(to: usize, from: usize): void { memory.copy(to, from, load<u32>(COUNT)) }
  export function reset(): void { store<u32>(COUNT, 1000) }
  export function poll(irqs: u32): u32 {
    const a = load<u32>(A), b = load<u32>(B);
    switch (irqs) {
      case 0: return a + b;
      case 1: return a / b;
      case 2: return a % b;
      case 3: return <u32>(<i32>a / <i32>b);
      case 4: return <u32>load<f64>(A);
      case 5: return load<u32>(a);
      case 6: store<u32>(a, b); return 0;
      case 7: unreachable();
      case 8: return recurse(0);
      case 9: return indirect(a);
      case 10: copy(a, b); return 0;
      case 11: memory.fill(a, 1, b); return 0;
      case 12: while (true) store<u32>(B, load<u32>(B) + 1);
      case 13: {
        let sum: u32 = 0;
        for (let i: u32 = 0; i < a; i++) sum += load<u8>(0x20000 + (i & 0xff)) * i;
        return sum;
      }
      case 14: return u32(v128.any_true(v128.load(A)));
      case 15: return memory.grow(1);
      default: return irqs;
    }
  }`

const DO = {
  add: 0,
  divide: 1,
  remainder: 2,
  divideSigned: 3,
  convert: 4,
  load: 5,
  store: 6,
  unreachable: 7,
  recurse: 8,
  indirect: 9,
  copy: 10,
  fill: 11,
  forever: 12,
  loop: 13,
  simd: 14,
  grow: 15,
} as const

/** Conversions trap, where asc would make them saturate. */
const FLAGS = ['-O2', '--disable', 'nontrapping-f2i']

interface Board {
  readonly cpu: Cpu
  do(what: keyof typeof DO, a?: number, b?: number): number
}

async function board(kind: CpuKind, options: { guarded?: boolean; fuelPerSlice?: number } = {}): Promise<Board> {
  const { guarded = false, fuelPerSlice = 10_000_000 } = options
  const module = await assemble(FIRMWARE, ...FLAGS)
  const cpu = createCpu(kind, { module, memoryBytes: MEMORY_BYTES, fuelPerSlice, guard: guarded ? GUARD : [] })
  const words = new Uint32Array(cpu.memory, 0x20000, 2)
  return {
    cpu,
    do(what, a = 0, b = 0) {
      words[0] = a
      words[1] = b
      return cpu.poll(DO[what])
    },
  }
}

for (const kind of KINDS) {
  test(`${kind}: runs the firmware`, async (t) => {
    const { cpu, do: run } = await board(kind)
    t.is(cpu.kind, kind)
    t.true(cpu.reset())
    t.is(run('add', 2, 3), 5)
    t.is(run('add', 0xffffffff, 0), 0xffffffff, 'results are unsigned')
    t.is(run('divideSigned', -7, 2), 0xfffffffd)
    t.is(run('simd', 0, 1), 1)
    const bytes = new Uint8Array(cpu.memory, 0x20000, 0x100)
    t.is(
      run('loop', 300),
      Array.from({ length: 300 }, (_, i) => bytes[i & 0xff] * i).reduce((sum, term) => sum + term),
    )
    t.is(cpu.poll(0x80000000), 0x80000000)
    t.is(cpu.poll(-1), 0xffffffff, 'interrupt lines are 32 bits, whatever their sign')
    t.is(run('grow'), 0xffffffff, 'memory does not grow')
    t.is(cpu.fault, null)
  })

  test(`${kind}: memory is shared, not copied`, async (t) => {
    const { cpu, do: run } = await board(kind)
    t.is(cpu.memory.byteLength, MEMORY_BYTES)
    const bytes = new Uint8Array(cpu.memory)
    t.true(bytes.every((byte) => byte === 0))
    run('store', MEMORY_BYTES - 4, 0x01020304)
    t.deepEqual([...bytes.subarray(-4)], [4, 3, 2, 1], 'firmware to host')
    bytes.set([0xff, 0xee, 0xdd, 0xcc], 0x30000)
    t.is(run('load', 0x30000), 0xccddeeff, 'host to firmware')
  })

  const faults: [string, keyof typeof DO, number, number, string][] = [
    ['division by zero', 'divide', 1, 0, 'divide-by-zero'],
    ['remainder by zero', 'remainder', 1, 0, 'divide-by-zero'],
    ['division overflow', 'divideSigned', 0x80000000, -1, 'integer-overflow'],
    ['not a number to an integer', 'convert', 0, 0x7ff80000, 'invalid-conversion'],
    ['load past the end', 'load', MEMORY_BYTES - 3, 0, 'memory-out-of-bounds'],
    ['store past the end', 'store', 0xfffffffc, 0, 'memory-out-of-bounds'],
    ['copy past the end', 'copy', MEMORY_BYTES - 999, 0x20000, 'memory-out-of-bounds'],
    ['unreachable', 'unreachable', 0, 0, 'unreachable'],
    ['endless recursion', 'recurse', 0, 0, 'stack-overflow'],
    ['call of no function', 'indirect', 99, 0, 'indirect-call'],
  ]
  for (const [name, what, a, b, expected] of faults) {
    test(`${kind}: ${name} stops the firmware`, async (t) => {
      const { cpu, do: run } = await board(kind)
      cpu.reset()
      t.is(run(what, a, b), -1)
      const { fault } = cpu
      t.is(fault?.kind, expected as never)
      t.truthy(fault?.message)
      t.true(
        fault?.frames.some((frame) => frame.functionName === 'firmware/poll' || frame.functionName?.match(/recurse/)),
      )
      t.is(cpu.fault, fault, 'the same object each time')
      t.is(run('add', 1, 1), -1, 'and it stays stopped')
      t.is(cpu.fault, fault)
      t.true(cpu.reset(), 'until reset')
      t.is(cpu.fault, null)
      t.is(run('add', 1, 1), 2)
    })
  }

  test(`${kind}: a fault in reset is reported`, async (t) => {
    const module = await assemble(
      'export function reset(): void { unreachable() } export function poll(n: u32): u32 { return n }',
    )
    const cpu = createCpu(kind, { module, memoryBytes: MEMORY_BYTES })
    t.false(cpu.reset())
    t.is(cpu.fault?.kind, 'unreachable')
    t.is(cpu.poll(0), -1)
  })

  test(`${kind}: can be disposed of at any time`, async (t) => {
    const { cpu, do: run } = await board(kind)
    cpu.reset()
    run('add', 1, 2)
    cpu.dispose()
    t.is(cpu.memory.byteLength, 0)
    t.is(cpu.poll(0), -1)
    t.false(cpu.reset())
    t.is(cpu.fault, null)
    t.notThrows(() => cpu.dispose())
  })

  test(`${kind}: many at once`, async (t) => {
    const boards = await Promise.all(Array.from({ length: 100 }, () => board(kind)))
    for (const { cpu } of boards) cpu.reset()
    boards.forEach(({ do: run }, n) => {
      t.is(run('store', 0x40000, n), 0)
    })
    boards.forEach(({ cpu, do: run }, n) => {
      t.is(run('load', 0x40000), n)
      cpu.dispose()
    })
  })

  const declarations: [string, string, RegExp, string[]?][] = [
    [
      'a function import',
      'declare function log(n: u32): void; export function reset(): void { log(1) } export function poll(n: u32): u32 { return n }',
      /imports function firmware\.log/,
    ],
    [
      'no memory',
      'export function reset(): void {} export function poll(n: u32): u32 { return n }',
      /does not import env.memory/,
      ['-O2'],
    ],
    ['no reset', 'export function poll(n: u32): u32 { return n }', /export reset is missing/],
    ['no poll', 'export function reset(): void {}', /export poll is missing/],
    [
      'poll without a parameter',
      'export function reset(): void {} export function poll(): u32 { return 0 }',
      /export poll is \(\): i32/,
    ],
    [
      'poll with a 64-bit result',
      'export function reset(): void {} export function poll(n: u32): u64 { return n }',
      /export poll is \(i32\): i64/,
    ],
    [
      'reset with a result',
      'export function reset(): u32 { return 0 } export function poll(n: u32): u32 { return n }',
      /export reset is \(\): i32/,
    ],
    [
      'reset that is a global',
      'export const reset: u32 = 1; export function poll(n: u32): u32 { return n }',
      /export reset is a global/,
    ],
    [
      'more memory than there is',
      'export function reset(): void {} export function poll(n: u32): u32 { return n }',
      /needs 2097152 bytes of memory and the board has 1048576/,
      ['--initialMemory', '32'],
    ],
    [
      'less memory at most than there is',
      'export function reset(): void {} export function poll(n: u32): u32 { return n }',
      /allows at most 262144 bytes of memory/,
      ['--maximumMemory', '4'],
    ],
  ]
  for (const [name, source, message, flags = []] of declarations) {
    test(`${kind}: refuses a module with ${name}`, async (t) => {
      const module = await assemble(source, ...flags)
      t.throws(() => createCpu(kind, { module, memoryBytes: MEMORY_BYTES }), { code: 'ERR_CPU_MODULE', message })
    })
  }

  test(`${kind}: takes a module that declares a maximum above the board's memory`, async (t) => {
    const source = 'export function reset(): void {} export function poll(n: u32): u32 { return memory.size() }'
    const module = await assemble(source, '--maximumMemory', '100')
    t.is(createCpu(kind, { module, memoryBytes: MEMORY_BYTES }).poll(0), 16)
  })

  const bytes: [string, number[]][] = [
    ['no bytes', []],
    ['text', [...Buffer.from('(module)')]],
    ['half a section', [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 9]],
    ['an endless number', [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
  ]
  for (const [name, content] of bytes) {
    test(`${kind}: refuses ${name} for a module`, (t) => {
      const options = { module: Uint8Array.from(content), memoryBytes: MEMORY_BYTES }
      t.throws(() => createCpu(kind, options), { code: 'ERR_CPU_MODULE', message: /no WebAssembly module/ })
    })
  }

  test(`${kind}: refuses a module whose code is invalid`, async (t) => {
    const module = Uint8Array.from(await assemble(FIRMWARE, ...FLAGS))
    const { pc = 0 } = (await faultOf(kind, 'unreachable')).frames[0]
    module[pc] = 0xff
    const message = /the firmware does not compile/
    t.throws(() => createCpu(kind, { module, memoryBytes: MEMORY_BYTES }), { code: 'ERR_CPU_MODULE', message })
  })

  test(`${kind}: a trap in the start function is an error`, async (t) => {
    const source = 'export function reset(): void {} export function poll(n: u32): u32 { return n } unreachable();'
    const module = await assemble(source)
    const message = /the firmware does not start/
    t.throws(() => createCpu(kind, { module, memoryBytes: MEMORY_BYTES }), { code: 'ERR_CPU_MODULE', message })
  })
}

async function faultOf(kind: CpuKind, what: keyof typeof DO, a = 0, b = 0) {
  const { cpu, do: run } = await board(kind)
  run(what, a, b)
  if (!cpu.fault) throw new Error(`${what} does not fault`)
  return cpu.fault
}

onWasmtime('both CPUs blame the same instruction, in the same functions', async (t) => {
  for (const what of ['divide', 'unreachable', 'convert'] as const) {
    const [a, b] = await Promise.all(KINDS.map((kind) => faultOf(kind, what, 0, what === 'convert' ? 0x7ff80000 : 0)))
    t.deepEqual(a.frames, b.frames)
    t.is(typeof a.frames[0].pc, 'number')
  }
  // Calls inlined by one of them still show as frames.
  const [a, b] = await Promise.all(KINDS.map((kind) => faultOf(kind, 'indirect', 99)))
  t.deepEqual(a.frames, b.frames)
})

onWasmtime('fuel is counted, and the same each time', async (t) => {
  const { cpu, do: run } = await board('wasmtime')
  cpu.reset()
  const spent = (n: number) => {
    run('loop', n)
    return cpu.cycles
  }
  t.is(spent(1000), spent(1000))
  const perRound = (spent(2000) - spent(1000)) / 1000
  t.is(spent(5000), spent(1000) + 4000 * perRound)
  t.true(perRound >= 5 && perRound < 50, `${perRound} units for a round of some ten instructions`)
  const other = await board('wasmtime')
  other.do('loop', 1000)
  t.is(other.cpu.cycles, spent(1000), 'on any CPU')
})

onWasmtime('the watchdog ends an endless loop', async (t) => {
  const { cpu, do: run } = await board('wasmtime', { fuelPerSlice: 100_000 })
  cpu.reset()
  t.is(run('forever'), -1)
  t.is(cpu.fault?.kind, 'watchdog')
  t.is(cpu.fault?.frames[0].functionName, 'firmware/poll')
  t.true(cpu.cycles >= 100_000 && cpu.cycles < 100_100)
  cpu.reset()
  t.true(run('loop', 1000) >= 0, 'each slice has the allowance anew')
  t.true(run('loop', 1000) >= 0)
})

onWasmtime('v8 catches its own traps with Wasmtime in the process', async (t) => {
  const [first, second] = await Promise.all([
    faultOf('wasmtime', 'load', MEMORY_BYTES),
    faultOf('v8', 'load', MEMORY_BYTES),
  ])
  t.is(first.kind, second.kind)
  t.is(first.address, MEMORY_BYTES)
})

const accesses: [string, keyof typeof DO, number, number, number?][] = [
  ['a store to the null page', 'store', 0, 1, 0],
  ['a store behind the registers', 'store', 0x2000, 1, 0x2000],
  ['a store across the end of the registers', 'store', 0x1ffe, 1, 0x2000],
  ['a load from nowhere', 'load', 0xfffc, 0, 0xfffc],
  ['a copy to nowhere', 'copy', 0x8000, 0x20000],
  ['a copy from nowhere', 'copy', 0x30000, 0],
  ['a copy that runs into nowhere', 'copy', 0x1f00, 0x20000],
  ['a fill of nowhere', 'fill', 0x2000, 0x1000],
]
for (const [name, what, a, b, address] of accesses) {
  onGuardedBus(`bus fault: ${name}`, async (t) => {
    const { cpu, do: run } = await board('wasmtime', { guarded: true })
    t.true(cpu.reset())
    t.is(run(what, a, b), -1)
    const { fault } = cpu
    t.is(fault?.kind, 'bus-fault')
    if (address !== undefined) t.is(fault?.address, address)
    const found = fault?.address ?? -1
    t.true(GUARD.some(({ start, end }) => start <= found && found < end))
    t.is(fault?.frames.at(-1)?.functionName, 'firmware/poll')
    t.is(typeof fault?.frames[0].pc, 'number')
    t.is(run('add', 1, 1), -1)
    t.true(cpu.reset())
    t.is(run('add', 1, 1), 2)
    t.is(run(what, a, b), -1, 'the page is guarded again')
    t.is(cpu.fault?.kind, 'bus-fault')
  })
}

onGuardedBus('a bus fault in memory.copy has its call stack', async (t) => {
  const module = await assemble(`
    export function reset(): void {}
    function outer(n: u32): u32 { const r = inner(n) + 1; store<u32>(0x20100, r); return r }
    function inner(n: u32): u32 { memory.copy(n, 0x20000, 0x100 + n); return load<u32>(0x20100) + outer2(n) }
    function outer2(n: u32): u32 { return n > 100000 ? outer(n) : 0 }
    export function poll(n: u32): u32 { return n == 0 ? outer(0x20000) : outer(n) + 1 }`)
  const cpu = createCpu('wasmtime', { module, memoryBytes: MEMORY_BYTES, guard: GUARD })
  t.is(cpu.poll(0x3000), -1)
  t.is(cpu.fault?.kind, 'bus-fault')
  const names = cpu.fault?.frames.map((frame) => frame.functionName)
  t.deepEqual(names, ['firmware/inner', 'firmware/outer', 'firmware/poll'])
  const [{ pc = 0 }] = cpu.fault?.frames ?? [{}]
  t.deepEqual([...module.subarray(pc, pc + 2)], [0xfc, 0x0a], 'memory.copy')
})

onGuardedBus('registers work, and the host may touch everything', async (t) => {
  const module = await assemble(FIRMWARE, ...FLAGS)
  const guard = [{ start: 0x4000, end: 0x5000 }, ...GUARD.slice(0, 1)]
  const cpu = createCpu('wasmtime', { module, memoryBytes: MEMORY_BYTES, guard })
  const words = new Uint32Array(cpu.memory)
  const run = (what: keyof typeof DO, a: number, b = 0) => {
    words.set([a, b], 0x20000 / 4)
    return cpu.poll(DO[what])
  }
  t.is(run('store', 0x1004, 7), 0)
  t.is(words[0x1004 / 4], 7)
  words[0x4000 / 4] = 9
  words.fill(1, 0, 0x400)
  t.is(words[0], 1)
  t.is(run('store', 0x4000, 1), -1)
  t.is(cpu.fault?.address, 0x4000)
  t.is(words[0x4000 / 4], 9)
})

const options: [string, object, CpuErrorCode, RegExp][] = [
  ['memory that is no multiple', { memoryBytes: 100_000 }, 'ERR_CPU_OPTION', /memoryBytes is 100000/],
  ['no memory', { memoryBytes: 0 }, 'ERR_CPU_OPTION', /memoryBytes is 0/],
  ['too much memory', { memoryBytes: 2 ** 33 }, 'ERR_CPU_OPTION', /up to 4 GiB/],
  ['no fuel', { fuelPerSlice: 0 }, 'ERR_CPU_OPTION', /fuelPerSlice is 0/],
  ['a guard off the pages', { guard: [{ start: 1, end: 0x1000 }] }, 'ERR_CPU_OPTION', /guard 1-4096/],
  ['a guard past the end', { guard: [{ start: 0, end: MEMORY_BYTES + 4096 }] }, 'ERR_CPU_OPTION', /within the 1048576/],
]
for (const [name, option, code, message] of options) {
  test(`refuses ${name}`, async (t) => {
    const module = await assemble(FIRMWARE, ...FLAGS)
    for (const kind of KINDS) {
      t.throws(() => createCpu(kind, { module, memoryBytes: MEMORY_BYTES, ...option }), { code, message })
    }
  })
}

test('auto is what is there', async (t) => {
  const module = await assemble(FIRMWARE, ...FLAGS)
  const cpu = createCpu('auto', { module, memoryBytes: MEMORY_BYTES })
  t.is(cpu.kind, availableCpu())
  t.is(cpu.kind, KINDS[0])
})

onWasmtime('memory outlives its CPU and goes with the last view', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const views: Uint8Array[] = []
  for (let round = 0; round < 50; round++) {
    const { cpu, do: run } = await board('wasmtime')
    cpu.reset()
    run('store', 0x50000, round)
    views.push(new Uint8Array(cpu.memory, 0x50000, 1))
    if (round % 3 === 0) cpu.dispose()
  }
  for (let round = 0; round < 4; round++) {
    collect()
    await new Promise(setImmediate)
  }
  views.forEach((view, round) => {
    if (round % 3 === 0) t.is(view.length, 0)
    else t.deepEqual([...view], [round])
  })
})

onWasmtime('runs in workers, which may end at any time', async (t) => {
  const module = await assemble(FIRMWARE, ...FLAGS)
  const index = new URL('../emulator/cpu/index.js', import.meta.url).href
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(workerData.index).then(({ createCpu }) => {
      const cpu = createCpu('wasmtime', { module: workerData.module, memoryBytes: ${MEMORY_BYTES} })
      cpu.reset()
      new Uint32Array(cpu.memory, 0x20000, 2).set([20, 22])
      parentPort.postMessage(cpu.poll(0))
      for (;;) cpu.poll(0)
    })`
  const answers = Array.from({ length: 4 }, async () => {
    const worker = new Worker(source, { eval: true, workerData: { index, module } })
    const answer = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    await worker.terminate()
    return answer
  })
  t.deepEqual(await Promise.all(answers), [42, 42, 42, 42])
  const { cpu, do: run } = await board('wasmtime')
  t.is(run('divide', 1, 0), -1)
  t.is(cpu.fault?.kind, 'divide-by-zero')
})
