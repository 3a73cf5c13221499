/** docs/datasheet.md against abi/ and against the card. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import * as boot from '../abi/boot.ts'
import * as bus from '../abi/bus.ts'
import * as memory from '../abi/memory.ts'
import * as registers from '../abi/registers.ts'
import * as rings from '../abi/rings.ts'
import * as trace from '../abi/trace.ts'
import * as virtio from '../abi/virtio.ts'
import { Flash } from '../emulator/devices/flash.ts'
import { REGISTERS } from '../emulator/devices/registers.ts'
import { Farm } from '../emulator/farm.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { firmware } from './emulator-kit.ts'

const TEXT = readFileSync(join(packageRoot, 'docs/datasheet.md'), 'utf8')
const LINES = TEXT.split('\n')
const MODULES: Readonly<Record<string, object>> = { boot, bus, memory, registers, rings, trace, virtio }
const COPY = 0x100000

/** True if a line says that `name` is `value`: both in code, the value as a decimal or hexadecimal number. */
function says(line: string, name: string, value: number): boolean {
  const words = [...line.matchAll(/`([^`]*)`/g)].map(([, word]) => word)
  return words.includes(name) && words.some((word) => /^(0x[0-9a-f]+|\d+)$/.test(word) && Number(word) === value)
}

for (const [file, module] of Object.entries(MODULES)) {
  test(`every constant of abi/${file}.ts is there, with its value`, (t) => {
    const wrong = Object.entries(module).filter(
      ([name, value]) => !LINES.some((line) => says(line, name, value as number)),
    )
    t.deepEqual(wrong, [])
  })
}

interface RegisterRow {
  readonly offset: number
  readonly name: string
  readonly access: string
  readonly reset: string
}

/** Rows of the tables of registers. */
const ROWS: readonly RegisterRow[] = LINES.flatMap((line) => {
  const found = /^\| `(0x[0-9a-f]+)` \| `(\w+)` \| (RO|RW|RW1|W) \| (.*?) \|/.exec(line)
  if (found === null) return []
  const [, offset, name, access, reset] = found
  return [{ offset: Number(offset), name, access, reset }]
})

/** The card's register that a row stands for, or those of all ports. */
function offsetsOf({ name }: RegisterRow): number[] {
  const port = name.replace('MAC_', 'MAC\\d_')
  return REGISTERS.filter((register) => new RegExp(`^${port}$`).test(register.name)).map(({ offset }) => offset)
}

test('every register of the card has one row, and every row a register', (t) => {
  const own = ROWS.filter(({ name }) => !name.startsWith('BUS_'))
  t.deepEqual(own.flatMap(offsetsOf).sort(), REGISTERS.map(({ offset }) => offset).sort())
})

test('reset values are those that reset finds', async (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const memoryBytes = 0x200000
  const flash = Flash.inMemory(0x10000)
  const board = farm.addBoard('it', { memoryBytes, flash })
  board.powerOn({ wasm: await firmware('snapshot') })
  const at = (offset: number) => board.memory!.words[(COPY + offset) >>> 2]
  const named: Readonly<Record<string, (register: number) => number | null>> = {
    size: (register) => (register === registers.SYS_MEMORY_BYTES ? memoryBytes : flash.bytes),
    // Another one for each port.
    address: () => null,
    link: () => 0,
  }
  for (const row of ROWS.filter(({ name }) => !name.startsWith('BUS_'))) {
    for (const offset of offsetsOf(row)) {
      const stated = /^`(.*)`$/.exec(row.reset)
      const value = stated === null ? named[row.reset]?.(row.offset) : Number(stated[1])
      if (value === null) t.not(at(offset), 0, row.name)
      else t.is(at(offset), value!, row.name)
    }
  }
  board.powerOff()
})

test('the memory map covers memory without a gap', (t) => {
  const regions = LINES.flatMap((line) => {
    const found = /^\| `(0x[0-9a-f]{8})` `\w+` \| `(0x[0-9a-f]+)`/.exec(line)
    return found === null ? [] : [{ from: Number(found[1]), bytes: Number(found[2]) }]
  })
  t.is(regions.length, 6)
  let end = 0
  for (const { from, bytes } of regions) {
    t.is(from, end)
    end = from + bytes
  }
  t.is(end, memory.CARVE_BASE)
})
