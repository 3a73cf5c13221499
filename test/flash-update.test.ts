/** Updates as a person does them: inic flash and inic run, with a farm that runs and with one that is stopped. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { decodeImage, encodeImage } from '../toolchain/image/image.ts'
import { KeyPair } from '../toolchain/image/keys.ts'
import { securityCounterTlv, signatureTlvs } from '../toolchain/image/manifest.ts'
import { padImage } from '../toolchain/image/trailer.ts'
import { parseVersion } from '../toolchain/image/version.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { inic, type RunningCommand, startInic } from './support/cli.ts'
import { temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

const SHOP = join(packageRoot, 'examples/shop/server.mjs')
const KEY = KeyPair.generate()

/** Stops in its first poll. */
const CRASHING = `
import './abort'
export function reset(): void { store<u32>(0x20000, 0) }
export function poll(irqs: u32): u32 { unreachable(); return load<u32>(0x20000) }
`

interface Bench {
  readonly directory: string
  readonly file: string
  readonly selection: string[]
  path(name: string): string
}

/** A farm of one server with the shop; `server` are more of its settings. */
async function bench(server = ''): Promise<Bench> {
  const directory = await temporaryDirectory()
  const path = (name: string) => join(directory, name)
  await writeFile(path('key.pem'), KEY.pem)
  await writeFile(path('key.pub.pem'), KEY.publicKey.pem)
  await writeFile(
    path('farm.json'),
    `{ "networks": [{ "name": "lan-a" }], "publish": ["0:server1:80"],
       "servers": [{ "name": "server1", "interfaces": [{ "network": "lan-a", "address": "10.0.0.1/24" }],
         "applications": [{ "name": "shop", "program": ${JSON.stringify(SHOP)}, "env": { "PORT": "80" } }]${server} }] }`,
  )
  return { directory, file: path('farm.json'), selection: ['--server', 'server1', '--farm', path('farm.json')], path }
}

/** ipOS of the build in an image of another version. */
async function ipos(path: string, version: string, options: { key?: KeyPair; counter?: number } = {}): Promise<string> {
  const { payload } = decodeImage(await readFile(join(packageRoot, 'build/release/firmware.img')))
  const { key, counter } = options
  await writeFile(
    path,
    encodeImage(payload, {
      version: parseVersion(version),
      ...(counter !== undefined && { protectedTlvs: [securityCounterTlv(counter)] }),
      ...(key && { sign: (digest: Uint8Array) => signatureTlvs(key, digest) }),
    }),
  )
  return path
}

let crashing: Promise<string> | undefined

/** An image whose firmware stops at once. */
function crashingImage(): Promise<string> {
  crashing ??= tinyFirmware({ source: CRASHING })
    .then((directory) => buildFirmware({ directory, target: 'release', version: parseVersion('6.6.6') }))
    .then(({ artifacts }) => artifacts.image)
  return crashing
}

async function startShop(t: ExecutionContext, { file }: Bench): Promise<{ farm: RunningCommand; url: string }> {
  const farm = startInic(t, ['run', file])
  await farm.until(/shop: listening on port 80/)
  const [, url] = await farm.until(/(http:\/\/127\.0\.0\.1:\d+) → server1:80/)
  return { farm, url }
}

async function report(selection: string[]): Promise<Record<string, unknown>> {
  return JSON.parse((await inic(['flash', '--status', '--json', ...selection])).stdout) as Record<string, unknown>
}

