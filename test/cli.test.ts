import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { Flash } from '../emulator/devices/flash.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { flashMap } from '../toolchain/image/flash-map.ts'
import { decodeImage, encodeImage } from '../toolchain/image/image.ts'
import { readSlot } from '../toolchain/image/slot.ts'
import { packageVersion } from '../toolchain/package-root.ts'
import { inic } from './support/cli.ts'
import { temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

const COMMANDS = ['new', 'build', 'image', 'flash', 'check', 'run', 'inspect', 'capture', 'drain', 'bench']

test('--version and --help', async (t) => {
  t.like(await inic(['--version']), { code: 0, stdout: `${packageVersion}\n` })
  const help = await inic(['--help'])
  t.is(help.code, 0)
  for (const command of COMMANDS) t.regex(help.stdout, new RegExp(`^  ${command}\\b`, 'm'))
})

for (const command of COMMANDS) {
  test(`${command} --help has examples`, async (t) => {
    const { code, stdout } = await inic([command, '--help'])
    t.is(code, 0)
    t.regex(stdout, new RegExp(`Examples:\n  .*inic ${command}`))
  })
}

/** Bad input of every kind, what is said about it, and the exit code. */
const REFUSED: Record<string, { args: string[]; code?: number; says: RegExp[] }> = {
  'no command': { args: [], says: [/Usage: inic/] },
  'an unknown command': { args: ['flsh'], says: [/unknown command 'flsh'/, /Did you mean flash\?/] },
  'an unknown option': { args: ['build', '--relase'], says: [/unknown option '--relase'/, /Did you mean --release\?/] },
  'build: a folder without firmware': { args: ['build', '/tmp'], says: [/holds no firmware/, /inic build DIR/] },
  'build: a version of no form': { args: ['build', '--version', '1.2'], says: [/'1\.2' is not a version/] },
  'build: two folders': { args: ['build', 'a', 'b'], says: [/too many arguments/] },
  'flash: no place': { args: ['flash'], says: [/no place to write to/, /--server NAME, or --flash FILE/] },
  'flash: an image that is not there': {
    args: ['flash', 'no.img', '--flash', '/tmp/x'],
    says: [/there is no firmware image no\.img/, /inic build --release/],
  },
  'flash: a file that is no image': {
    args: ['flash', 'package.json', '--flash', '/tmp/x'],
    says: [/package\.json is no image that boots: not an image/],
  },
  'check: a farm file that is not there': {
    args: ['check', 'no.json'],
    says: [/no\.json is no farm file: there is no such file/],
  },
  'run: a farm file that is not there': {
    args: ['run', 'no.json'],
    says: [/no\.json is no farm file: there is no such file/],
  },
  'run: a farm file that is none': {
    args: ['run', 'asconfig.json'],
    says: [/asconfig\.json:2:3: entries: there is no such setting/],
  },
  'run: a published port of no form': { args: ['run', '--publish', '80'], says: [/'80' is invalid.*8080:server1:80/] },
  'run: an unknown server': {
    args: ['run', '--publish', '80:server9:80'],
    says: [/there is no server 'server9'/, /did you mean 'server1'\?/],
  },
  'run: an unknown network': {
    args: ['run', '--tap', 'lan-x=tap0'],
    says: [/no network 'lan-x'/, /did you mean 'lan-a'\?/],
  },
  'run: a TAP of no form': { args: ['run', '--tap', 'lan-a'], says: [/Write it as in lan-a=inic0/] },
  'run: a stream of no form': {
    args: ['run', '--link', 'lan-a=hear:1'],
    says: [/Write it as in lan-a=listen:127\.0\.0\.1:9001/],
  },
  'run: datagrams without a place to go': {
    args: ['run', '--link', 'lan-a=dgram:127.0.0.1:9001'],
    says: [/Write it as in lan-a=listen:127\.0\.0\.1:9001/],
  },
  'run: a capture for no network': {
    args: ['run', '--play', 'clients.pcapng'],
    says: [/Write it as in clients\.pcapng:lan-a/],
  },
  'run: a capture for an unknown network': {
    args: ['run', '--play', 'clients.pcapng:lan-x'],
    says: [/no network 'lan-x'/, /did you mean 'lan-a'\?/],
  },
  'run: an unknown processor': {
    args: ['run', '--cpu', 'z80'],
    says: [/'z80' is invalid. Allowed choices are auto, wasmtime, v8/],
  },
  'run: a Node program in virtual time': { args: ['run', '--virtual'], says: [/'shop' on server1 is a Node program/] },
  'run: --json without --once': { args: ['run', '--json'], says: [/--json goes with --once/] },
  'run: an image that is none': { args: ['run', '--image', 'package.json'], says: [/package\.json is no image/] },
  'run: a link to capture that is not there': {
    args: ['run', '--pcap', '/tmp/inic-test.pcapng:server1.9', '--state', '/tmp/inic-test-state'],
    says: [/no network or link 'server1\.9'/],
  },
  'inspect: nothing to look at': { args: ['inspect'], says: [/missing required argument 'what'/] },
  'inspect: an unknown thing': {
    args: ['inspect', 'tabels'],
    says: [/'tabels' is invalid for argument 'what'. Allowed choices are farm, tables/],
  },
  'inspect: an address of no form': { args: ['inspect', 'memory', '--at', 'x'], says: [/Write an address/] },
  'inspect: no farm is running': {
    args: ['inspect', 'tables', '--state', '/nonexistent'],
    code: 3,
    says: [/no farm is running/, /inic run/],
  },
  'drain: no server': { args: ['drain'], says: [/missing required argument 'server'/] },
  'drain: a time of no form': {
    args: ['drain', 'server1', '--timeout', '30'],
    says: [/Write a time with its unit, as in 30s/],
  },
  'drain: to take back what is asked for': {
    args: ['drain', 'server1', '--undo', '--to', 'server2'],
    says: [/--undo goes without --to and --timeout/],
  },
  'drain: no farm is running': {
    args: ['drain', 'server1', '--state', '/nonexistent'],
    code: 3,
    says: [/no farm is running/, /inic run/],
  },
  'capture: no file': { args: ['capture', 'lan-a'], says: [/required option '-o, --output <file>' not specified/] },
  'capture: no number of seconds': {
    args: ['capture', 'lan-a', '-o', 'x', '--seconds', '-1'],
    says: [/Write a number of seconds above 0/],
  },
  'capture: no farm is running': {
    args: ['capture', 'lan-a', '-o', '/tmp/x', '--state', '/nonexistent'],
    code: 3,
    says: [/no farm is running/],
  },
}

for (const [name, { args, code = 2, says }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, async (t) => {
    const result = await inic(args)
    t.is(result.code, code, result.stderr)
    t.is(result.stdout, '')
    for (const pattern of says) t.regex(result.stderr.replace(/\s+/g, ' '), pattern)
    t.notRegex(result.stderr, /defect of inic|at .*\.js:\d+/)
  })
}

test('check shows what a farm is, for people and as JSON', async (t) => {
  const shown = await inic(['check', 'examples/farm.json'])
  t.is(shown.code, 0, shown.stderr)
  t.is(shown.stderr, '')
  t.regex(shown.stdout, /^ok examples\/farm\.json: farm farm, 3 servers, 2 routers, 4 networks, real time$/m)
  t.regex(shown.stdout, /^internet +wan +1500 +router-a, router-b$/m)
  t.regex(shown.stdout, /^sync +hub +1516 +server1, server2, server3$/m)
  t.regex(shown.stdout, /^router-a +ISP1 +internet +198\.51\.100\.1\/24 +222\.222\.222\.0\/24 via 198\.51\.100\.2$/m)
  t.regex(
    shown.stdout,
    /^server1 +0 +lan-a +123\.123\.123\.1\/24 +router-a +lan-b +server2, server3 +round-robin +shop$/m,
  )
  t.regex(shown.stdout, /^127\.0\.0\.1:8081 +server1 +222\.222\.222\.1:80 +internet +router-a$/m)
  const { ok, farm } = JSON.parse((await inic(['check', 'examples/farm.json', '--json'])).stdout)
  t.true(ok)
  t.like(farm.servers[0].interfaces[0], {
    network: 'lan-a',
    address: '123.123.123.1/24',
    gateway: '123.123.123.254',
    router: 'router-a',
    reply: 'lan-b',
  })
  t.deepEqual(farm.servers[2].peers, ['server1', 'server2'])
  t.like(farm.published[0], { at: '127.0.0.1:8080', address: '123.123.123.1', from: 'internet', router: 'router-a' })
})

test('check without a file checks the farm that run runs without one', async (t) => {
  const { code, stdout } = await inic(['check'])
  t.is(code, 0)
  t.regex(stdout, /^ok .*one-server\.json: farm one-server, 1 server, 0 routers, 2 networks/)
})

test('check shows every fault, with its place and what to write instead', async (t) => {
  const file = join(await temporaryDirectory(), 'bad.json')
  const servers = Array.from(
    { length: 15 },
    (_, n) => `{ "name": "server${n}", "interfaces": [{ "network": "lan-${n}", "address": "10.0.0.1/24" }] }`,
  )
  await writeFile(file, `{ "networks": [{ "name": "lan-x" }],\n  "servers": [\n${servers.join(',\n')}] }`)
  const shown = await inic(['check', file])
  t.is(shown.code, 2)
  t.is(shown.stdout, '')
  t.is(shown.stderr.match(/there is no network/g)?.length, 15)
  t.regex(
    shown.stderr,
    /bad\.json:3:\d+: servers\[0\]\.interfaces\[0\]\.network: .*\n.*\n.*\^+\n.*= did you mean 'lan-x'\?/,
  )
  const told = await inic(['check', file, '--json'])
  t.is(told.code, 2)
  const { ok, problems } = JSON.parse(told.stdout)
  t.false(ok)
  t.is(problems.length, 15)
  t.like(problems[1], { line: 4, column: 50, hint: "did you mean 'lan-x'?" })
  t.regex(told.stderr, /bad\.json: 15 faults/)
  const run = await inic(['run', file])
  t.regex(run.stderr, /and 5 more; inic check shows them all/)
})

test('build tells what it made, and as JSON', async (t) => {
  const directory = await tinyFirmware()
  const output = join(directory, 'out/nic.img')
  const built = await inic(['build', directory, '-o', output, '--version', '4.5.6+7'])
  t.is(built.code, 0, built.stderr)
  t.regex(built.stdout, /out\/nic\.img: debug, version 4\.5\.6\+7, \d+ bytes, built in/)
  const again = await inic(['build', directory, '--json'])
  t.like(JSON.parse(again.stdout), { target: 'debug', version: '1.2.3', upToDate: true })
})

test('build shows the diagnostics of the compiler', async (t) => {
  const directory = await tinyFirmware({ source: 'export function poll(irqs: u32): u32 { return x }' })
  const { code, stderr } = await inic(['build', directory])
  t.is(code, 1)
  t.regex(stderr, /Cannot find name 'x'/)
  t.regex(stderr, /in firmware\/index\.ts\(1,\d+\)/)
})

test('flash writes, verifies, and keeps the rest of the flash', async (t) => {
  const directory = await tinyFirmware()
  const { artifacts, image } = await buildFirmware({ directory, target: 'release' })
  const path = join(directory, 'board.flash')
  const result = await inic(['flash', artifacts.image, '--flash', path])
  t.is(result.code, 0, result.stderr)
  t.regex(
    result.stdout,
    /board\.flash: version 1\.2\.3, \d+ bytes, SHA-256 [0-9a-f]{16}…, written and verified; the next boot tries it/,
  )
  t.is((await stat(path)).size, 4 * 2 ** 20)

  const flash = Flash.open(path, 4 * 2 ** 20)
  const { primary, secondary, boot } = flashMap(flash.bytes)
  t.deepEqual(readSlot(flash, secondary).digest, image.digest)
  flash.write(boot.offset, Buffer.from('boot log'))
  flash.close()
  const json = await inic(['flash', artifacts.image, '--primary', '--flash', path, '--json'])
  t.like(JSON.parse(json.stdout), { slot: 'primary', version: '1.2.3', bytes: image.totalBytes, nextBoot: 'none' })
  const bytes = await readFile(path)
  t.is(bytes.toString('latin1', boot.offset, boot.offset + 8), 'boot log')
  t.deepEqual(decodeImage(bytes.subarray(primary.offset)).digest, image.digest)
})

test('flash finds the flash of a server by its farm file', async (t) => {
  const directory = await tinyFirmware()
  const { artifacts } = await buildFirmware({ directory, target: 'release' })
  const farm = join(directory, 'shop.json')
  await writeFile(
    farm,
    '{ "networks": [{ "name": "n" }], "servers": [{ "name": "s1", "flash": "1MiB", "interfaces": [{ "network": "n", "address": "10.0.0.1/24" }] }] }',
  )
  const result = await inic(['flash', artifacts.image, '--server', 's1', '--farm', farm])
  t.is(result.code, 0, result.stderr)
  t.is((await stat(join(directory, '.inic/shop/s1.flash'))).size, 2 ** 20)
  const unknown = await inic(['flash', artifacts.image, '--server', 's2', '--farm', farm])
  t.is(unknown.code, 2)
  t.regex(unknown.stderr, /has no server 's2'\s+did you mean 's1'/)
})

test('flash refuses an image that is larger than the slot', async (t) => {
  const directory = await temporaryDirectory()
  const image = join(directory, 'large.img')
  await writeFile(
    image,
    encodeImage(Buffer.alloc(3 * 2 ** 20), { version: { major: 1, minor: 0, revision: 0, build: 0 } }),
  )
  const { code, stderr } = await inic(['flash', image, '--flash', join(directory, 'board.flash')])
  t.is(code, 2)
  t.regex(stderr, /the image has \d+ bytes and the secondary slot room for \d+/)
})

test('flash needs one place to write to', async (t) => {
  const directory = await temporaryDirectory()
  const image = join(directory, 'a.img')
  await writeFile(image, encodeImage(Buffer.from('x'), { version: { major: 1, minor: 0, revision: 0, build: 0 } }))
  t.regex((await inic(['flash', image])).stderr, /no place to write to/)
  t.regex((await inic(['flash', image, '--server', 'a', '--flash', 'b'])).stderr, /name two places/)
})

test('a flash file of an impossible size is refused', async (t) => {
  const directory = await temporaryDirectory()
  const [image, flash] = [join(directory, 'a.img'), join(directory, 'odd.flash')]
  await writeFile(image, encodeImage(Buffer.from('x'), { version: { major: 1, minor: 0, revision: 0, build: 0 } }))
  await writeFile(flash, Buffer.alloc(12345))
  const { code, stderr } = await inic(['flash', image, '--flash', flash])
  t.is(code, 2, stderr)
  t.regex(stderr, /12345 bytes cannot be laid out/)
})
