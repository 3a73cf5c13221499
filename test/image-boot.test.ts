/** What the boot loader decides: MCUboot's states of the trailers, the security counter, the trusted key, and what it writes into its log. */
import test from 'ava'
import * as R from '../abi/registers.ts'
import { FLASH_COMMAND_ERASE, FLASH_COMMAND_WRITE, FLASH_ERROR_LOCKED, FLASH_OK } from '../abi/registers.ts'
import { Flash } from '../emulator/devices/flash.ts'
import { FlashController } from '../emulator/devices/flash-controller.ts'
import { InicMemory } from '../emulator/devices/memory.ts'
import { Region } from '../toolchain/image/flash-access.ts'
import { flashMap } from '../toolchain/image/flash-map.ts'
import { readFlashStatus } from '../toolchain/image/flash-status.ts'
import { KeyPair } from '../toolchain/image/keys.ts'
import { programPrimary } from '../toolchain/image/slot.ts'
import { writeAll } from '../toolchain/image/swap.ts'
import { copyDoneWrite, imageOkWrite, MAXIMUM_SECTORS, padImage, requestWrites } from '../toolchain/image/trailer.ts'
import {
  bootArea,
  bootFlash,
  confirm,
  FLASH_BYTES,
  flashWith,
  MAP,
  stage,
  type TestImage,
  testImage,
} from './support/boot-kit.ts'

const KEY = KeyPair.generate()
const OLD = testImage('old', { payloadBytes: 300 })
const NEW = testImage('new', { payloadBytes: 400, minor: 1 })

interface Boots {
  readonly act: (flash: Flash) => void
  readonly boots: TestImage
  readonly swap?: 'test' | 'permanent' | 'revert'
  readonly trial?: boolean
  readonly says?: RegExp
}

