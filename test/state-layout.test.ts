/** What changes the state layout of a firmware, and what does not: the first half of whether it can take over in service. */
import test from 'ava'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { decodeImage, encodeImage } from '../toolchain/image/image.ts'
import { stateLayoutOf, stateLayoutTlv } from '../toolchain/image/state-layout.ts'
import { TLV_STATE_LAYOUT } from '../toolchain/image/tlv.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { edited, iposVariant } from './support/firmware-variant.ts'
import { TINY_SOURCE, tinyFirmware } from './support/tiny-firmware.ts'

const SOURCE = `${TINY_SOURCE}
type Ticks = u32
const LIMIT: u32 = 3
const GREETING: string = 'hello'
export const enum Phase { Idle, Busy = 4 }
@unmanaged
class Unused { ticks: Ticks }
`

async function layout(source: string, { target = 'debug' as 'debug' | 'release', options = {} } = {}): Promise<string> {
  const { image } = await buildFirmware({ directory: await tinyFirmware({ source, options }), target })
  return stateLayoutOf(image)!
}

let original: Promise<string> | undefined

const cases: Record<string, { from: string; to: string; same: boolean }> = {
  'the body of a function': { from: 'c.polls += 1', to: 'c.polls += 2', same: true },
  'the first use of a constant': { from: 'return 1000000', to: 'return LIMIT', same: true },
  'the first use of a class': { from: 'return 1000000', to: 'return offsetof<Unused>()', same: true },
  'a text': { from: "'hello'", to: "'good morning'", same: true },
  'a method': { from: 'class Unused {', to: 'class Unused { get twice(): u32 { return this.ticks * 2 }', same: true },
  'a comment': { from: 'class Counters {', to: 'class Counters { // of everything', same: true },
  'a field more': { from: 'lastIrqs: u32', to: 'lastIrqs: u32\n  maximum: u32', same: false },
  'a field of another type': { from: 'nowNs: u64', to: 'nowNs: i64', same: false },
  'the order of fields': { from: 'polls: u32\n  flag: bool', to: 'flag: bool\n  polls: u32', same: false },
  'the name of a field': { from: 'nowNs: u64', to: 'nowMs: u64', same: false },
  'a class that only later code may use': { from: 'ticks: Ticks', to: 'ticks: Ticks; more: u8', same: false },
  'what a type stands for': { from: 'type Ticks = u32', to: 'type Ticks = u64', same: false },
  'a constant': { from: 'LIMIT: u32 = 3', to: 'LIMIT: u32 = 4', same: false },
  'a value of an enumeration': { from: 'Busy = 4', to: 'Busy = 5', same: false },
  'the address of the state': { from: 'COUNTERS: usize = 0x20000', to: 'COUNTERS: usize = 0x30000', same: false },
}

for (const [name, { from, to, same }] of Object.entries(cases)) {
  test.serial(`${name} ${same ? 'changes nothing' : 'changes the layout'}`, async (t) => {
    original ??= layout(SOURCE)
    const changed = await layout(edited(SOURCE, from, to))
    t.is(changed === (await original), same)
  })
}

test('debug and release build have the same layout, and another place for constants is another one', async (t) => {
  original ??= layout(SOURCE)
  t.is(await layout(SOURCE, { target: 'release' }), await original)
  t.not(await layout(SOURCE, { options: { memoryBase: 0x13000 } }), await original)
})

test('it stands in the image, covered by its hash, and is the same when nothing had to be compiled', async (t) => {
  const directory = await tinyFirmware({ source: SOURCE })
  const first = await buildFirmware({ directory, target: 'debug' })
  const second = await buildFirmware({ directory, target: 'debug' })
  t.true(second.upToDate)
  t.regex(stateLayoutOf(first.image)!, /^[0-9a-f]{64}$/)
  t.is(stateLayoutOf(second.image), stateLayoutOf(first.image))
  t.deepEqual(
    first.image.protectedTlvs.map(({ type }) => type),
    [0xa0],
  )
})

test('an image whose layout cannot be read has none', (t) => {
  const { version, payload } = { version: { major: 1, minor: 0, revision: 0, build: 0 }, payload: Uint8Array.of(1) }
  const layout = stateLayoutTlv('ab'.repeat(32))
  const of = (...protectedTlvs: (typeof layout)[]) =>
    stateLayoutOf(decodeImage(encodeImage(payload, { version, protectedTlvs })))
  t.is(of(layout), 'ab'.repeat(32))
  t.is(of(), undefined)
  t.is(of(layout, layout), undefined)
  t.is(of({ type: TLV_STATE_LAYOUT, value: new Uint8Array(31) }), undefined)
})

test.serial('ipOS: a field more is another layout', async (t) => {
  const { image } = await buildFirmware({ directory: packageRoot, target: 'debug' })
  const changed = await iposVariant({
    file: 'firmware/tcp/tcb.ts',
    from: 'export class Tcb {',
    to: 'export class Tcb {\n  unheardOf: u32',
  })
  t.not(stateLayoutOf(changed.image), stateLayoutOf(image))
})