/** Asks until the shop, which is started anew with its card, answers. */
async function statusOf(url: string): Promise<number> {
  for (let n = 0; n < 100; n++) {
    const answer = await fetch(url).catch(() => undefined)
    if (answer !== undefined) return answer.status
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return 0
}

test.serial('a running server takes an update, restarts, serves, and has confirmed it', async (t) => {
  const it = await bench()
  const { url, farm } = await startShop(t, it)
  const image = await ipos(it.path('new.img'), '7.0.0')
  const staged = await inic(['flash', image, ...it.selection])
  t.is(staged.code, 0, staged.stderr)
  t.regex(staged.stdout, /server1: version 7\.0\.0, written and verified; the next boot tries it/)
  t.like(await report(it.selection), { nextBoot: 'test', confirmed: true, secondary: { version: '7.0.0' } })
  t.is(await statusOf(url), 200)

  const booted = await inic(['flash', '--boot', ...it.selection])
  t.is(booted.code, 0, booted.stderr)
  t.regex(booted.stdout, /restarted, serves, confirmed/)
  t.like(await report(it.selection), { nextBoot: 'none', confirmed: true, primary: { version: '7.0.0' } })
  t.is(await statusOf(url), 200)
  t.regex((await inic(['flash', '--log', ...it.selection])).stdout, /boot +test +7\.0\.0/)

  const again = await inic([
    'flash',
    await ipos(it.path('next.img'), '7.1.0'),
    '--boot',
    '--no-confirm',
    ...it.selection,
  ])
  t.regex(again.stdout, /version 7\.1\.0, written and verified; restarted, serves; on trial until it is confirmed/)
  const busy = await inic(['flash', image, ...it.selection])
  t.is(busy.code, 2)
  t.regex(busy.stderr, /server1 runs an image on trial.*\s+confirm it first/)
  t.regex((await inic(['flash', '--confirm', ...it.selection])).stdout, /the image that runs is confirmed/)
  t.like(await report(it.selection), { confirmed: true, primary: { version: '7.1.0' } })
  t.is(await statusOf(url), 200)
  t.is((await farm.interrupt()).code, 0)
})

test.serial('firmware that stops on trial costs one reboot, and the one before it is back', async (t) => {
  const it = await bench()
  const { url, farm } = await startShop(t, it)
  const flashed = await inic(['flash', await crashingImage(), '--boot', ...it.selection])
  t.is(flashed.code, 4, flashed.stdout)
  t.regex(flashed.stderr, /server1 has not kept version 6\.6\.6: it runs \d+\.\d+\.\d+\s+why: inic flash --log/)
  await farm.until(/server1: its firmware stopped on trial; it is switched off and on/)
  await farm.until(/server1: boots \S+ \(primary slot, reverted\): the image on trial was not confirmed/)
  t.is(await statusOf(url), 200)
  t.like(await report(it.selection), { confirmed: true, secondary: { version: '6.6.6' } })
  t.is((await farm.interrupt()).code, 0)
})

test.serial('the same for a farm that is stopped: the next run tries, reverts, and serves', async (t) => {
  const it = await bench()
  t.is((await inic(['run', it.file, '--once'])).code, 0)
  const flashed = await inic(['flash', await crashingImage(), ...it.selection])
  t.regex(flashed.stdout, /version 6\.6\.6, \d+ bytes, .* written and verified; the next boot tries it/)
  const run = await inic(['run', it.file, '--once'])
  t.is(run.code, 0, run.stderr)
  t.regex(run.stderr, /server1: its firmware stopped on trial; it is switched off and on/)
  t.like(await report(it.selection), { nextBoot: 'none', confirmed: true, secondary: { version: '6.6.6' } })

  await inic(['flash', await ipos(it.path('new.img'), '7.0.0'), ...it.selection])
  await inic(['run', it.file, '--once', '--no-confirm'])
  t.like(await report(it.selection), { nextBoot: 'revert', confirmed: false, primary: { version: '7.0.0' } })
  const refused = await inic(['flash', it.path('new.img'), ...it.selection])
  t.is(refused.code, 2)
  t.regex(refused.stderr, /holds what a boot may have to go back to/)
  const reverted = await inic(['run', it.file, '--once'])
  t.regex(reverted.stderr, /\(primary slot, reverted\): the image on trial was not confirmed/)

  await inic(['flash', it.path('new.img'), ...it.selection])
  t.regex((await inic(['run', it.file, '--once'])).stderr, /firmware 7\.0\.0 .* serves, and is confirmed/)
  await inic(['flash', await ipos(it.path('last.img'), '8.0.0'), '--permanent', ...it.selection])
  t.regex((await inic(['run', it.file, '--once'])).stderr, /server1: boots 8\.0\.0 \(primary slot, updated\)/)
  t.like(await report(it.selection), { nextBoot: 'none', confirmed: true, primary: { version: '8.0.0' } })
})

const BAD: Readonly<Record<string, { source: string; says: RegExp }>> = {
  'stops in its reset': {
    source: `import './abort'
export function reset(): void { store<u32>(0x20000, 0); unreachable() }
export function poll(irqs: u32): u32 { return load<u32>(0x20000) }`,
    says: /server1 stopped at 0\.000000 s: trap/,
  },
  'never says that it serves': {
    source: `import './abort'
export function reset(): void { store<u32>(0x20000, 1000000) }
export function poll(irqs: u32): u32 { return load<u32>(0x20000) }`,
    says: /server1: its firmware is on trial and does not come to serve; it is switched off and on/,
  },
}

for (const [name, { source, says }] of Object.entries(BAD)) {
  test.serial(`the one before is back after firmware on trial that ${name}`, async (t) => {
    const it = await bench()
    const directory = await tinyFirmware({ source })
    const { artifacts } = await buildFirmware({ directory, target: 'release' })
    await inic(['flash', artifacts.image, ...it.selection])
    const run = await inic(['run', it.file, '--once'])
    t.is(run.code, 0, run.stderr)
    t.regex(run.stderr, says)
    t.like(await report(it.selection), { nextBoot: 'none', confirmed: true, secondary: { version: '1.2.3' } })
    t.regex(
      (await inic(['flash', '--log', ...it.selection])).stdout,
      /boot +revert .* the image on trial was not confirmed/,
    )
  })
}

test.serial(
  'a server with a key takes nothing that is not signed by it, and nothing older than it has confirmed',
  async (t) => {
    const it = await bench(', "key": "key.pub.pem"')
    const plain = await inic(['run', it.file, '--once'])
    t.is(plain.code, 2)
    t.regex(plain.stderr, /firmware\.img would not boot on server1: not signed by key [0-9a-f]{16}/)
    const signed = await ipos(it.path('signed.img'), '7.0.0', { key: KEY, counter: 5 })
    t.is((await inic(['run', it.file, '--once', '--image', signed])).code, 0)
    t.like(await report(it.selection), { securityCounter: 5, primary: { version: '7.0.0', signed: true } })

    const unsigned = await ipos(it.path('unsigned.img'), '7.1.0')
    const foreign = await ipos(it.path('foreign.img'), '7.1.0', { key: KeyPair.generate(), counter: 9 })
    const old = await ipos(it.path('old.img'), '7.1.0', { key: KEY, counter: 4 })
    for (const [image, says] of [
      [unsigned, /server1 would not boot it: not signed by key .*: it is not signed/],
      [foreign, /it is signed by another key/],
      [old, /security counter 4: the board has confirmed 5/],
    ] as const) {
      const refused = await inic(['flash', image, ...it.selection])
      t.is(refused.code, 2)
      t.regex(refused.stderr, says)
    }
    const farm = startInic(t, ['run', it.file, '--image', signed])
    await farm.until(/shop: listening on port 80/)
    const refused = await inic(['flash', unsigned, '--boot', ...it.selection])
    t.is(refused.code, 2)
    t.regex(refused.stderr, /server1 would not boot it: not signed by key/)
    const good = await ipos(it.path('good.img'), '7.2.0', { key: KEY, counter: 6 })
    t.regex((await inic(['flash', good, '--boot', ...it.selection])).stdout, /restarted, serves, confirmed/)
    t.is((await farm.interrupt()).code, 0)

    await writeFile(it.path('key.pub.pem'), KeyPair.generate().publicKey.pem)
    const other = await inic(['run', it.file, '--once', '--image', good])
    t.is(other.code, 2)
    t.regex(other.stderr, /the flash of server1 trusts the key [0-9a-f]{16}…, and the farm file names [0-9a-f]{16}…/)
  },
)

test.serial('an update of a board that is empty has something to go back to, in virtual time too', async (t) => {
  const state = await temporaryDirectory()
  const farm = ['--farm', join(packageRoot, 'examples/echo.json'), '--state', state, '--server', 'server1']
  t.is((await inic(['flash', await crashingImage(), ...farm])).code, 0)
  const run = await inic(['run', join(packageRoot, 'examples/echo.json'), '--virtual', '--state', state])
  t.is(run.code, 0, run.stderr)
  t.regex(run.stderr, /server1: boots 6\.6\.6 \(primary slot\), on trial: as it was asked to/)
  t.regex(run.stderr, /server1: boots \S+ \(primary slot, reverted\): the image on trial was not confirmed/)
  t.regex(run.stderr, /1000 round trips with server1/)
})

test.serial('firmware that takes no updates is confirmed from outside', async (t) => {
  const it = await bench()
  const directory = await tinyFirmware()
  const { artifacts } = await buildFirmware({ directory, target: 'release' })
  await inic(['flash', artifacts.image, ...it.selection])
  const farm = startInic(t, ['run', it.file])
  await farm.until(/server1: firmware 1\.2\.3 \(primary slot\) serves, and is confirmed, from outside/)
  const refused = await inic(['flash', artifacts.image, ...it.selection])
  t.is(refused.code, 4)
  t.regex(
    refused.stderr,
    /the firmware of server1 does not answer to updates\s+stop the farm, and flash its file instead/,
  )
  await farm.interrupt()
  t.like(await report(it.selection), { confirmed: true, primary: { version: '1.2.3' } })
})

const REFUSED: Readonly<Record<string, { args: string[]; code: number; says: RegExp }>> = {
  'two places': { args: ['x', '--server', 'a', '--flash', 'b'], code: 2, says: /name two places/ },
  'a look with an image': {
    args: ['x', '--status', '--flash', 'b'],
    code: 2,
    says: /--status and --log go without/,
  },
  'a confirmation of what is not there yet': {
    args: ['x', '--confirm', '--flash', 'b'],
    code: 2,
    says: /--confirm goes with --boot, or without an image/,
  },
  'a restart of a farm that does not run': {
    args: ['x', '--boot', '--flash', 'b'],
    code: 3,
    says: /restarts a server of a running farm/,
  },
  'a look into a flash that is not there': { args: ['--status', '--flash', 'b'], code: 2, says: /b has no flash yet/ },
  'a factory that restarts': {
    args: ['x', '--boot', '--primary', '--flash', 'b'],
    code: 2,
    says: /--primary goes without/,
  },
}

test.serial('what imgtool --confirm has padded is taken for good, without its padding', async (t) => {
  const it = await bench()
  const image = await readFile(await ipos(it.path('plain.img'), '7.0.0'))
  await writeFile(it.path('padded.img'), padImage(image, 0x80000, true))
  const flashed = await inic(['flash', it.path('padded.img'), '--flash', it.path('board.flash')])
  t.regex(flashed.stdout, /written and verified; the next boot takes it for good/)
  const there = await inic(['flash', '--status', '--json', '--flash', it.path('board.flash')])
  t.like(JSON.parse(there.stdout), { nextBoot: 'permanent', secondary: { version: '7.0.0', bytes: image.length } })
})

test.serial('inic flash says what cannot be meant', async (t) => {
  const { directory } = await bench()
  for (const [name, { args, code, says }] of Object.entries(REFUSED)) {
    const result = await inic(['flash', ...args], { cwd: directory })
    t.is(result.code, code, `${name}: ${result.stderr}`)
    t.regex(result.stderr, says, name)
  }
})