/** What was done to a board with OLD in its primary slot, and what boots then. */
const BOOTS: Readonly<Record<string, Boots>> = {
  nothing: { act: () => {}, boots: OLD },
  'an image in the secondary slot without a trailer': {
    act: (flash) => {
      const secondary = new Region(flash, MAP.secondary)
      secondary.write(0, aligned(NEW.bytes))
    },
    boots: OLD,
  },
  'a trial asked for (state II)': { act: (flash) => stage(flash, NEW), boots: NEW, swap: 'test', trial: true },
  'an update for good asked for (state III)': {
    act: (flash) => stage(flash, NEW, true),
    boots: NEW,
    swap: 'permanent',
    trial: false,
  },
  'a slot as imgtool --test pads it': {
    act: (flash) => new Region(flash, MAP.secondary).write(0, padImage(NEW.bytes, MAP.secondary.bytes, false)),
    boots: NEW,
    swap: 'test',
    trial: true,
  },
  'a slot as imgtool --confirm pads it': {
    act: (flash) => new Region(flash, MAP.secondary).write(0, padImage(NEW.bytes, MAP.secondary.bytes, true)),
    boots: NEW,
    swap: 'permanent',
  },
  'a primary slot as imgtool --confirm pads it': {
    act: (flash) => {
      new Region(flash, MAP.primary).erase(0, MAP.primary.bytes)
      new Region(flash, MAP.primary).write(0, padImage(NEW.bytes, MAP.primary.bytes, true))
    },
    boots: NEW,
  },
  'a trial that was not confirmed (state IV)': {
    act: (flash) => {
      stage(flash, NEW)
      bootFlash(flash)
    },
    boots: OLD,
    swap: 'revert',
    trial: false,
    says: /the image on trial was not confirmed/,
  },
  'a trial that was confirmed': {
    act: (flash) => {
      stage(flash, NEW)
      bootFlash(flash)
      confirm(flash)
    },
    boots: NEW,
    trial: false,
  },
  'a revert, and another boot': {
    act: (flash) => {
      stage(flash, NEW)
      bootFlash(flash)
      bootFlash(flash)
    },
    boots: OLD,
    trial: false,
  },
  'a trial of what is no image': {
    act: (flash) => {
      const secondary = new Region(flash, MAP.secondary)
      writeAll(secondary, requestWrites(secondary.bytes, false))
    },
    boots: OLD,
    says: /the update was refused: empty/,
  },
  'a trial of an image with a wrong byte': {
    act: (flash) => {
      const secondary = new Region(flash, MAP.secondary)
      const bytes = aligned(NEW.bytes)
      bytes[100] ^= 0x10
      secondary.write(0, bytes)
      writeAll(secondary, requestWrites(secondary.bytes, false))
    },
    boots: OLD,
    says: /the update was refused: wrong SHA-256/,
  },
  'a trailer of the primary slot that says confirmed': {
    act: (flash) => {
      const primary = new Region(flash, MAP.primary)
      writeAll(primary, [
        ...requestWrites(primary.bytes, false),
        copyDoneWrite(primary.bytes),
        imageOkWrite(primary.bytes),
      ])
    },
    boots: OLD,
  },
  'an erased primary slot, and an image in the secondary one': {
    act: (flash) => {
      new Region(flash, MAP.secondary).write(0, aligned(NEW.bytes))
      new Region(flash, MAP.primary).erase(0, 0x1000)
    },
    boots: NEW,
    swap: 'permanent',
    trial: false,
    says: /the primary image does not boot \(empty/,
  },
  'a damaged primary image, and a whole one in the secondary slot': {
    act: (flash) => {
      stage(flash, NEW, true)
      bootFlash(flash)
      new Region(flash, MAP.primary).write(64, new Uint8Array(8))
    },
    boots: OLD,
    swap: 'permanent',
    says: /the primary image does not boot \(wrong SHA-256/,
  },
}

for (const [name, { act, boots, swap = 'none', trial = false, says }] of Object.entries(BOOTS)) {
  test(`boots as it should after: ${name}`, (t) => {
    const flash = flashWith(OLD)
    act(flash)
    const result = bootFlash(flash)
    if ('error' in result) return t.fail(result.error)
    t.deepEqual(Buffer.from(result.image.payload), Buffer.from(boots.payload))
    t.is(result.swap, swap as typeof result.swap)
    t.is(result.trial, trial)
    if (says) t.regex(result.remark ?? '', says)
    else t.is(result.remark, undefined)
    const entry = bootArea(flash).readLog().at(-1)
    t.like(entry, { kind: 'boot', swap })
    // A record has room for the beginning of a long reason.
    t.true(result.remark === undefined ? entry?.text === '' : result.remark.startsWith(entry?.text || 'no reason'))
    t.is(entry?.version?.minor, boots === NEW ? 1 : 0)
  })
}

test('a flash with nothing to boot says so, and the log too', (t) => {
  const flash = Flash.inMemory(FLASH_BYTES)
  t.deepEqual(bootFlash(flash), {
    error: 'the image in the primary slot does not boot: empty: every byte of its header is erased (0xff)',
  })
  t.is(bootArea(flash).readLog().at(-1)?.kind, 'panic')
})

test('a flash that fails is an error, not an exception', (t) => {
  const flash = flashWith(OLD)
  stage(flash, NEW)
  flash.fault = () => 'fail'
  const result = bootFlash(flash)
  t.regex('error' in result ? result.error : '', /its flash fails: writing the boot area at byte \d+ failed/)
  flash.fault = null
  const after = bootFlash(flash)
  t.is('error' in after ? after.error : after.swap, 'test')
})

test('the security counter rises once an image is confirmed, and nothing older comes back', (t) => {
  const [one, two, three] = [1, 2, 3].map((counter) =>
    testImage(`c${counter}`, { counter, payloadBytes: 200, minor: counter }),
  )
  const flash = flashWith(one)
  bootFlash(flash)
  t.is(bootArea(flash).readVault().securityCounter, 1)
  stage(flash, three)
  bootFlash(flash)
  t.is(bootArea(flash).readVault().securityCounter, 1, 'not while it is on trial')
  bootFlash(flash)
  t.is(bootArea(flash).readVault().securityCounter, 1, 'nor when it was reverted')
  stage(flash, three)
  bootFlash(flash)
  confirm(flash)
  bootFlash(flash)
  t.is(bootArea(flash).readVault().securityCounter, 3)
  for (const image of [one, two]) {
    stage(flash, image, true)
    const result = bootFlash(flash)
    t.regex(('error' in result ? '' : result.remark) ?? '', /security counter \d: the board has confirmed 3/)
    t.deepEqual('error' in result ? undefined : Buffer.from(result.image.payload), Buffer.from(three.payload))
  }
  programPrimary(flash, MAP, two.bytes)
  t.regex(JSON.stringify(bootFlash(flash)), /does not boot: security counter 2: the board has confirmed 3/)
})

test('a board that trusts a key boots nothing else', (t) => {
  const signed = testImage('signed', { key: KEY, payloadBytes: 200 })
  const foreign = testImage('foreign', { key: KeyPair.generate(), payloadBytes: 200 })
  const flash = flashWith(signed)
  bootArea(flash).writeVault({ securityCounter: 0, key: KEY.publicKey })
  for (const image of [OLD, foreign]) {
    stage(flash, image)
    const result = bootFlash(flash)
    t.regex(('error' in result ? '' : result.remark) ?? '', /the update was refused: not signed by key/)
    t.deepEqual('error' in result ? undefined : Buffer.from(result.image.payload), Buffer.from(signed.payload))
  }
  programPrimary(flash, MAP, foreign.bytes)
  t.regex(JSON.stringify(bootFlash(flash)), /does not boot: not signed by key [0-9a-f]{16}/)
})

test('the boot log is a ring: the newest boots stay', (t) => {
  const flash = flashWith(OLD)
  for (let n = 0; n < 200; n++) bootFlash(flash)
  const log = bootArea(flash).readLog()
  t.is(log.at(-1)?.number, 200)
  t.true(log.length >= 32 && log.length <= 64, String(log.length))
  log.forEach(({ number }, index) => {
    t.is(number, log[0].number + index)
  })
  t.true(bootArea(flash).readVault().key === undefined)
})

test('looking into a flash changes nothing', (t) => {
  const flash = flashWith(OLD)
  stage(flash, NEW)
  flash.fault = () => t.fail('something is written') as never
  const status = readFlashStatus(flash, MAP)
  t.deepEqual(status.pending, { kind: 'swap', type: 'test', started: false })
  t.is(status.primary.image?.version.minor, 0)
  t.is(status.secondary.image?.version.minor, 1)
})

const LOCKS: readonly [name: string, command: number, address: number, length: number, status: number][] = [
  ['write the running image', FLASH_COMMAND_WRITE, MAP.primary.offset + 0x2000, 8, FLASH_ERROR_LOCKED],
  ['erase the running image', FLASH_COMMAND_ERASE, MAP.primary.offset, 0x1000, FLASH_ERROR_LOCKED],
  ['confirm itself', FLASH_COMMAND_WRITE, MAP.primary.offset + MAP.primary.bytes - 24, 8, FLASH_OK],
  [
    'erase its trailer',
    FLASH_COMMAND_ERASE,
    MAP.primary.offset + MAP.primary.bytes - 0x1000,
    0x1000,
    FLASH_ERROR_LOCKED,
  ],
  ['erase the secondary slot', FLASH_COMMAND_ERASE, MAP.secondary.offset, MAP.secondary.bytes, FLASH_OK],
  ['write the secondary slot', FLASH_COMMAND_WRITE, MAP.secondary.offset, 16, FLASH_OK],
  ['write from the secondary slot into scratch', FLASH_COMMAND_WRITE, MAP.scratch.offset - 8, 16, FLASH_ERROR_LOCKED],
  ['erase scratch', FLASH_COMMAND_ERASE, MAP.scratch.offset, 0x1000, FLASH_ERROR_LOCKED],
  ['write the vault', FLASH_COMMAND_WRITE, MAP.boot.offset + 0x800, 8, FLASH_ERROR_LOCKED],
  ['erase the boot area', FLASH_COMMAND_ERASE, MAP.boot.offset, MAP.boot.bytes, FLASH_ERROR_LOCKED],
]

test('firmware may write the secondary slot, and confirm itself, and nothing else', (t) => {
  const flash = flashWith(OLD)
  bootFlash(flash)
  const memory = new InicMemory(new ArrayBuffer(0x40000))
  const controller = new FlashController(flash)
  controller.powerOn(memory)
  memory.bytes.fill(0xff, 0x20000)
  for (const [name, command, address, length, status] of LOCKS) {
    memory.setRegister(R.FLASH_ADDRESS, address)
    memory.setRegister(R.FLASH_BUFFER, 0x20000)
    memory.setRegister(R.FLASH_LENGTH, length)
    memory.setRegister(R.FLASH_COMMAND, command)
    controller.settle()
    t.is(memory.register(R.FLASH_STATUS), status, name)
  }
})

test('every size of flash has steps enough for a swap of its slots', (t) => {
  for (let bytes = 0x40000; bytes <= 0x4000000; bytes += 0x10000) {
    const { primary, scratch, boot } = flashMap(bytes)
    const steps = Math.ceil((primary.bytes - 0x1000) / (scratch.bytes - 0x1000))
    if (steps > MAXIMUM_SECTORS) t.fail(`${bytes}: ${steps} steps`)
    if (boot.offset + boot.bytes > bytes) t.fail(`${bytes}: beyond the flash`)
  }
  t.pass()
})

function aligned(bytes: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil(bytes.length / 8) * 8).fill(0xff)
  padded.set(bytes)
  return padded
}
