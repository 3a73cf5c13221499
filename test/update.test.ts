/** Updates in service: in virtual time with connections that transfer, and as a person does them, under load. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import type net from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import type { BootImage } from '../emulator/board.ts'
import { availableCpu, type CpuKind } from '../emulator/cpu/index.ts'
import { type BuildResult, buildFirmware } from '../toolchain/firmware/build.ts'
import type { Layouts } from '../toolchain/firmware/layouts.ts'
import { decodeImage, encodeImage } from '../toolchain/image/image.ts'
import { stateLayoutOf, stateLayoutTlv } from '../toolchain/image/state-layout.ts'
import { parseVersion } from '../toolchain/image/version.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { VirtualFarm } from '../toolchain/testing/virtual-farm.ts'
import { inic, type RunningCommand, startInic } from './support/cli.ts'
import { iposVariant } from './support/firmware-variant.ts'
import { temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

const RELEASE = decodeImage(readFileSync(join(packageRoot, 'build/release/firmware.img')))
const LAYOUTS = JSON.parse(readFileSync(join(packageRoot, 'build/release/firmware.layouts.json'), 'utf8')) as Layouts
const LAYOUT = stateLayoutOf(RELEASE)!

let built: Promise<BuildResult> | undefined

/** ipOS whose segments leave with a TTL of 63 in place of 64. */
function variant(): Promise<BuildResult> {
  built ??= iposVariant({ file: 'firmware/tcp/output.ts', from: 'TTL, true)', to: 'TTL - 1, true)' })
  return built
}

// ── virtual time ──

const SWAPS = 50
const CONNECTIONS = 16
const BYTES_EACH = 4_000_000

/** Sends `bytes` and then its end; gives the digest of what comes back. */
async function echo(socket: net.Socket, bytes: Buffer): Promise<string> {
  const hash = createHash('sha256')
  socket.on('data', (chunk) => hash.update(chunk))
  socket.end(bytes)
  await once(socket, 'end')
  return hash.digest('hex')
}

/** IPv4 frames that a board sent: how many by TTL, and how many resets. */
class Sent {
  readonly ttls = new Map<number, number>()
  resets = 0

  frame(memory: Uint8Array, offset: number, length: number): void {
    const frame = memory.subarray(offset, offset + length)
    if (frame[12] !== 8 || frame[13] !== 0 || frame[23] !== 6) return
    this.ttls.set(frame[22], (this.ttls.get(frame[22]) ?? 0) + 1)
    if ((frame[14 + (frame[14] & 15) * 4 + 13] & 4) !== 0) this.resets++
  }
}

const kinds: CpuKind[] = availableCpu() === 'wasmtime' ? ['wasmtime', 'v8'] : ['v8']
for (const cpu of kinds) {
  test.serial(
    `${cpu}: ${CONNECTIONS} connections transfer while the firmware is replaced ${SWAPS} times`,
    async (t) => {
      const { image } = await variant()
      t.is(stateLayoutOf(image), LAYOUT, 'the body of a function changes no layout')
      const farm = new VirtualFarm(
        { wasm: RELEASE.payload, layouts: LAYOUTS, stateLayout: LAYOUT },
        {
          servers: 1,
          cpu,
          countFuel: cpu === 'wasmtime',
          memoryBytes: 1 << 24,
          lan: { delayNs: 50_000, rateBps: 1e9 },
        },
      )
      const [server, client] = [farm.server(1), farm.client()]
      const sent = new Sent()
      server.cables[0].capture(sent, 'forward')
      server.net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(7)
      await farm.settle()
      const payload = Buffer.from(Uint8Array.from({ length: BYTES_EACH }, (_, n) => (n * 7 + (n >> 8) * 13) & 255))
      const wanted = createHash('sha256').update(payload).digest('hex')
      const digests: string[] = []
      for (let n = 0; n < CONNECTIONS; n++) {
        const socket = client.net.connect(7, server.address)
        socket.on('error', (error) => t.fail(error.message))
        void echo(socket, payload).then((digest) => digests.push(digest))
      }
      const images: BootImage[] = [image, RELEASE].map(({ payload }) => ({ wasm: payload, stateLayout: LAYOUT }))
      const { board } = server
      let inSlice = 0
      for (let swap = 0; swap < SWAPS; swap++) {
        // At another point of the card's and the host's work each time, also within what a slice takes.
        await farm.farm.run(farm.farm.now() + 4_000_000 + swap * 10_137)
        if (board.busy) inSlice++
        board.replaceFirmware(images[swap % 2])
        t.is(board.image, images[swap % 2])
      }
      t.is(digests.length, 0, 'they were transferring all the time')
      t.is(sent.resets, 0)
      t.true(await farm.until(() => digests.length === CONNECTIONS, 60_000))
      t.deepEqual(digests, new Array(CONNECTIONS).fill(wanted))
      t.true((sent.ttls.get(63) ?? 0) > 1000 && (sent.ttls.get(64) ?? 0) > 1000, 'both have sent')
      if (cpu === 'wasmtime') t.true(inSlice > 0, 'some were asked for in the midst of a slice')
      t.is(board.crash, null)
      await farm.close()
    },
  )
}

