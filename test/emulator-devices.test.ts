import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import * as registers from '../abi/registers.ts'
import {
  FLASH_ADDRESS,
  FLASH_BUFFER,
  FLASH_BYTES,
  FLASH_COMMAND,
  FLASH_COMMAND_ERASE,
  FLASH_COMMAND_READ,
  FLASH_COMMAND_WRITE,
  FLASH_ERASE_BLOCK,
  FLASH_ERROR_ALIGNMENT,
  FLASH_ERROR_COMMAND,
  FLASH_ERROR_FAILED,
  FLASH_ERROR_NOT_ERASED,
  FLASH_ERROR_RANGE,
  FLASH_LENGTH,
  FLASH_OK,
  FLASH_STATUS,
  FLASH_WRITE_GRANULE,
  IRQ_ALL,
  REGISTER_END,
} from '../abi/registers.ts'
import { DROP_UDP_CHECKSUM, TRACE_DROP } from '../abi/trace.ts'
import { AlarmQueue } from '../emulator/clock.ts'
import { ERASE_BLOCK_BYTES, Flash } from '../emulator/devices/flash.ts'
import { FlashController } from '../emulator/devices/flash-controller.ts'
import { copyBytes, InicMemory } from '../emulator/devices/memory.ts'
import { REGISTERS } from '../emulator/devices/registers.ts'
import { traceText } from '../emulator/devices/trace.ts'
import type { Alarm } from '../emulator/link/link.ts'
import { RandomSource } from '../emulator/random.ts'

const folder = mkdtempSync(join(tmpdir(), 'inic-devices-'))
test.after.always(() => rmSync(folder, { recursive: true }))

test('every register of the map is known by name, at its offset', (t) => {
  const named = new Map(REGISTERS.map(({ name, offset }) => [name, offset]))
  t.is(new Set(named.values()).size, REGISTERS.length)
  for (const { offset } of REGISTERS) t.true(offset < REGISTER_END && offset % 4 === 0)
  for (const [name, value] of Object.entries(registers)) {
    const constant =
      /^(SYS_(ID|VERSION)_VALUE|IRQ_(MAC\d|TIMER|FETCH|QUEUE|LINK|ALL)|FLASH_(COMMAND_|ERROR_|OK)|MAC_|REGISTER_END)/
    if (!constant.test(name)) t.is(named.get(name), value, name)
  }
  t.is(named.get('MAC2_TX_REFUSED'), 0x2ac)
  t.is(IRQ_ALL, 127)
})

test('flash: erased bits are 1, programming clears bits, erasing counts wear', (t) => {
  const flash = Flash.inMemory(0x4000)
  const bytes = new Uint8Array(16)
  t.is(flash.read(0, bytes), FLASH_OK)
  t.true(bytes.every((byte) => byte === 0xff))
  t.is(flash.write(8, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)), FLASH_OK)
  t.is(flash.read(0, bytes), FLASH_OK)
  t.deepEqual([...bytes.subarray(8)], [1, 2, 3, 4, 5, 6, 7, 8])
  t.is(flash.write(8, Uint8Array.of(0, 2, 3, 4, 5, 6, 7, 8)), FLASH_OK, 'a further bit may be cleared')
  t.is(flash.write(8, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)), FLASH_ERROR_NOT_ERASED)
  t.is(flash.erase(0, ERASE_BLOCK_BYTES), FLASH_OK)
  t.is(flash.write(8, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)), FLASH_OK)
  t.deepEqual([...flash.wear], [1, 0, 0, 0])
})

const FLASH_ARGUMENTS: { title: string; run(flash: Flash): number; status: number }[] = [
  { title: 'a read beyond the end', run: (f) => f.read(0x3fff, new Uint8Array(2)), status: FLASH_ERROR_RANGE },
  { title: 'a read at a negative address', run: (f) => f.read(-8, new Uint8Array(8)), status: FLASH_ERROR_RANGE },
  {
    title: 'a read into too small a buffer',
    run: (f) => f.read(0, new Uint8Array(8), 4, 8),
    status: FLASH_ERROR_RANGE,
  },
  { title: 'a write beyond the end', run: (f) => f.write(0x4000, new Uint8Array(8)), status: FLASH_ERROR_RANGE },
  { title: 'a write that is not aligned', run: (f) => f.write(4, new Uint8Array(8)), status: FLASH_ERROR_ALIGNMENT },
  { title: 'a write of half a granule', run: (f) => f.write(0, new Uint8Array(4)), status: FLASH_ERROR_ALIGNMENT },
  { title: 'an erasure of half a block', run: (f) => f.erase(0, 2048), status: FLASH_ERROR_ALIGNMENT },
  { title: 'an erasure in the middle of a block', run: (f) => f.erase(2048, 4096), status: FLASH_ERROR_ALIGNMENT },
  { title: 'an erasure beyond the end', run: (f) => f.erase(0x3000, 0x2000), status: FLASH_ERROR_RANGE },
  {
    title: 'an address that is no number',
    run: (f) => f.write(Number.NaN, new Uint8Array(8)),
    status: FLASH_ERROR_RANGE,
  },
]

