/** One flipped bit anywhere in a flash: it changes nothing, or it is caught, and what boots is never a damaged image. */
import { setImmediate as turn } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { ERASE_BLOCK_BYTES, Flash } from '../emulator/devices/flash.ts'
import type { BootResult } from '../toolchain/image/boot-loader.ts'
import { decodeImage } from '../toolchain/image/image.ts'
import { ImageError } from '../toolchain/image/image-error.ts'
import { KeyPair } from '../toolchain/image/keys.ts'
import { checkPolicy } from '../toolchain/image/manifest.ts'
import { TRAILER_BYTES } from '../toolchain/image/trailer.ts'
import {
  bootArea,
  bootFlash,
  cellsOf,
  confirm,
  flashWith,
  MAP,
  stage,
  type TestImage,
  testImage,
} from './support/boot-kit.ts'

const KEY = KeyPair.generate()
const OLD = testImage('old', { counter: 1, payloadBytes: 150, key: KEY })
const NEW = testImage('new', { counter: 2, payloadBytes: 170, key: KEY, minor: 1 })
/** Two pieces: a swap of it can be cut between them. */
const LARGE = testImage('large', { counter: 2, payloadBytes: 4200, minor: 2 })
const SMALL = testImage('small', { counter: 1, payloadBytes: 150 })

test.serial('a flipped bit anywhere in a signed image is refused', async (t) => {
  await ready(t)
  const policy = { key: KEY.publicKey, securityCounter: 0 }
  checkPolicy(decodeImage(OLD.bytes), policy)
  for (let bit = 0; bit < OLD.bytes.length * 8; bit++) {
    t.throws(() => checkPolicy(decodeImage(flip(OLD.bytes, bit)), policy), { instanceOf: ImageError }, place(bit))
  }
})

/** Thousands of boots take a while, on a machine that has other things to do; between two tests the first one's result goes out. */
function ready(t: ExecutionContext): Promise<void> {
  t.timeout(600_000)
  return turn()
}

interface State {
  readonly make: () => Flash
  /** What boots without a flip, and what may with one in an image. */
  readonly boots: TestImage
  readonly other?: TestImage
}

const STATES: Readonly<Record<string, State>> = {
  'as it left the factory': { make: trusting(() => {}), boots: OLD },
  'a trial asked for': { make: trusting((flash) => stage(flash, NEW)), boots: NEW, other: OLD },
  'an update for good asked for': { make: trusting((flash) => stage(flash, NEW, true)), boots: NEW, other: OLD },
  'confirmed, the counter not yet raised': {
    make: trusting((flash) => {
      stage(flash, NEW)
      bootFlash(flash)
      confirm(flash)
    }),
    boots: NEW,
    other: OLD,
  },
  'on trial, to be reverted': {
    make: trusting((flash) => {
      stage(flash, NEW)
      bootFlash(flash)
    }),
    boots: OLD,
    other: NEW,
  },
}

for (const [name, { make, boots, other }] of Object.entries(STATES)) {
  test.serial(`a flipped bit anywhere: ${name}`, async (t) => {
    await ready(t)
    const cells = cellsOf(make())
    const plain = requireImage(t, Flash.holding(cells), [boots], 'no flip')
    t.is(plain, boots)
    for (const bit of interestingBits(cells, true)) {
      const result: BootResult = bootFlash(Flash.holding(flip(cells, bit)))
      const where = `${name}: ${place(bit)}`
      if (isMetadata(bit)) {
        if ('error' in result || Buffer.compare(result.image.payload, boots.payload) !== 0)
          t.fail(`${where}: not harmless`)
      } else if (isError(result)) {
        // Only where nothing else is there that could boot.
        if (other !== undefined || !/does not boot/.test(result.error)) t.fail(`${where}: ${result.error}`)
      } else {
        const { payload: booted } = result.image
        const found = [boots, ...(other ? [other] : [])].some(({ payload }) => Buffer.compare(payload, booted) === 0)
        if (!found) t.fail(`${where}: a damaged image boots`)
      }
    }
  })
}

const SWAPS: Readonly<Record<string, { make: () => Flash; boots: TestImage }>> = {
  'a swap for a trial': { make: plain((flash) => stage(flash, LARGE)), boots: LARGE },
  'a swap for good': { make: plain((flash) => stage(flash, LARGE, true)), boots: LARGE },
  'a swap back': {
    make: plain((flash) => {
      stage(flash, LARGE)
      bootFlash(flash)
    }),
    boots: SMALL,
  },
}

for (const [name, { make, boots }] of Object.entries(SWAPS)) {
  test.serial(`a flipped bit in the trailers in the middle of ${name}`, async (t) => {
    await ready(t)
    const before = cellsOf(make())
    // Power goes away at each of a spread of operations; then a bit flips.
    for (let at = 700; at < 3100; at += 1100) {
      const flash = Flash.holding(before)
      let operation = 0
      flash.fault = () => (operation++ === at ? 'cut' : 'none')
      bootFlash(flash)
      flash.fault = null
      flash.restorePower()
      const cells = cellsOf(flash)
      for (const bit of interestingBits(cells, false)) {
        const result = bootFlash(Flash.holding(flip(cells, bit)))
        if ('error' in result) t.fail(`cut at ${at}, ${place(bit)}: ${result.error}`)
        else if (Buffer.compare(result.image.payload, boots.payload) !== 0)
          t.fail(`cut at ${at}, ${place(bit)}: another image boots`)
      }
    }
    t.pass()
  })
}

