/** Power that goes away at every write and every erasure of an update: the board boots, and what boots is one image and not two. */
import { setImmediate as turn } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { ERASE_BLOCK_BYTES, Flash, type FlashFault, WRITE_GRANULE_BYTES } from '../emulator/devices/flash.ts'
import type { BootResult } from '../toolchain/image/boot-loader.ts'
import { TRAILER_BLOCK_BYTES } from '../toolchain/image/flash-map.ts'
import { readSlot } from '../toolchain/image/slot.ts'
import { TRAILER_BYTES } from '../toolchain/image/trailer.ts'
import {
  bootFlash,
  cellsOf,
  confirm,
  FLASH_BYTES,
  flashWith,
  MAP,
  stage,
  type TestImage,
  testImage,
} from './support/boot-kit.ts'

const OLD = testImage('old', { counter: 1, payloadBytes: 3000 })
const NEW = testImage('new', { counter: 2, minor: 1 })
const NEWER = testImage('newer', { counter: 3, minor: 2, payloadBytes: 4090 })

/** Some ten thousand boots take half a minute, on a machine that has nothing else to do. */
const TIMEOUT_MS = 600_000

interface Phase {
  readonly name: string
  readonly act: (flash: Flash) => void
  /** What may boot if the phase is cut anywhere, the next boot included. */
  readonly boots: readonly TestImage[]
}

const UPDATE: readonly Phase[] = [
  { name: 'stage for a trial', act: (flash) => stage(flash, NEW), boots: [OLD, NEW] },
  { name: 'swap for a trial', act: bootFlash, boots: [NEW, OLD] },
  { name: 'confirm', act: confirm, boots: [NEW, OLD] },
  { name: 'raise the security counter', act: bootFlash, boots: [NEW] },
  { name: 'stage for good', act: (flash) => stage(flash, NEWER, true), boots: [NEW, NEWER] },
  { name: 'swap for good', act: bootFlash, boots: [NEWER] },
  { name: 'stage one that is too old', act: (flash) => stage(flash, OLD), boots: [NEWER] },
  { name: 'refuse it', act: bootFlash, boots: [NEWER] },
]

const REVERT: readonly Phase[] = [
  { name: 'stage for a trial', act: (flash) => stage(flash, NEW), boots: [OLD, NEW] },
  { name: 'swap for a trial', act: bootFlash, boots: [NEW, OLD] },
  { name: 'swap back', act: bootFlash, boots: [OLD] },
  { name: 'stage for a second trial', act: (flash) => stage(flash, NEW), boots: [OLD, NEW] },
  { name: 'swap for a second trial', act: bootFlash, boots: [NEW, OLD] },
]

const SCENARIOS = { 'an update that is confirmed, and one for good': UPDATE, 'an update that is not confirmed': REVERT }

for (const [name, phases] of Object.entries(SCENARIOS)) {
  test.serial(`power is cut at every write and every erasure: ${name}`, async (t) => {
    t.timeout(TIMEOUT_MS)
    let cuts = 0
    const flash = flashWith(OLD)
    for (const phase of phases) {
      await turn()
      eachCut(flash, phase, (cells, place) => {
        examine(t, Flash.holding(cells), phase, place)
        cuts++
      })
    }
    t.log(`${cuts} cuts, no brick, no mixed image`)
    t.true(cuts > 10_000)
  })

  test.serial(`power is cut again while a cut is being recovered from: ${name}`, async (t) => {
    t.timeout(TIMEOUT_MS)
    let cuts = 0
    const flash = flashWith(OLD)
    for (const phase of phases) {
      await turn()
      let nth = 0
      eachCut(flash, phase, (cells, place) => {
        if (nth++ % 401 !== 0) return
        let second = 0
        const recovering = { name: `recovery from ${phase.name}`, act: bootFlash, boots: phase.boots }
        eachCut(Flash.holding(cells), recovering, (again, placeAgain) => {
          if (second++ % 41 !== 0) return
          examine(t, Flash.holding(again), recovering, `${place}, then ${placeAgain}`)
          cuts++
        })
      })
    }
    t.log(`${cuts} pairs of cuts, no brick, no mixed image`)
    t.true(cuts > 1000)
  })
}

