/** Coverage: which lines and functions of the firmware were executed, as lcov. */
import { mkdirSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { CountFolder } from '../emulator/count-folder.ts'
import { FirmwareLibrary } from '../toolchain/debug/session/firmware.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { readCountFolder } from '../toolchain/profile/count-files.ts'
import { Coverage, lcovText } from '../toolchain/profile/coverage.ts'
import { inic, refusals } from './support/cli.ts'
import { builtFirmware, recordRequest } from './support/farm-kit.ts'
import { temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

/** Lines of this are named in the tests. */
const SOURCE = `import './abort'

@inline
function twice(n: u32): u32 {
  return n * 2
}

function never(n: u32): u32 {
  return n + load<u32>(0x20010)
}

function triangle(n: u32): u32 {
  let sum: u32 = 0
  for (let i: u32 = 0; i < n; i++) {
    sum += load<u32>(0x20020) + i
  }
  return sum
}

export function reset(): void {
  store<u32>(0x20000, triangle(5))
  store<u32>(0x1014, 1)
}

export function poll(irqs: u32): u32 {
  if (irqs == 0xffff) {
    store<u32>(0x20004, never(irqs))
  }
  store<u32>(0x20008, twice(load<u32>(0x20008)))
  return 1000
}
`
const LINE = (text: string) => SOURCE.split('\n').findIndex((line) => line.includes(text)) + 1

/** A farm of the package's own kind, in virtual time, as somebody's test would make it. */
const PROGRAM = `
import { readFileSync } from 'node:fs'
import { Farm } from ${JSON.stringify(join(packageRoot, 'dist/emulator/farm.js'))}
const [clock, path, code] = process.argv.slice(2)
const wasm = readFileSync(path)
const farm = new Farm({ clock })
const boards = ['one', 'two'].map((name) => farm.addBoard(name, { memoryBytes: 2 << 20 }))
for (const board of boards) board.powerOn({ wasm })
await farm.run(() => boards.every((board) => board.slices >= 10))
boards[0].powerOff()
await farm.stop()
process.exit(Number(code))
`

interface LcovFile {
  readonly functions: Map<string, number>
  readonly lines: Map<number, number>
}

/** Strict: what genhtml's reader demands of a trace file. */
function readLcov(text: string): Map<string, LcovFile> {
  const files = new Map<string, LcovFile>()
  let file: (LcovFile & { declared: Set<string>; totals: Map<string, number> }) | undefined
  for (const line of text.trimEnd().split('\n')) {
    if (line === 'end_of_record') {
      const hit = (counts: Iterable<number>) => [...counts].filter((count) => count > 0).length
      const { functions, lines, totals, declared } = file!
      const expected = [functions.size, hit(functions.values()), lines.size, hit(lines.values())]
      const found = ['FNF', 'FNH', 'LF', 'LH'].map((name) => totals.get(name))
      if (found.join() !== expected.join()) throw new Error(`totals ${found} of ${expected}`)
      if (declared.size !== functions.size) throw new Error('functions without counts')
      file = undefined
      continue
    }
    const [, record, rest] = /^([A-Z]+):(.*)$/.exec(line)!
    if (record === 'TN') continue
    if (record === 'SF') {
      file = { functions: new Map(), lines: new Map(), declared: new Set(), totals: new Map() }
      files.set(rest!, file)
      continue
    }
    const comma = rest!.indexOf(',')
    const [first, second] = [rest!.slice(0, comma), rest!.slice(comma + 1)]
    if (record === 'FN') {
      if (!/^[1-9]\d*$/.test(first) || file!.declared.has(second)) throw new Error(line)
      file!.declared.add(second)
    } else if (record === 'FNDA') {
      if (!file!.declared.has(second)) throw new Error(line)
      file!.functions.set(second, Number(first))
    } else if (record === 'DA') {
      if (!/^[1-9]\d*$/.test(first) || file!.lines.has(Number(first))) throw new Error(line)
      file!.lines.set(Number(first), Number(second))
    } else if (['FNF', 'FNH', 'LF', 'LH'].includes(record!)) file!.totals.set(record!, Number(rest))
    else throw new Error(`record ${line}`)
  }
  return files
}

test('around a command: every board of every farm in virtual time counts, off or not; the exit code is the command’s', async (t) => {
  const project = await tinyFirmware({ source: SOURCE })
  await writeFile(join(project, 'farm.mjs'), PROGRAM)
  for (const target of ['debug', 'release'] as const) {
    const { artifacts } = await buildFirmware({ directory: project, target })
    const args = ['coverage', '-o', 'lcov.info', '--', process.execPath, 'farm.mjs', 'virtual', artifacts.wasm, '7']
    const { code, stdout, stderr } = await inic(args, { cwd: project })
    t.is(code, 7, stderr)
    t.regex(stderr, /ended with 7; what it covered is counted all the same/)
    t.regex(stdout, /^firmware\/index\.ts +\d/m)
    const files = readLcov(await readFile(join(project, 'lcov.info'), 'utf8'))
    const file = files.get(join(project, 'firmware/index.ts'))!
    const { functions, lines } = file
    const polls = functions.get('poll')!
    t.true(polls >= 20, `${target}: ${polls} polls of two boards`)
    t.is(functions.get('reset'), 2)
    t.is(functions.get('triangle'), 2, target)
    t.is(functions.get('twice'), polls, 'inlined')
    t.is(lines.get(LINE('return n * 2')), polls)
    t.is(lines.get(LINE('store<u32>(0x20008')), polls)
    t.is(lines.get(LINE('sum += ')), 10, target)
    t.is(lines.get(LINE('store<u32>(0x20000')), 2)
    // Code that is there and was never executed is 0; what is no code is not there.
    t.is(lines.get(LINE('never(irqs)')), 0)
    t.is(functions.get('never'), 0)
    t.is(lines.get(LINE('return n + load')), 0)
    for (const text of ["import './abort'", '@inline']) t.false(lines.has(LINE(text)), text)
    t.is([...files.keys()].filter((name) => name.includes('~lib')).length, 0)
  }
})

test('around a command: farms in real time run as ever, and there is nothing to tell', async (t) => {
  const project = await tinyFirmware({ source: SOURCE })
  await writeFile(join(project, 'farm.mjs'), PROGRAM)
  const { artifacts } = await buildFirmware({ directory: project, target: 'release' })
  const args = ['coverage', '--', process.execPath, 'farm.mjs', 'real', artifacts.wasm, '0']
  const { code, stdout, stderr } = await inic(args, { cwd: project })
  t.is(code, 0, stderr)
  t.is(stdout, 'nothing was executed whose source is known\n')
})

test('a recording: lines of ipOS, and of one server only', async (t) => {
  const directory = await temporaryDirectory()
  const path = join(directory, 'farm.rec')
  await recordRequest(path, 2)
  const output = join(directory, 'lcov.info')
  const covered = async (...more: string[]) => {
    const { code, stderr } = await inic(['coverage', '--replay', path, '-o', output, ...more])
    t.is(code, 0, stderr)
    return readLcov(await readFile(output, 'utf8'))
  }
  const handshake = join(packageRoot, 'firmware/tcp/handshake.ts')
  const both = await covered()
  const [one, two] = [await covered('--server', 'server1'), await covered('--server', 'server2')]
  const polls = (files: Map<string, LcovFile>) =>
    files.get(join(packageRoot, 'firmware/index.ts'))!.functions.get('poll')!
  t.is(polls(both), polls(one) + polls(two))
  t.true(Math.max(...one.get(handshake)!.lines.values()) > 0)
  t.is(Math.max(...two.get(handshake)!.lines.values()), 0)
  const refused = await inic(['coverage', '--replay', path, '--server', 'server3'])
  t.is(refused.code, 2)
  t.regex(refused.stderr, /has no server 'server3'.*\n.*server1/)
})

test('a folder of counts: modules apart, processes and boards together', async (t) => {
  const directory = join(await temporaryDirectory(), 'counts')
  mkdirSync(directory)
  const [a, b] = [Buffer.from('module a'), Buffer.from('module b')]
  const folder = new CountFolder(directory)
  const histograms = [a, Buffer.from(a), b].map((module) => {
    const histogram = new Uint32Array(8)
    folder.began(module, histogram)
    return histogram
  })
  histograms[0]!.set([1, 0, 2])
  histograms[1]!.set([10, 0, 20, 30])
  histograms[2]!.set([5], 7)
  folder.ended(histograms[0]!)
  histograms[1]![0]! += 100
  folder.close()
  folder.close()
  // Of other processes.
  for (const name of await readdir(directory)) {
    if (!name.endsWith('.counts.json')) continue
    await writeFile(join(directory, name.replace(/-\d+-\d+\./, '-1-0.')), await readFile(join(directory, name)))
  }
  const modules = readCountFolder(directory)
  t.is(modules.length, 2)
  const counts = (module: Buffer) =>
    Object.fromEntries(modules.find(({ wasm }) => Buffer.compare(wasm, module) === 0)!.counts)
  t.deepEqual(counts(a), { 0: 222, 2: 44, 3: 60 })
  t.deepEqual(counts(b), { 7: 10 })
})

test('lcov of counts that were made up: the lines of both places where a function was put inline', (t) => {
  const { program } = new FirmwareLibrary([packageRoot]).find(builtFirmware.wasm, 'ipOS')
  const nothing = new Coverage()
  nothing.add(program, [])
  const everything = new Coverage()
  everything.add(
    program,
    program.functions.flatMap(({ range }) =>
      program.instructions(range.start, range.end).map(({ pc }): [number, number] => [pc, 1]),
    ),
  )
  const [none, all] = [readLcov(lcovText(nothing.files)), readLcov(lcovText(everything.files))]
  t.deepEqual([...none.keys()], [...all.keys()])
  for (const [name, { lines, functions }] of none) {
    t.deepEqual([...lines.keys()], [...all.get(name)!.lines.keys()])
    t.true([...lines.values(), ...functions.values()].every((count) => count === 0))
    t.true(
      [...all.get(name)!.lines.values()].every((count) => count > 0),
      name,
    )
    t.true(
      [...all.get(name)!.functions.values()].every((count) => count > 0),
      name,
    )
  }
  // Once for each of the places.
  const seqLt = all.get(join(packageRoot, 'firmware/tcp/sequence.ts'))!.functions.get('seqLt')!
  t.true(seqLt > 1, String(seqLt))
})

refusals('coverage', {
  'no farm': { args: ['--state', '/nonexistent'], code: 3, says: /no farm is running/ },
  'no recording': { args: ['--replay', 'package.json'], says: /cannot be replayed: this is no recording/ },
  'a command and a recording': { args: ['--replay', 'x.rec', '--', 'true'], says: /go without a command/ },
  'a command that is not there': { args: ['--', '/nonexistent'], says: /\/nonexistent cannot be run/ },
  'no time': { args: ['-n', 'x'], says: /Write a number of seconds above 0/ },
})