test.serial('a flipped bit in the vault brings no older image back, and no unsigned one', async (t) => {
  await ready(t)
  const flash = flashWith(NEW)
  bootArea(flash).writeVault({ securityCounter: 0, key: KEY.publicKey })
  bootFlash(flash)
  t.is(bootArea(flash).readVault().securityCounter, 2)
  const unsigned = testImage('unsigned', { counter: 9 })
  for (const image of [OLD, unsigned]) {
    const asked = Flash.holding(cellsOf(flash))
    stage(asked, image)
    const cells = cellsOf(asked)
    const vault = MAP.boot.offset
    for (let bit = vault * 8; bit < (vault + 640) * 8; bit += image === OLD ? 1 : 7) {
      requireImage(t, Flash.holding(flip(cells, bit)), [NEW], place(bit))
    }
  }
})

test.serial('arbitrary damage gives a whole image or an error', async (t) => {
  await ready(t)
  const starts = Object.values({ ...STATES, ...SWAPS }).map(({ make }) => cellsOf(make()))
  fc.assert(
    fc.property(
      fc.nat(starts.length - 1),
      fc.array(fc.tuple(fc.nat(starts[0].length - 1), fc.nat(255), fc.nat(40)), { maxLength: 12 }),
      (start, damage) => {
        const cells = Uint8Array.from(starts[start])
        for (const [at, value, length] of damage) cells.fill(value, at, at + length)
        const result = bootFlash(Flash.holding(cells))
        if ('error' in result) return
        t.true([OLD, NEW, SMALL, LARGE].some(({ payload }) => Buffer.compare(payload, result.image.payload) === 0))
      },
    ),
    { numRuns: 1000 },
  )
})

/** A flash that trusts KEY, has booted OLD from its primary slot, and then `act` was done. */
function trusting(act: (flash: Flash) => void): () => Flash {
  return () => {
    const flash = flashWith(OLD)
    bootArea(flash).writeVault({ securityCounter: 0, key: KEY.publicKey })
    bootFlash(flash)
    act(flash)
    return flash
  }
}

/** A flash that trusts no key, with SMALL in its primary slot, and then `act` was done. */
function plain(act: (flash: Flash) => void): () => Flash {
  return () => {
    const flash = flashWith(SMALL)
    act(flash)
    return flash
  }
}

/** Bits that are not in the empty middle of a region: images, trailers with the status as far as it is written, the newest of vault and log. */
function interestingBits(cells: Uint8Array, images: boolean): number[] {
  const bits: number[] = []
  const take = (from: number, to: number) => {
    for (let bit = from * 8; bit < to * 8; bit++) bits.push(bit)
  }
  for (const { offset, bytes } of [MAP.primary, MAP.secondary, MAP.scratch]) {
    if (images && offset !== MAP.scratch.offset) take(offset, offset + 330)
    const end = offset + bytes
    take(end - TRAILER_BYTES, end - TRAILER_BYTES + 8 * 7)
    take(end - 48, end)
  }
  const { offset, bytes } = MAP.boot
  for (let block = offset; block < offset + bytes; block += ERASE_BLOCK_BYTES) {
    let used = block
    while (used < block + ERASE_BLOCK_BYTES && cells.subarray(used, used + 128).some((byte) => byte !== 0xff))
      used += 128
    take(Math.max(block, used - 128), Math.min(used + 8, block + ERASE_BLOCK_BYTES))
  }
  return bits
}

/** True for what is no image: trailers and the boot area. */
function isMetadata(bit: number): boolean {
  const at = bit >> 3
  return ![MAP.primary, MAP.secondary, MAP.scratch].some(
    ({ offset, bytes }) => at >= offset && at < offset + bytes - ERASE_BLOCK_BYTES,
  )
}

function requireImage(t: ExecutionContext, flash: Flash, images: readonly TestImage[], where: string): TestImage {
  const result = bootFlash(flash)
  if (isError(result)) {
    t.fail(`${where}: ${result.error}`)
    throw new Error('a brick')
  }
  const { payload } = result.image
  const found = images.find((image) => Buffer.compare(image.payload, payload) === 0)
  if (found === undefined) t.fail(`${where}: a wrong image boots`)
  return found ?? images[0]
}

function flip(bytes: Uint8Array, bit: number): Uint8Array {
  const flipped = Uint8Array.from(bytes)
  flipped[bit >> 3] ^= 1 << (bit & 7)
  return flipped
}

function place(bit: number): string {
  return `bit ${bit & 7} of byte ${bit >> 3}`
}

function isError(result: BootResult): result is { readonly error: string } {
  return 'error' in result
}
