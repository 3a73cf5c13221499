/** Updates by the driver: commands to ipOS, which writes the slot with its flash controller. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { FLASH_ERROR_ALIGNMENT, FLASH_ERROR_FAILED, FLASH_ERROR_NOT_ERASED } from '../abi/registers.ts'
import { STATUS_EAGAIN, STATUS_EINVAL, STATUS_EIO, STATUS_OK } from '../abi/status.ts'
import type { Board } from '../emulator/board.ts'
import { Flash } from '../emulator/devices/flash.ts'
import { Farm } from '../emulator/farm.ts'
import { Driver } from '../host/driver/driver.ts'
import type { FlashAnswer } from '../host/driver/flash.ts'
import { STATUS_ENETDOWN } from '../host/status.ts'
import { bootLoader } from '../toolchain/image/boot-loader.ts'
import { flashMap } from '../toolchain/image/flash-map.ts'
import { readFlashStatus } from '../toolchain/image/flash-status.ts'
import { decodeImage, encodeImage } from '../toolchain/image/image.ts'
import { programPrimary, type SlotStep, stagingSteps } from '../toolchain/image/slot.ts'
import { packageRoot } from '../toolchain/package-root.ts'

const FLASH_BYTES = 0x100000
const RAM_BYTES = 2 << 20
const MAP = flashMap(FLASH_BYTES)
const { payload: IPOS } = decodeImage(readFileSync(join(packageRoot, 'build/release/firmware.img')))

interface Bench {
  readonly farm: Farm
  readonly flash: Flash
  readonly board: Board
  readonly driver: Driver
  /** Lets time pass until the card has answered. */
  settle<T>(answer: Promise<T>): Promise<T>
}

function ipos(minor: number): Uint8Array {
  return encodeImage(IPOS, { version: { major: 1, minor, revision: 0, build: 0 } })
}

/** A board whose flash holds ipOS 1.0.0, running. */
function bench(): Bench {
  const farm = new Farm({ clock: 'virtual' })
  const flash = Flash.inMemory(FLASH_BYTES)
  programPrimary(flash, MAP, ipos(0))
  const board = farm.addBoard('card', { memoryBytes: 0x1000000, flash, bootLoader: bootLoader(() => undefined) })
  board.powerOn()
  const driver = new Driver(board.attachProcess({ ramBytes: RAM_BYTES }).bus)
  return {
    ...{ farm, flash, board, driver },
    async settle(answer) {
      let settled = false
      void answer.finally(() => {
        settled = true
      })
      await farm.run(() => settled)
      return answer
    },
  }
}

async function carryOut(driver: Driver, steps: readonly SlotStep[]): Promise<void> {
  for (const step of steps) {
    if (step.kind === 'erase') requireOk(await driver.flash.erase(step.offset, step.bytes))
    else if (step.kind === 'write') requireOk(await driver.flash.write(step.offset, step.data))
    else {
      const { bytes } = requireOk(await driver.flash.read(step.offset, step.data.length))
      if (bytes === null || Buffer.compare(bytes, step.data) !== 0) throw new Error(`another content at ${step.offset}`)
    }
  }
}

function requireOk(answer: FlashAnswer): FlashAnswer {
  if (answer.status !== STATUS_OK) throw new Error(JSON.stringify(answer))
  return answer
}

test('an image goes into the secondary slot by way of the firmware, is tried, and confirmed', async (t) => {
  const { flash, board, driver, settle } = bench()
  await settle(carryOut(driver, stagingSteps(ipos(1), MAP.secondary, false)))
  t.like(readFlashStatus(flash).pending, { kind: 'swap', type: 'test' })
  board.powerOff()
  board.powerOn()
  t.regex(board.image?.description ?? '', /^1\.1\.0 \(primary slot\)/)
  t.true(board.image?.trial)
  t.false(readFlashStatus(flash).confirmed)
  // The driver hears of the restart at its next interrupt.
  t.is((await settle(driver.flash.confirm())).status, STATUS_ENETDOWN)
  t.is((await settle(driver.flash.confirm())).status, STATUS_OK)
  t.true(readFlashStatus(flash).confirmed)
  t.is((await settle(driver.flash.confirm())).status, STATUS_OK, 'a second time there is nothing to do')
})

const REFUSED: Readonly<
  Record<string, { ask: (driver: Driver) => Promise<FlashAnswer>; status: number; flashError?: number }>
> = {
  'a read beyond the slot': {
    ask: ({ flash }) => flash.read(MAP.secondary.bytes - 8, 16),
    status: STATUS_EINVAL,
  },
  'a write beyond the slot': {
    ask: ({ flash }) => flash.write(MAP.secondary.bytes, new Uint8Array(8)),
    status: STATUS_EINVAL,
  },
  'a write that would wrap round': {
    ask: ({ flash }) => flash.write(0xfffffff8, new Uint8Array(16)),
    status: STATUS_EINVAL,
  },
  'an erasure of four gigabytes': { ask: ({ flash }) => flash.erase(0, 0xffffffff), status: STATUS_EINVAL },
  'an erasure of nothing': { ask: ({ flash }) => flash.erase(0, 0), status: STATUS_EINVAL },
  'an erasure of half a block': {
    ask: ({ flash }) => flash.erase(0x800, 0x800),
    status: STATUS_EIO,
    flashError: FLASH_ERROR_ALIGNMENT,
  },
  'a write of seven bytes': {
    ask: ({ flash }) => flash.write(0, new Uint8Array(7)),
    status: STATUS_EIO,
    flashError: FLASH_ERROR_ALIGNMENT,
  },
  'a write of ones over zeros': {
    ask: async ({ flash }) => {
      requireOk(await flash.write(0, new Uint8Array(8)))
      return flash.write(0, new Uint8Array(8).fill(1))
    },
    status: STATUS_EIO,
    flashError: FLASH_ERROR_NOT_ERASED,
  },
}

for (const [name, { ask, status, flashError = 0 }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, async (t) => {
    const { driver, settle } = bench()
    t.like(await settle(ask(driver)), { status, flashError })
    t.is((await settle(driver.flash.erase(0, 0x1000))).status, STATUS_OK, 'and the card goes on')
  })
}

test('a flash that fails is told', async (t) => {
  const { driver, flash, settle } = bench()
  flash.fault = () => 'fail'
  t.like(await settle(driver.flash.write(0, new Uint8Array(8))), { status: STATUS_EIO, flashError: FLASH_ERROR_FAILED })
  flash.fault = null
  t.is((await settle(driver.flash.write(0, new Uint8Array(8)))).status, STATUS_OK)
})

test('two processes at once: one is told to come again; one that goes leaves nothing behind', async (t) => {
  const { board, driver, settle } = bench()
  const process = board.attachProcess({ ramBytes: RAM_BYTES })
  const other = new Driver(process.bus)
  const answers = await settle(
    Promise.all([driver.flash.erase(0, 0x1000), other.flash.erase(0x1000, 0x1000), driver.flash.read(0, 5000)]),
  )
  t.deepEqual(
    answers.map(({ status }) => status),
    [STATUS_OK, STATUS_EAGAIN, STATUS_OK],
  )
  t.is(answers[2].bytes?.length, 5000)
  const abandoned = other.flash.read(0, 100)
  other.close()
  board.detachProcess(process.set)
  t.is((await settle(abandoned)).status, STATUS_ENETDOWN)
  t.is((await settle(driver.flash.read(0, 100))).status, STATUS_OK)
})
