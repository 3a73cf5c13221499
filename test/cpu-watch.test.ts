import test, { type ExecutionContext } from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { type DebugCpu, type DebugOutcome, WasmtimeCpu, type Watchpoint } from '../emulator/cpu/index.ts'
import { assemble } from './support/assemble.ts'

const onWasmtime = hasAddon() ? test : test.skip

const MEMORY_BYTES = 1 << 20

/** A table of rows of 16 bytes at 0x21000, and every way to touch memory at 0x20000 and above. */
const FIRMWARE = `
  const A: usize = 0x20000, ROWS: usize = 0x21000;
  export function reset(): void { memory.fill(0x20000, 0, 0x3000) }
  export function poll(irqs: u32): u32 {
    switch (irqs) {
      case 0: store<u32>(A, 7); return load<u32>(A);
      case 1: store<u8>(A + 1, 0xee); return load<u16>(A);
      case 2: store<u64>(A, 0x0102030405060708, 8); return <u32>load<u64>(A, 8);
      case 3: memory.copy(A, 0x22000, 64); return 0;
      case 4: memory.fill(A, 5, 64); return 0;
      case 5: v128.store(A, i32x4.splat(3)); return i32x4.extract_lane(v128.load(A), 1);
      case 6: v128.store_lane<u16>(A + 4, i16x8.splat(9), 2); return v128.any_true(v128.load_lane<u8>(A + 4, i8x16.splat(0), 3));
      case 7: for (let n: u32 = 0; n < 8; n++) for (let field: u32 = 0; field < 16; field += 4) store<u32>(ROWS + n * 16 + field, n);
        return 0;
      case 8: store<u32>(A, load<u32>(A)); store<u32>(A, load<u32>(A) + 1); return 0;
      case 9: memory.copy(A + 32, A, 16); return 0;
      case 10: store<u32>(A, 1); store<u32>(A, 2); store<u32>(A, 3); return 9;
      case 11: store<u32>(0x21ffe, 0xffffffff); return load<u32>(MAX);
      default: return 0;
    }
  }
  const MAX: usize = 0xfffffffe;`

async function debugged() {
  const module = await assemble(FIRMWARE)
  const cpu = new WasmtimeCpu({ module, memoryBytes: MEMORY_BYTES }).debugTwin()
  cpu.reset()
  return { cpu, module }
}

/** What the watchpoints saw of one call: kind, address, bytes, first watched byte touched, contents before and after. */
function hitsOf(t: ExecutionContext, cpu: DebugCpu, irqs: number): string[] {
  const seen: string[] = []
  let outcome: DebugOutcome = cpu.poll(irqs)
  for (; outcome.state === 'stopped'; outcome = cpu.resume()) {
    if (outcome.reason !== 'watch') {
      t.like(outcome, { reason: 'trap' })
      continue
    }
    for (const { kind, address, bytes, start, before, after, pc } of outcome.hits) {
      const hex = (content: Uint8Array) => Buffer.from(content).toString('hex')
      seen.push(`${kind} ${address.toString(16)}+${bytes} @${start.toString(16)} ${hex(before)} ${hex(after)}`)
      t.true(pc < (cpu.pc ?? 0), 'behind the access')
    }
  }
  return seen
}

const zero = '00000000'
const CASES: [string, number, Watchpoint, string[]][] = [
  ['a store', 0, { start: 0x20000, end: 0x20004, kind: 'write' }, [`write 20000+4 @20000 ${zero} 07000000`]],
  ['a load', 0, { start: 0x20000, end: 0x20004, kind: 'read' }, ['read 20000+4 @20000 07000000 07000000']],
  [
    'both',
    0,
    { start: 0x20000, end: 0x20004, kind: 'access' },
    [`write 20000+4 @20000 ${zero} 07000000`, 'read 20000+4 @20000 07000000 07000000'],
  ],
  [
    'one byte of a word',
    1,
    { start: 0x20001, end: 0x20002, kind: 'access' },
    ['write 20001+1 @20001 00 ee', 'read 20000+2 @20001 ee ee'],
  ],
  ['beside the watched bytes', 1, { start: 0x20002, end: 0x20010, kind: 'access' }, []],
  [
    'an address with an offset',
    2,
    { start: 0x2000f, end: 0x20010, kind: 'access' },
    ['write 20008+8 @2000f 00 01', 'read 20008+8 @2000f 01 01'],
  ],
  ['the target of a copy', 3, { start: 0x20010, end: 0x20012, kind: 'write' }, ['write 20000+64 @20010 0000 0000']],
  ['the source of a copy', 3, { start: 0x2203e, end: 0x23000, kind: 'read' }, ['read 22000+64 @2203e 0000 0000']],
  ['a copy that changes nothing', 3, { start: 0x20010, end: 0x20012, kind: 'change' }, []],
  ['a fill', 4, { start: 0x2003e, end: 0x20050, kind: 'change' }, ['write 20000+64 @2003e 0000 0505']],
  [
    'a vector',
    5,
    { start: 0x2000c, end: 0x2000e, kind: 'access' },
    ['write 20000+16 @2000c 0000 0300', 'read 20000+16 @2000c 0300 0300'],
  ],
  [
    'lanes of a vector',
    6,
    { start: 0x20000, end: 0x20010, kind: 'access' },
    ['write 20004+2 @20004 0000 0900', 'read 20004+1 @20004 09 09'],
  ],
  [
    'a field of a table',
    7,
    { start: 0x21020, end: 0x21050, stride: 16, offset: 4, bytes: 4, kind: 'change' },
    [2, 3, 4].map((n) => `write 210${n}4+4 @210${n}4 ${zero} 0${n}000000`),
  ],
  [
    'the rest of a row',
    7,
    { start: 0x21010, end: 0x21020, stride: 16, offset: 12, kind: 'write' },
    [`write 2101c+4 @2101c ${zero} 01000000`],
  ],
  [
    'a copy over several rows',
    3,
    { start: 0x20000, end: 0x20040, stride: 16, offset: 8, bytes: 4, kind: 'write' },
    [`write 20000+64 @20008 ${zero} ${zero}`],
  ],
  [
    'an access across a field',
    11,
    { start: 0x21ff0, end: 0x22010, stride: 16, bytes: 1, kind: 'change' },
    ['write 21ffe+4 @22000 00 ff'],
  ],
  [
    'stores that change something',
    8,
    { start: 0x20000, end: 0x20004, kind: 'change' },
    [`write 20000+4 @20000 ${zero} 01000000`],
  ],
  [
    'a copy within what is watched',
    9,
    { start: 0x20000, end: 0x20030, kind: 'access' },
    [
      `read 20000+16 @20000 ${'00'.repeat(16)} ${'00'.repeat(16)}`,
      `write 20020+16 @20020 ${'00'.repeat(16)} ${'00'.repeat(16)}`,
    ],
  ],
]
for (const [name, irqs, watchpoint, expected] of CASES) {
  onWasmtime(`watches ${name}`, async (t) => {
    const { cpu } = await debugged()
    const fuel = () => {
      while (cpu.stopped) cpu.resume()
      return cpu.cycles
    }
    cpu.poll(irqs)
    const unwatched = fuel()
    while (cpu.reset().state === 'stopped') cpu.resume()
    const id = cpu.addWatchpoint(watchpoint)
    t.deepEqual(hitsOf(t, cpu, irqs), expected)
    t.is(fuel(), unwatched)
    t.true(cpu.removeWatchpoint(id))
    t.false(cpu.removeWatchpoint(id))
    cpu.reset()
    t.deepEqual(hitsOf(t, cpu, irqs), [])
    cpu.reset()
    cpu.addWatchpoint(watchpoint)
    cpu.counting = true
    t.deepEqual(hitsOf(t, cpu, irqs), expected, 'while instructions are counted too')
  })
}