for (const { title, run, status } of FLASH_ARGUMENTS) {
  test(`flash: ${title} is refused and changes nothing`, (t) => {
    const flash = Flash.inMemory(0x4000)
    t.is(run(flash), status)
    const all = new Uint8Array(0x4000)
    flash.read(0, all)
    t.true(all.every((byte) => byte === 0xff))
  })
}

test('flash: a file keeps what was written; another size is refused', (t) => {
  const path = join(folder, 'flash.bin')
  const flash = Flash.open(path, 0x4000)
  t.is(flash.write(0x1000, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)), FLASH_OK)
  t.is(flash.erase(0x2000, ERASE_BLOCK_BYTES), FLASH_OK)
  flash.close()
  t.is(flash.read(0, new Uint8Array(8)), FLASH_ERROR_FAILED)
  const stored = readFileSync(path)
  t.is(stored.length, 0x4000)
  t.deepEqual([...stored.subarray(0x1000, 0x1009)], [1, 2, 3, 4, 5, 6, 7, 8, 0xff])
  const again = Flash.open(path, 0x4000)
  const bytes = new Uint8Array(8)
  again.read(0x1000, bytes)
  t.deepEqual([...bytes], [1, 2, 3, 4, 5, 6, 7, 8])
  again.close()
  t.throws(() => Flash.open(path, 0x8000), { instanceOf: RangeError, message: /16384 bytes/ })
  t.throws(() => Flash.inMemory(1000), { instanceOf: RangeError })
  const empty = join(folder, 'empty.bin')
  writeFileSync(empty, '')
  Flash.open(empty, 0x1000).close()
  t.true(readFileSync(empty).every((byte) => byte === 0xff))
})

test('flash: a cut leaves part of a granule, and nothing works until power is back', (t) => {
  const flash = Flash.inMemory(0x4000)
  let left = 2
  flash.fault = (operation, address) => {
    t.is(operation, 'write')
    t.is(address % 8, 0)
    return left-- > 0 ? 'none' : 'cut'
  }
  t.is(flash.write(0, new Uint8Array(32)), FLASH_ERROR_FAILED)
  t.is(flash.read(0, new Uint8Array(8)), FLASH_ERROR_FAILED)
  flash.restorePower()
  const bytes = new Uint8Array(32)
  t.is(flash.read(0, bytes), FLASH_OK)
  t.deepEqual([...bytes], [...new Array(20).fill(0), ...new Array(12).fill(255)])
  flash.fault = () => 'fail'
  t.is(flash.erase(0, ERASE_BLOCK_BYTES), FLASH_ERROR_FAILED)
  t.is(flash.read(0, bytes), FLASH_OK, 'a failed operation leaves the flash on')
  t.is(bytes[0], 0)
})

const COMMANDS: { title: string; command: number; address: number; buffer: number; length: number; status: number }[] =
  [
    { title: 'erase', command: FLASH_COMMAND_ERASE, address: 0x1000, buffer: 0, length: 0x1000, status: FLASH_OK },
    { title: 'write', command: FLASH_COMMAND_WRITE, address: 0x1000, buffer: 0x20000, length: 16, status: FLASH_OK },
    { title: 'read', command: FLASH_COMMAND_READ, address: 0x1000, buffer: 0x30000, length: 16, status: FLASH_OK },
    {
      title: 'a command that is none',
      command: 9,
      address: 0,
      buffer: 0x20000,
      length: 8,
      status: FLASH_ERROR_COMMAND,
    },
    {
      title: 'a write beyond the flash',
      command: FLASH_COMMAND_WRITE,
      address: 0x4000,
      buffer: 0x20000,
      length: 8,
      status: FLASH_ERROR_RANGE,
    },
    {
      title: 'a write from outside memory',
      command: FLASH_COMMAND_WRITE,
      address: 0,
      buffer: 0xfffffff8,
      length: 16,
      status: FLASH_ERROR_RANGE,
    },
    {
      title: 'a read over registers',
      command: FLASH_COMMAND_READ,
      address: 0,
      buffer: 0x1000,
      length: 16,
      status: FLASH_ERROR_RANGE,
    },
    {
      title: 'a read of four gigabytes',
      command: FLASH_COMMAND_READ,
      address: 0,
      buffer: 0x20000,
      length: 0xffffffff,
      status: FLASH_ERROR_RANGE,
    },
  ]