test.serial('a board refuses firmware while it is off, of another layout, or supervised', async (t) => {
  const farm = new VirtualFarm({ wasm: RELEASE.payload, layouts: LAYOUTS, stateLayout: LAYOUT }, { servers: 1 })
  const { board } = farm.server(1)
  const image: BootImage = { wasm: RELEASE.payload, stateLayout: LAYOUT }
  const refused = (message: RegExp, wanted: BootImage = image) => {
    t.regex(t.throws(() => board.replaceFirmware(wanted), { code: 'ERR_INIC_TAKEOVER' })!.message, message)
  }
  await farm.run(10)
  refused(/layout is [0-9a-f]{12}…, and that of the new firmware abababababab…/, {
    ...image,
    stateLayout: 'ab'.repeat(32),
  })
  refused(/the new firmware does not say/, { wasm: RELEASE.payload })
  refused(/no WebAssembly module/, { ...image, wasm: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) })
  farm.farm.supervisor = {
    poweredOn: (_, cpu) => cpu,
    poweredOff() {},
    beforeSlice() {},
    afterSlice() {},
    interrupted() {},
    consoleLine() {},
    crashed() {},
  }
  refused(/a debugger or a recorder is attached/)
  farm.farm.supervisor = null
  board.replaceFirmware(image)
  await farm.run(500)
  t.is(board.crash, null)
  board.powerOff()
  refused(/it is off/)
  await farm.close()
})

// ── a running farm ──

const SHOP = join(packageRoot, 'examples/shop/server.mjs')

/** Stops in its first poll. */
const CRASHING = `
import './abort'
export function reset(): void { store<u32>(0x20000, 0) }
export function poll(irqs: u32): u32 { unreachable(); return load<u32>(0x20000) }
`

interface Bench {
  readonly selection: string[]
  readonly port: number
  readonly file: string
  readonly farm: RunningCommand
  image(name: string, payload: Uint8Array, version: string, layout?: string): Promise<string>
  update(...args: string[]): ReturnType<typeof inic>
}

