import { existsSync, readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { CommandError } from '../toolchain/errors.ts'
import { type Artifacts, artifacts } from '../toolchain/firmware/artifacts.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { belongsTo } from '../toolchain/firmware/dwarf.ts'
import { findSymbols } from '../toolchain/firmware/find-symbols.ts'
import { findClass, readField } from '../toolchain/firmware/layouts.ts'
import type { Symbols } from '../toolchain/firmware/symbols.ts'
import { readWasmModule } from '../toolchain/firmware/wasm-module.ts'
import { decodeImage } from '../toolchain/image/image.ts'
import { formatVersion } from '../toolchain/image/version.ts'
import { linkedProject } from './support/project.ts'
import { TINY_SOURCE, type TinyFirmware, tinyFirmware } from './support/tiny-firmware.ts'

test('a build gives an image whose payload is the module, with the version of package.json', async (t) => {
  const directory = await tinyFirmware()
  const result = await buildFirmware({ directory, target: 'release' })
  t.false(result.upToDate)
  t.is(formatVersion(result.image.version), '1.2.3')
  const image = decodeImage(await readFile(artifacts(directory, 'release').image))
  t.deepEqual(Buffer.from(image.payload), await readFile(artifacts(directory, 'release').wasm))
})

test('asc runs again only if an input changed', async (t) => {
  const directory = await tinyFirmware()
  const build = () => buildFirmware({ directory, target: 'debug' })
  t.false((await build()).upToDate)
  t.true((await build()).upToDate)
  await writeFile(join(directory, 'firmware/index.ts'), `${TINY_SOURCE}// changed\n`)
  t.false((await build()).upToDate)
  t.true((await build()).upToDate)
  await writeFile(artifacts(directory, 'debug').wasm, 'somebody was here')
  t.false((await build()).upToDate, 'a module that is not what asc wrote')
  await writeFile(artifacts(directory, 'debug').manifest, '{')
  t.false((await build()).upToDate, 'a manifest that cannot be read')
})

test('beside the image lies the module with DWARF behind it, made anew with the module', async (t) => {
  const directory = await tinyFirmware()
  const { debugWasm, wasm } = artifacts(directory, 'debug')
  const build = (dwarf = true) => buildFirmware({ directory, target: 'debug', dwarf })
  const { remark } = await build()
  if (!hasAddon()) {
    t.regex(remark ?? '', /addon/)
    t.false(existsSync(debugWasm))
    return
  }
  t.is(remark, undefined)
  const first = await readFile(debugWasm)
  t.true(belongsTo(first, await readFile(wasm)))
  t.true((await build()).upToDate)
  t.deepEqual(await readFile(debugWasm), first)
  await writeFile(join(directory, 'firmware/index.ts'), `\n\n${TINY_SOURCE}`)
  await build()
  t.notDeepEqual(await readFile(debugWasm), first, 'the lines moved, the code did not')
  await build(false)
  t.false(existsSync(debugWasm))
  t.true((await build()).upToDate, 'made without compiling')
  t.true(belongsTo(await readFile(debugWasm), await readFile(wasm)))
})

test('a version alone needs no compilation', async (t) => {
  const directory = await tinyFirmware()
  await buildFirmware({ directory, target: 'debug' })
  const result = await buildFirmware({
    directory,
    target: 'debug',
    version: { major: 9, minor: 8, revision: 7, build: 6 },
  })
  t.true(result.upToDate)
  t.is(formatVersion(decodeImage(await readFile(result.artifacts.image)).version), '9.8.7+6')
})

test('class layouts list fields with type, offset and size, and read memory by them', async (t) => {
  const directory = await tinyFirmware()
  const { artifacts: files } = await buildFirmware({ directory, target: 'release' })
  const { layouts } = symbolsOf(files)
  t.is(layouts?.constants.COUNTERS, 0x20000)
  const layout = layouts && findClass(layouts, 'Counters')
  t.deepEqual(layout, {
    name: 'Counters',
    source: 'firmware/index',
    bytes: 24,
    fields: [
      { name: 'polls', type: 'u32', offset: 0, bytes: 4 },
      { name: 'flag', type: 'bool', offset: 4, bytes: 1 },
      { name: 'lastIrqs', type: 'u32', offset: 8, bytes: 4 },
      { name: 'nowNs', type: 'u64', offset: 16, bytes: 8 },
    ],
  })
  const memory = new DataView(new ArrayBuffer(64))
  memory.setUint32(32, 7, true)
  memory.setUint8(36, 1)
  memory.setBigUint64(48, 2n ** 40n, true)
  t.deepEqual(
    layout?.fields.map((field) => readField(memory, 32, field)),
    [7, true, 0, 2n ** 40n],
  )
})

test('a pc resolves to file, line, column and function', async (t) => {
  const directory = await tinyFirmware()
  const { artifacts: files } = await buildFirmware({ directory, target: 'debug' })
  const symbols = symbolsOf(files)
  const module = readWasmModule(await readFile(files.wasm))
  const poll = module.exports.find((item) => item.name === 'poll')
  const range = module.code.find((item) => item.functionIndex === poll?.index)
  if (!range) return t.fail('poll has no code')
  const lines = new Set<number>()
  for (let pc = range.start; pc < range.end; pc++) {
    const position = symbols.resolveSource(pc)
    t.is(position?.functionName, 'firmware/index/poll')
    if (position?.source) {
      t.is(position.source.file, 'firmware/index.ts')
      lines.add(position.source.line)
    }
  }
  const first = TINY_SOURCE.split('\n').findIndex((line) => line.includes('function poll')) + 1
  t.true(
    [...lines].every((line) => line >= first && line <= first + 6),
    [...lines].join(' '),
  )
  t.true(lines.has(first + 2), 'the line c.polls += 1')
  t.is(symbols.resolveSource(3), undefined)
  t.is(symbols.resolveSource(1e9), undefined)
})

function symbolsOf(files: Artifacts): Symbols {
  const symbols = findSymbols(readFileSync(files.wasm), [join(files.directory, '../..')])
  if (symbols === undefined) throw new Error('no symbols of what was just built')
  return symbols
}

const REFUSED: Record<string, TinyFirmware & { says: RegExp[] }> = {
  'a syntax error': { source: 'export function', says: [/does not compile/, /firmware\/index\.ts\(1/] },
  'a type error': {
    source: `${TINY_SOURCE}\nexport function f(): u32 { return nothing }`,
    says: [/TS2304.*'nothing'/s],
  },
  'no poll': {
    source: "import './abort'\nexport function reset(): void {}",
    says: [/does not export the function poll\(i32\) → i32/],
  },
  'a reset that takes something': {
    source: TINY_SOURCE.replace('reset()', 'reset(a: u32)'),
    says: [/export reset has the type \(i32\)/],
  },
  'a mutable global': {
    source: `${TINY_SOURCE}\nlet total: u32 = 0\nexport function add(): u32 { return ++total }`,
    says: [/mutable global firmware\/index\/total \(i32\)/, /lives in INIC memory/],
  },
  'an import': {
    source: `${TINY_SOURCE}\n@external("env", "print") declare function print(a: u32): void\nexport function f(): void { print(1) }`,
    says: [/imports the function env\.print/],
  },
  'an abort that is not there': {
    source: TINY_SOURCE.replace('counters().polls = 0', 'abort()'),
    options: { use: [] },
    says: [/imports the function env\.abort/, /"use"/],
  },
  'a memory of its own': { options: { importMemory: false }, says: [/does not import env\.memory/] },
  'constants outside their region': {
    source: `${TINY_SOURCE}\nexport function f(): usize { return memory.data<u32>([1, 2, 3]) }`,
    options: { memoryBase: 0 },
    says: [/constants lie at .* outside the region .*"memoryBase": 73728/],
  },
  'a start function': {
    source: `${TINY_SOURCE}\nstore<u32>(0x20010, 5)`,
    says: [/start function \(~start\)/],
  },
  'too much memory': { options: { initialMemory: 1000 }, says: [/asks for 65536000 bytes/] },
  'a limit on memory': { options: { maximumMemory: 100 }, says: [/limits memory to 100 pages/] },
}

for (const [name, { says, ...firmware }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, async (t) => {
    const directory = await tinyFirmware(firmware)
    const error = await t.throwsAsync(buildFirmware({ directory, target: 'debug' }), { instanceOf: CommandError })
    for (const pattern of says) t.regex(error.message, pattern)
    t.is(error.exitCode, 1)
  })
}

test("asc's count of arguments is the one mutable global that is let through", async (t) => {
  const source = `${TINY_SOURCE}\nexport function f(a: u32, b: u32 = 2): u32 { return a + b }`
  const directory = await tinyFirmware({ source })
  await t.notThrowsAsync(buildFirmware({ directory, target: 'debug' }))
})

test('another module has no symbols here', async (t) => {
  const directory = await tinyFirmware()
  const { artifacts: files } = await buildFirmware({ directory, target: 'debug' })
  const other = Uint8Array.from(await readFile(files.wasm))
  other[other.length - 1] ^= 1
  t.is(findSymbols(other, [directory]), undefined)
  t.is(findSymbols(other, ['/nonexistent']), undefined)
})

test('a folder without asconfig.json is no firmware', async (t) => {
  const error = await t.throwsAsync(buildFirmware({ directory: '/nonexistent/x', target: 'debug' }), {
    instanceOf: CommandError,
  })
  t.regex(error.message, /no asconfig\.json/)
  t.is(error.exitCode, 2)
})

test('sources of a package are named by their files, wherever the build names them', async (t) => {
  t.timeout(300_000)
  const directory = await linkedProject('hello')
  const { artifacts: files } = await buildFirmware({ directory, target: 'release' })
  const read = async (path: string) => JSON.parse(await readFile(path, 'utf8'))
  const { sources } = await read(files.sourceMap)
  const symbols = await read(files.symbols)
  const { classes } = await read(files.layouts)
  for (const names of [sources, symbols.files]) {
    t.true(names.includes('firmware/index.ts'))
    t.true(names.includes('node_modules/inic/firmware/hal/power.ts'))
    t.deepEqual(
      names.filter((name: string) => name.startsWith('~lib/inic')),
      [],
    )
  }
  const hal = classes.find(({ name }: { name: string }) => name === 'Hal')
  t.is(hal.source, 'node_modules/inic/firmware/hal/state')
})