test('flash controller: one command at a time, its status, and the size of the flash', (t) => {
  const memory = new InicMemory(new ArrayBuffer(0x40000))
  const controller = new FlashController(Flash.inMemory(0x4000))
  controller.powerOn(memory)
  controller.show()
  t.is(memory.register(FLASH_BYTES), 0x4000)
  t.is(memory.register(FLASH_ERASE_BLOCK), 4096)
  t.is(memory.register(FLASH_WRITE_GRANULE), 8)
  t.false(controller.settle())
  memory.bytes.set([1, 2, 3, 4], 0x20000)
  for (const { title, command, address, buffer, length, status } of COMMANDS) {
    memory.setRegister(FLASH_ADDRESS, address)
    memory.setRegister(FLASH_BUFFER, buffer)
    memory.setRegister(FLASH_LENGTH, length)
    memory.setRegister(FLASH_COMMAND, command)
    t.true(controller.settle(), title)
    t.is(memory.register(FLASH_STATUS), status, title)
    t.is(memory.register(FLASH_COMMAND), 0, title)
  }
  t.deepEqual([...memory.bytes.subarray(0x30000, 0x30005)], [1, 2, 3, 4, 0])
})

test('copies are whole at every alignment and length', (t) => {
  const from = new InicMemory(new ArrayBuffer(4096))
  for (let n = 0; n < 4096; n++) from.bytes[n] = (n * 31) & 0xff
  for (const fromOffset of [0, 1, 2, 3, 4, 66]) {
    for (const toOffset of [0, 1, 2, 3, 4, 130]) {
      for (const length of [0, 1, 2, 3, 4, 5, 23, 24, 25, 47, 48, 49, 95, 96, 97, 98, 99, 1460]) {
        const to = new InicMemory(new ArrayBuffer(4096))
        copyBytes(from, fromOffset, to, toOffset, length)
        const expected = new Uint8Array(4096)
        expected.set(from.bytes.subarray(fromOffset, fromOffset + length), toOffset)
        if (Buffer.compare(to.bytes, expected) !== 0) t.fail(`${length} bytes from ${fromOffset} to ${toOffset}`)
      }
    }
  }
  t.pass()
})

test('alarms ring by time and then by the order in which they were set', (t) => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          alarm: fc.integer({ min: 0, max: 15 }),
          due: fc.integer({ min: 0, max: 20 }),
          clear: fc.boolean(),
        }),
        { maxLength: 100 },
      ),
      (steps) => {
        const queue = new AlarmQueue()
        const alarms = Array.from(
          { length: 16 },
          (): Alarm => ({ slot: -1, dueNs: Number.POSITIVE_INFINITY, sequence: 0, precise: false, fire() {} }),
        )
        const model = new Map<number, { due: number; order: number }>()
        steps.forEach(({ alarm, due, clear }, order) => {
          if (clear) {
            queue.clear(alarms[alarm])
            model.delete(alarm)
          } else {
            queue.set(alarms[alarm], due)
            model.set(alarm, { due, order })
          }
        })
        const expected = [...model].sort(([, a], [, b]) => a.due - b.due || a.order - b.order).map(([alarm]) => alarm)
        const rung: number[] = []
        for (let next = queue.peek(); next !== undefined; next = queue.peek()) {
          rung.push(alarms.indexOf(next))
          queue.clear(next)
        }
        t.deepEqual(rung, expected)
        t.is(queue.dueNs, Number.POSITIVE_INFINITY)
      },
    ),
  )
})

test('random streams follow from seed and name alone, and are even', (t) => {
  const draw = (seed: string, name: string) => {
    const stream = new RandomSource(seed).stream(name)
    return Array.from({ length: 8 }, () => stream.next())
  }
  t.deepEqual(draw('a', 'x'), draw('a', 'x'))
  t.notDeepEqual(draw('a', 'x'), draw('a', 'y'))
  t.notDeepEqual(draw('a', 'x'), draw('b', 'x'))
  const stream = new RandomSource('even').stream('x')
  const counts = new Array(10).fill(0)
  for (let n = 0; n < 100_000; n++) counts[stream.below(10)]++
  for (const count of counts) t.true(Math.abs(count - 10_000) < 500, String(counts))
  let hits = 0
  for (let n = 0; n < 100_000; n++) if (stream.chance(0.02)) hits++
  t.true(Math.abs(hits - 2000) < 200, String(hits))
  t.false(stream.chance(0))
  t.true(stream.chance(1))
})

test('trace entries read as sentences, unknown ones too', (t) => {
  t.is(traceText(2, (2 << 8) | 3, 7, (40000 << 16) | 80), 'tcp 7 ports 80<-40000: SYN-RECEIVED -> ESTABLISHED')
  t.is(traceText(TRACE_DROP, DROP_UDP_CHECKSUM, 1, 2), 'dropped: UDP checksum (1, 2)')
  t.is(traceText(7, 0, 0xc0000201, 1), 'arp on port 0: 192.0.2.1 learned')
  t.is(traceText(999, 1, 2, 3), 'event 999 (1, 2, 3)')
})