async function bench(t: ExecutionContext, { servers = 1, args = [] as string[] } = {}): Promise<Bench> {
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  const many = servers > 1
  await writeFile(
    file,
    JSON.stringify({
      networks: [{ name: 'lan-a' }, ...(many ? [{ name: 'sync', kind: 'hub' }] : [])],
      ...(many && { placement: { policy: 'round-robin' } }),
      servers: Array.from({ length: servers }, (_, n) => ({
        name: `server${n + 1}`,
        interfaces: [{ network: 'lan-a', address: `10.0.0.${n + 1}/24` }, ...(many ? [{ network: 'sync' }] : [])],
        applications: [{ name: 'shop', program: SHOP, env: { PORT: '80' } }],
      })),
      publish: ['0:server1:80'],
    }),
  )
  const farm = startInic(t, ['run', file, ...args.map((arg) => arg.replace('DIRECTORY', directory))])
  for (let n = 1; n <= servers; n++) await farm.until(new RegExp(`server${n}/shop \\| shop: listening`))
  const [, port] = await farm.until(/http:\/\/127\.0\.0\.1:(\d+) → server1:80/)
  const selection = ['--farm', file]
  return {
    ...{ selection, file, farm, port: Number(port) },
    async image(name, payload, version, layout) {
      const path = join(directory, name)
      const protectedTlvs = layout === undefined ? [] : [stateLayoutTlv(layout)]
      await writeFile(path, encodeImage(payload, { version: parseVersion(version), protectedTlvs }))
      return path
    },
    update: (...args) => inic(['update', ...args, ...selection]),
  }
}

/** wrk with 64 connections while `work` goes on; undefined if it is not installed. What it says of errors is asserted to be nothing. */
async function underLoad(t: ExecutionContext, port: number, seconds: number, work: () => Promise<void>): Promise<void> {
  const wrk = promisify(execFile)('wrk', [
    '-t2',
    '-c64',
    `-d${seconds}s`,
    '--timeout',
    '10s',
    `http://127.0.0.1:${port}/`,
  ])
    .then(({ stdout }) => stdout)
    .catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
  await work()
  const stdout = await wrk
  if (stdout === undefined) {
    t.log('without load: wrk is not installed')
    return
  }
  t.notRegex(stdout, /Socket errors|Non-2xx/, stdout)
  t.true(Number(/(\d+) requests in/.exec(stdout)?.[1]) > 100, stdout)
}

test.serial(
  'inic update in place under 64 connections of wrk, without an error; the next power-on boots it',
  async (t) => {
    const { port, image, update, farm, file, selection } = await bench(t)
    const next = await image('next.img', (await variant()).image.payload, '9.8.7', LAYOUT)
    const back = await image('back.img', RELEASE.payload, '9.8.8', LAYOUT)
    await underLoad(t, port, 15, async () => {
      const check = await update(next, '--check')
      t.is(check.code, 0, check.stderr)
      t.is(check.stdout, 'server1: in place: the state layout is that of the firmware that runs\n')
      for (const [path, version] of [
        [next, '9.8.7'],
        [back, '9.8.8'],
        [next, '9.8.7'],
      ]) {
        const updated = await update(path, '--server', 'server1', '--json')
        t.is(updated.code, 0, updated.stderr)
        t.like(JSON.parse(updated.stdout), { server: 'server1', version, way: 'in-place', stage: 'done' })
      }
    })
    const status = JSON.parse((await inic(['inspect', 'farm', '--json', ...selection])).stdout)
    t.is(status.servers[0].firmware, '9.8.7 (took over in service)')
    const flash = JSON.parse((await inic(['flash', '--status', '--server', 'server1', '--json', ...selection])).stdout)
    t.is(flash.nextBoot, 'test')
    t.is(flash.secondary.version, '9.8.7')
    t.is((await farm.interrupt()).code, 0)
    const again = startInic(t, ['run', file])
    await again.until(/server1: firmware 9\.8\.7 .*serves, and is confirmed/)
    t.is((await again.interrupt()).code, 0)
  },
)

