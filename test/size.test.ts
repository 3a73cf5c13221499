/** Sizes: where the bytes of a firmware come from, and how they grew. */
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { FirmwareLibrary } from '../toolchain/debug/session/firmware.ts'
import { createProgram } from '../toolchain/debug/symbols/index.ts'
import { artifacts } from '../toolchain/firmware/artifacts.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { codeSize, growth, sizeByFolder } from '../toolchain/profile/code-size.ts'
import { inic, refusals, startInic } from './support/cli.ts'
import { builtFirmware } from './support/farm-kit.ts'
import { TINY_SOURCE, temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

const { program } = new FirmwareLibrary([packageRoot]).find(builtFirmware.wasm, 'ipOS')
const sum = (items: readonly { readonly bytes: number }[]) => items.reduce((total, { bytes }) => total + bytes, 0)

test('every byte is counted once: sections make the file, functions the code', (t) => {
  for (const source of [true, false]) {
    const size = codeSize(program, source)
    t.is(size.bytes, builtFirmware.wasm.length)
    t.is(sum(size.sections), size.bytes)
    t.is(sum(size.functions), size.codeBytes)
    const code = size.sections.find(({ name }) => name === 'code')!
    // What is left is the section's own header and the count of functions.
    t.true(code.bytes - size.codeBytes > 0 && code.bytes - size.codeBytes <= 10, `${code.bytes} ${size.codeBytes}`)
    t.is(size.functions.length > 0 && size.functions.every(({ bytes }) => bytes > 0), true)
  }
  t.is(codeSize(program, false).functions.length, program.functions.length)
  t.is(sum(codeSize(program).data), sum(program.module.data))
})

test('code that was put inline counts to the function that it was written in', (t) => {
  const { functions } = codeSize(program)
  const seqLt = functions.find(({ name }) => name === 'seqLt')!
  t.like(seqLt, { file: 'firmware/tcp/sequence.ts', line: 3 })
  t.true(seqLt.copies > 1)
  t.is(program.findFunctions('seqLt').length, 0)
  t.is(functions.find(({ name }) => name === 'poll')!.copies, 1)
})

test('folders have what is in them', (t) => {
  const { functions, codeBytes } = codeSize(program)
  const sizes = sizeByFolder(functions)
  const tcp = [...sizes].filter(([name]) => /^firmware\/tcp\/[^/]+\.ts$/.test(name))
  t.is(
    sizes.get('firmware/tcp/'),
    tcp.reduce((total, [, bytes]) => total + bytes, 0),
  )
  const top = [...sizes].filter(([name]) => /^[^/]+\/?$/.test(name))
  t.is(
    top.reduce((total, [, bytes]) => total + bytes, 0),
    codeBytes,
  )
})

test('without a source map the functions of the module remain', (t) => {
  const bare = createProgram({ wasm: builtFirmware.wasm })
  const { functions, codeBytes } = codeSize(bare)
  t.is(functions.length, program.functions.length)
  t.is(sum(functions), codeBytes)
  t.deepEqual([...sizeByFolder(functions).keys()], ['-'])
})

test('growth: what came, went, grew and shrank, the most first', (t) => {
  const one = (name: string, bytes: number, line = 1) => ({ name, file: 'a.ts', line, copies: 1, bytes })
  const before = [one('same', 10), one('grew', 10), one('shrank', 50), one('gone', 5), one('moved', 7, 1)]
  const after = [one('same', 10), one('grew', 12), one('shrank', 20), one('new', 4), one('moved', 7, 99)]
  t.deepEqual(
    growth(before, after).map(({ name, before, after }) => [name, before, after]),
    [
      ['shrank', 50, 20],
      ['gone', 5, 0],
      ['new', 0, 4],
      ['grew', 10, 12],
    ],
  )
  t.deepEqual(growth(before, before), [])
})

test('inic size of an image, a module, and what it grew by since', async (t) => {
  const project = await tinyFirmware()
  const build = () => buildFirmware({ directory: project, target: 'release' })
  const { artifacts: built } = await build()
  const shown = await inic(['size', built.image, '--json'])
  t.is(shown.code, 0, shown.stderr)
  const size = JSON.parse(shown.stdout)
  t.is(size.bytes, (await readFile(built.wasm)).length)
  t.true(size.files['firmware/index.ts'] > 0)
  t.deepEqual(JSON.parse((await inic(['size', '--json'], { cwd: project })).stdout).functions, size.functions)
  const text = await inic(['size'], { cwd: project })
  t.regex(text.stdout, /^build\/release\/firmware\.wasm: [\d,]+ bytes$/m)
  t.regex(text.stdout, /poll +firmware\/index\.ts:\d+/)

  const old = join(await temporaryDirectory(), 'old')
  await cp(built.directory, old, { recursive: true })
  await writeFile(
    join(project, 'firmware/index.ts'),
    TINY_SOURCE.replace('c.polls += 1', 'c.polls += 1; if (c.polls % 7 == 3) { c.nowNs = c.nowNs * 31 + c.polls }'),
  )
  await build()
  const against = await inic(['size', '--against', join(old, 'firmware.wasm'), '--json'], { cwd: project })
  t.is(against.code, 0, against.stderr)
  const grown = JSON.parse(against.stdout)
  t.true(grown.bySource)
  t.like(grown.functions[0], { name: 'poll', file: 'firmware/index.ts' })
  t.true(grown.functions[0].after > grown.functions[0].before)
  t.is(grown.functions.length, 1)
  const told = await inic(['size', '--against', join(old, 'firmware.wasm')], { cwd: project })
  t.regex(told.stdout, /→ [\d,]+ bytes, \+\d+/)
  t.regex(told.stdout, /^\+\d+ +\+\d+\.\d +\d+ +\d+ +poll +firmware\/index\.ts$/m)
  // A module alone.
  const alone = join(await temporaryDirectory(), 'alone.wasm')
  await cp(join(old, 'firmware.wasm'), alone)
  const bare = JSON.parse((await inic(['size', '--against', alone, '--json'], { cwd: project })).stdout)
  t.false(bare.bySource)
  t.is(bare.functions[0].name, 'firmware/index/poll')
})

test.serial('inic size --server: INIC memory by pool of a running farm', async (t) => {
  const directory = await temporaryDirectory()
  const farm = startInic(t, ['run', join(packageRoot, 'examples/test-net.json'), '--state', directory])
  await farm.until(/Ctrl-C stops the farm/)
  const shown = await inic(['size', '--server', 'server1', '--state', directory])
  t.is(shown.code, 0, shown.stderr)
  t.regex(shown.stdout, /^ *[\d,]+ +\d+\.\d +[\d,]+ +\d+ +\d+\.\d +transmission control blocks$/m)
  t.regex(shown.stdout, /^[\d,]+ bytes in \d+ pools$/m)
  const [{ server, pools }] = JSON.parse((await inic(['size', '--server', '--state', directory, '--json'])).stdout)
  t.is(server, 'server1')
  t.true(pools.length > 5)
  t.regex((await inic(['size', '--server', 'x', '--state', directory])).stderr, /has no server 'x'/)
  t.is((await farm.interrupt()).code, 0)
})

refusals('size', {
  'no such file': { args: ['/nonexistent.wasm'], says: /nonexistent\.wasm cannot be read/ },
  'neither an image nor a module': { args: ['package.json'], says: /neither an image nor a module/ },
  'no target': { args: ['--target', 'fast'], says: /Allowed choices are debug, release/ },
  'a file and a farm': { args: [artifacts(packageRoot, 'release').wasm, '--server', 'server1'], says: /without files/ },
  'no farm': { args: ['--server', '--state', '/nonexistent'], code: 3, says: /no farm is running/ },
})

test('inic size refuses: a module that is cut off', async (t) => {
  const path = join(await temporaryDirectory(), 'cut.wasm')
  for (const length of [4, 9, 1000, builtFirmware.wasm.length - 1]) {
    await writeFile(path, builtFirmware.wasm.subarray(0, length))
    const { code, stderr } = await inic(['size', path])
    t.is(code, 2)
    t.regex(stderr, /cut\.wasm is no firmware/)
  }
})