onWasmtime('several watchpoints on one access', async (t) => {
  const { cpu } = await debugged()
  const a = cpu.addWatchpoint({ start: 0x20000, end: 0x20002, kind: 'write' })
  const b = cpu.addWatchpoint({ start: 0x20001, end: 0x20100, kind: 'change' })
  const outcome = cpu.poll(0)
  t.like(outcome, { reason: 'watch' })
  if (outcome.state !== 'stopped' || outcome.reason !== 'watch') return
  t.deepEqual(
    outcome.hits.map(({ id }) => id),
    [a],
    'the second saw no change',
  )
  cpu.resume()
  const second = cpu.poll(1)
  t.like(second, { reason: 'watch' })
  if (second.state === 'stopped' && second.reason === 'watch')
    t.deepEqual(
      second.hits.map(({ id }) => id),
      [a, b],
    )
})

onWasmtime('a watchpoint set and taken back at a stop', async (t) => {
  const { cpu } = await debugged()
  const first = cpu.addWatchpoint({ start: 0x20000, end: 0x20004, kind: 'write' })
  t.like(cpu.poll(10), { reason: 'watch' })
  cpu.removeWatchpoint(first)
  const second = cpu.addWatchpoint({ start: 0x20003, end: 0x20005, kind: 'write' })
  t.like(cpu.resume(), { reason: 'watch' })
  cpu.removeWatchpoint(second)
  t.deepEqual(cpu.resume(), { state: 'done', result: 9 })
})

onWasmtime('a breakpoint behind a watched access is that stop', async (t) => {
  const { cpu } = await debugged()
  const id = cpu.addWatchpoint({ start: 0x20000, end: 0x20004, kind: 'write' })
  t.like(cpu.poll(10), { reason: 'watch' })
  const { pc = 0 } = cpu
  cpu.abandon()
  cpu.addBreakpoint(pc)
  t.like(cpu.poll(10), { reason: 'watch' })
  t.is(cpu.pc, pc)
  t.like(cpu.resume(), { reason: 'watch' })
  t.not(cpu.pc, pc)
  cpu.abandon()
  cpu.removeWatchpoint(id)
  t.like(cpu.poll(10), { reason: 'breakpoint' })
  t.is(cpu.pc, pc)
  t.deepEqual(cpu.resume(), { state: 'done', result: 9 })
})

const REFUSED: [string, Watchpoint][] = [
  ['no bytes', { start: 8, end: 8, kind: 'read' }],
  ['past the end', { start: MEMORY_BYTES - 4, end: MEMORY_BYTES + 1, kind: 'read' }],
  ['no number', { start: Number.NaN, end: 4, kind: 'read' }],
  ['a field outside of its row', { start: 0, end: 64, stride: 16, offset: 12, bytes: 8, kind: 'read' }],
  ['a field of nothing', { start: 0, end: 64, stride: 16, offset: 16, kind: 'read' }],
  ['a negative stride', { start: 0, end: 64, stride: -16, kind: 'read' }],
  ['no such kind', { start: 0, end: 64, kind: 'execute' as never }],
]
for (const [name, watchpoint] of REFUSED) {
  onWasmtime(`refuses to watch ${name}`, async (t) => {
    const { cpu } = await debugged()
    t.throws(() => cpu.addWatchpoint(watchpoint), { code: 'ERR_CPU_OPTION' })
    t.is(cpu.poll(0).state, 'done')
  })
}