test.serial('inic update by draining, in a farm of three under 64 connections of wrk, without an error', async (t) => {
  const { port, image, update, farm } = await bench(t, { servers: 3 })
  const other = await image('other.img', RELEASE.payload, '9.8.7', 'ab'.repeat(32))
  await underLoad(t, port, 25, async () => {
    for (const server of ['server2', 'server3']) {
      const updated = await update(other, '--server', server, '--json')
      t.is(updated.code, 0, updated.stderr)
      t.like(JSON.parse(updated.stdout), { server, way: 'drain', stage: 'done' })
    }
    const entry = await update(other, '--server', 'server1', '--timeout', '2s')
    t.is(entry.code, 1, entry.stdout)
    t.regex(entry.stderr, /server1 was not restarted: .*\d+ connections that came in by its own address/)
    t.regex(entry.stderr, /it takes connections again/)
  })
  const updated = await update(other, '--server', 'server1')
  t.is(updated.code, 0, updated.stderr)
  t.regex(updated.stdout, /server1: version 9\.8\.7 has taken over, by draining it: its state layout is [0-9a-f]{12}…/)
  const all = await update(other, '--drain')
  t.is(all.code, 0, all.stderr)
  t.is(all.stdout.match(/version 9\.8\.7 has taken over, by draining it: as it was asked to/g)?.length, 3)
  t.is((await farm.interrupt()).code, 0)
})

test.serial('what cannot be done is refused with the reason, and changes nothing', async (t) => {
  const { image, update, farm, port } = await bench(t)
  const other = await image('other.img', RELEASE.payload, '9.8.7', 'ab'.repeat(32))
  const unnamed = await image('unnamed.img', RELEASE.payload, '9.8.7')
  const nonsense = await image('nonsense.img', Uint8Array.of(1, 2, 3), '9.8.7', LAYOUT)
  const same = await image('same.img', RELEASE.payload, '9.8.7', LAYOUT)
  const alone = /no other server on a synchronization hub.*\s+.*inic flash IMAGE --server server1 --boot/
  const cases: [args: string[], code: number, message: RegExp][] = [
    [[other], 1, alone],
    [[other, '--check'], 1, alone],
    [[unnamed], 1, /the new firmware does not say what its state layout is/],
    [[same, '--drain'], 1, alone],
    [[nonsense], 2, /the image holds no firmware/],
    [[same, '--server', 'server9'], 2, /no server 'server9'/],
    [['nowhere.img'], 2, /there is no firmware image/],
    [[SHOP], 2, /no image that boots/],
  ]
  for (const [args, code, message] of cases) {
    const result = await update(...args)
    t.is(result.code, code, result.stderr)
    t.regex(result.stderr, message)
  }
  t.is((await fetch(`http://127.0.0.1:${port}/`)).status, 200)
  t.is((await farm.interrupt()).code, 0)
})

test.serial('a farm that is recorded keeps its firmware', async (t) => {
  const { image, update, farm } = await bench(t, { args: ['--record', 'DIRECTORY/farm.rec'] })
  const same = await image('same.img', RELEASE.payload, '9.8.7', LAYOUT)
  const result = await update(same)
  t.is(result.code, 1)
  t.regex(result.stderr, /a debugger or a recorder is attached/)
  t.is((await farm.interrupt()).code, 0)
})

const crashes: Record<string, { servers: number; message: RegExp }> = {
  'in a farm that goes on': {
    servers: 2,
    message: /server1 has stopped \d+ ms after version 6\.6\.6 took over: .*server2/s,
  },
  'in a farm that ends with it': {
    servers: 1,
    message: /no server runs any more, after version 6\.6\.6 took over on server1/,
  },
}
for (const [name, { servers, message }] of Object.entries(crashes)) {
  test.serial(`firmware that stops soon after it has taken over is reported, ${name}`, async (t) => {
    const { image, update, farm, file } = await bench(t, { servers })
    const directory = await tinyFirmware({ source: CRASHING })
    const crashing = await buildFirmware({ directory, target: 'release' })
    const result = await update(await image('crashing.img', crashing.image.payload, '6.6.6', LAYOUT))
    t.is(result.code, 4, result.stdout)
    t.regex(result.stderr, message)
    t.regex(result.stderr, /it tries the image once, and goes back/)
    await (servers > 1 ? farm.interrupt() : farm.ended)
    const again = startInic(t, ['run', file])
    await again.until(/its firmware stopped on trial/)
    await again.until(/server1\/shop \| shop: listening/)
    t.is((await again.interrupt()).code, 0)
  })
}
