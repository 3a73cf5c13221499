/** Lines, functions, instructions and frames of a compiled firmware. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { createProgram, type Program } from '../toolchain/debug/symbols/index.ts'
import { decodeFunction } from '../toolchain/firmware/wasm-instructions.ts'
import { readWasmModule, WasmFormatError } from '../toolchain/firmware/wasm-module.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { ipos } from './support/debugged-card.ts'
import { randomFrom } from './support/random.ts'

const TARGETS = ['debug', 'release'] as const
const INPUT = 'firmware/tcp/input.ts'

/** Line of the first line of a source file that holds `text`. */
function lineOf(file: string, text: string): number {
  const index = readFileSync(join(packageRoot, file), 'utf8')
    .split('\n')
    .findIndex((line) => line.includes(text))
  if (index < 0) throw new Error(`${file} has no line with ${text}`)
  return index + 1
}

function only<T>(items: readonly T[]): T {
  if (items.length !== 1) throw new Error(`${items.length} items, not one`)
  return items[0]
}

for (const target of TARGETS) {
  test(`${target}: a file is found by its name, the end of it, and the editor's path`, async (t) => {
    const program = await ipos(target)
    for (const name of [
      INPUT,
      'tcp/input.ts',
      join(packageRoot, INPUT),
      './firmware/tcp/input.ts',
      `/elsewhere/${INPUT}`,
    ]) {
      t.is(only(program.findFiles(name)).name, INPUT, name)
    }
    t.true(program.findFiles('input.ts').length > 1, 'ipOS has several of them')
    t.deepEqual(program.findFiles('put.ts'), [])
    t.deepEqual(program.findFiles('nothing.ts'), [])
    t.true(program.files.some(({ name, path }) => name.startsWith('~lib/') && path === undefined))
  })

  test(`${target}: a breakpoint stands at the first instruction of its line`, async (t) => {
    const program = await ipos(target)
    const line = lineOf(INPUT, 'const entry = tableFind(')
    const place = program.breakpointsAt('tcp/input.ts', line)
    t.is(place?.line, line)
    for (const pc of place?.pcs ?? []) {
      t.true(program.isLineStart(pc))
      t.true(program.frames(pc).some(({ source }) => source?.file === INPUT && source.line === line))
      t.truthy(program.instructionAt(pc), 'an instruction begins there')
    }
  })

  test(`${target}: a line without code gives the next one with code`, async (t) => {
    const program = await ipos(target)
    const comment = lineOf(INPUT, '// First: the sequence number.')
    t.is(program.breakpointsAt(INPUT, comment)?.line, comment + 1)
    t.is(program.breakpointsAt(INPUT, 100_000), undefined)
    t.is(program.breakpointsAt('no/such/file.ts', 1), undefined)
  })

  test(`${target}: no breakpoint lies outside of its function's instructions`, async (t) => {
    const program = await ipos(target)
    for (const { name } of program.files) {
      for (const line of program.breakpointLines(name)) {
        for (const pc of program.breakpointsAt(name, line)?.pcs ?? []) {
          const symbol = program.functionAt(pc)
          if (symbol === undefined || pc < symbol.range.start || program.instructionAt(pc) === undefined) {
            t.fail(`${name}:${line} at ${pc}`)
          }
        }
      }
    }
    t.pass()
  })

  test(`${target}: functions by name, class and method, path, and glob`, async (t) => {
    const program = await ipos(target)
    t.is(only(program.findFunctions('tcpInput')).path, 'firmware/tcp/input/tcpInput')
    t.is(only(program.findFunctions('firmware/tcp/input/tcpInput')).name, 'tcpInput')
    t.is(only(program.findFunctions('input/tcpInput')).name, 'tcpInput')
    t.is(only(program.findFunctions('tcpInp?t')).name, 'tcpInput')
    t.deepEqual(program.findFunctions('cpInput'), [])
    t.true(program.findFunctions('firmware/tcp/**').every(({ path }) => path.startsWith('firmware/tcp/')))
    const symbol = only(program.findFunctions('tcpInput'))
    t.is(symbol.declaration?.file, INPUT)
    t.is(symbol.declaration?.line, lineOf(INPUT, 'export function tcpInput('))
    t.is(program.positionAt(symbol.entry)?.file, target === 'debug' ? INPUT : program.positionAt(symbol.entry)?.file)
  })

  test(`${target}: a function has its instructions whole, and ends with its end`, async (t) => {
    const program = await ipos(target)
    let calls = 0
    for (const { range } of program.functions) {
      let at = range.start
      const instructions = program.instructions(range.start, range.end)
      for (const { pc, bytes, kind } of instructions) {
        if (pc !== at) t.fail(`instruction at ${pc}, expected at ${at}`)
        at = pc + bytes
        if (kind === 'call') calls++
      }
      if (at !== range.end) t.fail(`ends at ${at}, not ${range.end}`)
      if (instructions.at(-1)?.kind !== 'end of function') t.fail(`the last is ${instructions.at(-1)?.text}`)
    }
    t.true(calls > 500, `${calls} calls`)
  })

  test(`${target}: a return address stands on the line of its call`, async (t) => {
    const program = await ipos(target)
    const { range } = only(program.findFunctions('tcpInput'))
    const call = program.instructions(range.start, range.end).find(({ kind }) => kind === 'call')
    if (call === undefined) return t.fail('it calls nothing')
    t.deepEqual(program.positionAt(call.pc + call.bytes, { caller: true }), program.positionAt(call.pc))
  })
}