test("the device's own cuts leave what the enumeration tries", (t) => {
  const faults: FlashFault[] = ['cut-before', 'cut', 'cut-backward', 'cut-ragged']
  for (const [index, phase] of UPDATE.entries()) {
    const before = flashWith(OLD)
    for (const { act } of UPDATE.slice(0, index)) act(before)
    for (let at = 0; at < 4000; at += 331) {
      const flash = Flash.holding(cellsOf(before))
      let operation = 0
      flash.fault = () => (operation++ === at ? (faults[at % faults.length] ?? 'cut') : 'none')
      try {
        phase.act(flash)
      } catch {
        // Staging throws what the flash says.
      }
      flash.fault = null
      flash.restorePower()
      examine(t, flash, phase, `operation ${at}`)
    }
  }
  t.pass()
})

/**
 * Runs a phase to its end on `flash`, and gives what its cells are after each cut: before each operation, and with a part of it done. Of an
 * erasure, and of a write to a trailer or the boot area, every part; of a write to an image, the parts take turns.
 */
function eachCut(flash: Flash, phase: Phase, take: (cells: Uint8Array, place: string) => void): void {
  let before = cellsOf(flash)
  let operation: { kind: string; address: number; bytes: number } | undefined
  const settle = () => {
    const after = cellsOf(flash)
    if (operation !== undefined) {
      const { kind, address, bytes } = operation
      const parts = Object.entries(PARTS)
      const every = kind === 'erase' || !isData(address)
      const chosen = every ? parts : [parts[0], parts[1 + ((address / bytes) % 3)]]
      for (const [how, touched] of chosen) {
        const cells = Uint8Array.from(before)
        for (let n = 0; n < bytes; n++) if (touched(n, bytes)) cells[address + n] = after[address + n]
        take(cells, `${kind} at ${address}, ${how}`)
      }
    }
    before = after
  }
  flash.fault = (kind, address) => {
    settle()
    operation = { kind, address, bytes: kind === 'write' ? WRITE_GRANULE_BYTES : ERASE_BLOCK_BYTES }
    return 'none'
  }
  phase.act(flash)
  settle()
  flash.fault = null
}

function isData(address: number): boolean {
  return [MAP.primary, MAP.secondary, MAP.scratch].some(
    ({ offset, bytes }) => address >= offset && address < offset + bytes - TRAILER_BLOCK_BYTES,
  )
}

const PARTS: Readonly<Record<string, (n: number, bytes: number) => boolean>> = {
  'nothing done': () => false,
  'first half done': (n, bytes) => n < bytes / 2,
  'last half done': (n, bytes) => n >= bytes / 2,
  'every other byte done': (n) => n % 2 === 0,
  // Of a trailer the magic is left, and the first records; what tells that they are of the last swap is gone.
  'all but both ends done': (n, bytes) => n >= bytes - TRAILER_BYTES + 3 * WRITE_GRANULE_BYTES && n < bytes - 16,
}

/** Boots twice: an image on trial goes back to the whole other one, any other stays. */
function examine(t: ExecutionContext, flash: Flash, phase: Phase, place: string): void {
  const where = `${phase.name}: ${place}`
  const first = requireBoot(t, flash, where)
  const booted = requireWhole(t, first, phase.boots, where)
  const other = first.trial ? otherOf(flash) : undefined
  const second = requireBoot(t, flash, `${where}, second boot`)
  if (second.trial) t.fail(`${where}: still on trial at the second boot`)
  const expected = other ?? booted.payload
  if (Buffer.compare(second.image.payload, expected) !== 0) t.fail(`${where}: the second boot gives another image`)
}

function otherOf(flash: Flash): Uint8Array {
  return readSlot(flash, MAP.secondary).payload
}

function requireBoot(t: ExecutionContext, flash: Flash, where: string): Exclude<BootResult, { error: string }> {
  const result = bootFlash(flash)
  if ('error' in result) {
    t.fail(`${where}: ${result.error}`)
    throw new Error('a brick')
  }
  return result
}

function requireWhole(
  t: ExecutionContext,
  { image }: { readonly image: { readonly payload: Uint8Array } },
  images: readonly TestImage[],
  where: string,
): TestImage {
  const found = images.find(({ payload }) => Buffer.compare(payload, image.payload) === 0)
  if (found !== undefined) return found
  t.fail(`${where}: boots none of ${images.map(({ name }) => name).join(', ')}`)
  throw new Error('a wrong image')
}

test('the flash of these tests is laid out as meant', (t) => {
  t.is(MAP.boot.offset + MAP.boot.bytes, FLASH_BYTES)
  t.is(flashWith(OLD).bytes, FLASH_BYTES)
})