test('release: an inlined function has a frame of its own, called from where the source calls it', async (t) => {
  const program = await ipos('release')
  const pc = program.functionBreakpoints('resetArrives')[0]
  const frames = program.frames(pc)
  t.deepEqual(
    frames.map(({ name, inline }) => [name, inline]),
    [
      ['resetArrives', true],
      ['segmentArrives', false],
    ],
  )
  t.is(frames[1].source?.line, lineOf(INPUT, 'resetArrives(tcb, sequence)'))
  t.is(frames[0].declaration?.line, lineOf(INPUT, 'function resetArrives('))
  t.is(program.entering(pc), 1, 'execution has not entered it yet')
})

test('release: the code of an inlined function is found wherever it was put', async (t) => {
  const program = await ipos('release')
  const pcs = program.functionBreakpoints('seqLt')
  t.true(pcs.length > 20, `${pcs.length} places`)
  for (const pc of pcs)
    t.true(
      program.frames(pc).some(({ name }) => name === 'seqLt'),
      `at ${pc}`,
    )
  t.true(new Set(pcs.map((pc) => program.functionAt(pc)?.name)).size > 10)
})

test('release: most inlined code knows who calls it', async (t) => {
  const program = await ipos('release')
  let [inlined, explained] = [0, 0]
  for (const { range } of program.functions) {
    for (let pc = range.start; pc < range.end; pc += 13) {
      const frames = program.frames(pc)
      if (frames.length < 2) continue
      inlined++
      if (frames.every(({ source }) => source !== undefined)) explained++
    }
  }
  t.true(inlined > 1000)
  t.true(explained > inlined * 0.98, `${explained} of ${inlined}`)
})

test('debug: variables are in scope from behind their declaration to the end of their block', async (t) => {
  const program = await ipos('debug')
  const at = (text: string, offset = 0) => {
    const pc = program.breakpointsAt(INPUT, lineOf(INPUT, text) + offset)?.pcs[0] ?? 0
    return program.variables(pc).map(({ name, type }) => `${name}: ${type}`)
  }
  const early = at('let flags = tcpFlags(segment)')
  t.deepEqual(early, ['tcb: Tcb', 'packet: u32', 'segment: u32', 'payload: u32', 'bytes: u32', 'transient: bool'])
  t.true(at('const stamped = options()', 1).includes('stamped: bool'))
  t.false(at('const window = tcb.rcvAdvertised').includes('stamped: bool'))
})

test('locals of other types do not shift the names: asc and the module number them differently', async (t) => {
  const program = await ipos('debug')
  const line = lineOf('firmware/net/ethernet.ts', 'if (served && type == ETHERTYPE_IPV4)')
  const pc = program.breakpointsAt('net/ethernet.ts', line)?.pcs[0] ?? 0
  const served = program.variables(pc).find(({ name }) => name === 'served')
  t.is(program.functionAt(pc)?.locals[served?.local ?? 0], 'i32', 'a bool, and not the u64 declared before it')
})

test('a program without source map and symbols still has functions and instructions', async (t) => {
  const { wasm } = await ipos('debug')
  const bare = createProgram({ wasm })
  const { entry, range } = only(bare.findFunctions('tcpInput'))
  t.is(entry, range.start)
  t.is(bare.positionAt(entry), undefined)
  t.deepEqual(
    bare.frames(entry).map(({ name }) => name),
    ['tcpInput'],
  )
  t.deepEqual(bare.variables(entry), [])
  t.is(bare.breakpointsAt(INPUT, 1), undefined)
  t.deepEqual(bare.frames(0), [])
})

test('texts of another format are refused', async (t) => {
  const { wasm } = await ipos('debug')
  t.throws(() => createProgram({ wasm, symbols: '{"format":99}' }), { message: /symbols of format 99/ })
  t.throws(() => createProgram({ wasm, layouts: '{"format":1}' }), { message: /layouts of format 1/ })
  t.throws(() => createProgram({ wasm, sourceMap: 'no map' }))
  t.throws(() => createProgram({ wasm: new Uint8Array(20) }), { instanceOf: WasmFormatError })
})

/** A module of one function without parameters. */
function moduleOf(code: readonly number[]): Uint8Array {
  const body = [0, ...code]
  const section = [1, body.length, ...body]
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, 4, 1, 0x60, 0, 0],
    ...[3, 2, 1, 0],
    ...[10, section.length, ...section],
  ])
}

const TEXTS: readonly [text: string, ...code: number[]][] = [
  ['i32.const -5', 0x41, 0x7b],
  ['i64.const 300', 0x42, 0xac, 0x02],
  ['f32.const 1.5', 0x43, 0, 0, 0xc0, 0x3f],
  ['br_table 0 1 0', 0x0e, 2, 0, 1, 0],
  ['i32.load offset=36', 0x28, 2, 36],
  ['i32.load offset=4 align=1', 0x28, 0, 4],
  ['v128.load32_lane offset=8 3', 0xfd, 0x56, 2, 8, 3],
  ['memory.copy', 0xfc, 10, 0, 0],
  ['i32x4.extadd_pairwise_i16x8_u', 0xfd, 0x7f],
  ['i32x4.add', 0xfd, 0xae, 1],
  ['f64x2.convert_low_i32x4_u', 0xfd, 0xff, 1],
  ['i64.atomic.rmw32.cmpxchg_u offset=16', 0xfe, 0x4e, 2, 16],
  ['call $function_0', 0x10, 0],
  ['call_indirect (type 0)', 0x11, 0, 0],
  ['block (result i32)', 0x02, 0x7f],
  ['loop', 0x03, 0x40],
  ['local.get 3', 0x20, 3],
  ['ref.null func', 0xd0, 0x70],
  ['select (result i32)', 0x1c, 1, 0x7f],
]

for (const [text, ...code] of TEXTS) {
  test(`instruction: ${text}`, (t) => {
    const ends = text.startsWith('block') || text.startsWith('loop') ? [0x0b, 0x0b] : [0x0b]
    const program: Program = createProgram({ wasm: moduleOf([...code, ...ends]) })
    const [first] = program.instructions(0, 1000)
    t.is(first.text, text)
    t.is(first.bytes, code.length)
  })
}

const BROKEN: readonly [what: string, message: RegExp, ...code: number[]][] = [
  ['an unknown opcode', /opcode 0xff/, 0xff, 0x0b],
  ['an unknown vector opcode', /opcode 0xfd 300/, 0xfd, 0xac, 0x02, 0x0b],
  ['a body that ends in a block', /ends within a block/, 0x02, 0x40, 0x0b],
  ['an instruction that is cut off', /beyond its function/, 0x41],
  ['code behind the end', /behind the last end/, 0x0b, 0x01],
  ['a table of more labels than bytes', /announced/, 0x0e, 0xff, 0xff, 0x03, 0x0b],
]

for (const [what, message, ...code] of BROKEN) {
  test(`refused: ${what}`, (t) => {
    const wasm = moduleOf(code)
    const [range] = readWasmModule(wasm).code
    t.throws(() => decodeFunction(wasm, range), { instanceOf: WasmFormatError, message })
  })
}

test('a corrupt module is refused or read, and nothing else happens', async (t) => {
  const { wasm } = await ipos('release')
  const random = randomFrom(11)
  let refused = 0
  for (let round = 0; round < 60; round++) {
    const broken = wasm.slice(0, round % 3 === 0 ? random(wasm.length) : wasm.length)
    for (let flips = 1 + random(4); flips > 0; flips--) broken[random(broken.length)] = random(256)
    try {
      const program = createProgram({ wasm: broken })
      for (const { range } of program.functions.slice(0, 20)) program.instructions(range.start, range.end)
    } catch (error) {
      refused++
      if (!(error instanceof WasmFormatError)) t.fail(`round ${round}: ${String(error)}`)
    }
  }
  t.true(refused > 10, `${refused} refused`)
})
