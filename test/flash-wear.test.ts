/** The flash device: what outlives a run beside its cells, and what a cut leaves of an operation. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { FLASH_ERROR_FAILED, FLASH_OK } from '../abi/registers.ts'
import { ERASE_BLOCK_BYTES, Flash, type FlashFault } from '../emulator/devices/flash.ts'

const folder = mkdtempSync(join(tmpdir(), 'inic-wear-'))
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

test('wear is kept beside the flash file, from the moment of the erasure', (t) => {
  const path = join(folder, 'board.flash')
  const flash = Flash.open(path, 0x4000)
  t.false(existsSync(`${path}.wear`), 'nothing was erased yet')
  flash.erase(0x1000, 2 * ERASE_BLOCK_BYTES)
  flash.erase(0x1000, ERASE_BLOCK_BYTES)
  // Not closed: as if the process had been killed.
  const again = Flash.open(path, 0x4000)
  t.deepEqual([...again.wear], [0, 2, 1, 0])
  again.erase(0, 0x4000)
  again.close()
  flash.close()
  t.deepEqual([...new Uint32Array(Uint8Array.from(readFileSync(`${path}.wear`)).buffer)], [1, 3, 2, 1])
  t.is(readFileSync(path).length, 0x4000, 'the flash file is the flash, byte for byte')
})

test('wear of another flash counts for nothing', (t) => {
  const path = join(folder, 'other.flash')
  writeFileSync(`${path}.wear`, Buffer.alloc(12, 1))
  const flash = Flash.open(path, 0x4000)
  t.deepEqual([...flash.wear], [0, 0, 0, 0])
  flash.erase(0, ERASE_BLOCK_BYTES)
  flash.close()
  t.deepEqual([...readFileSync(`${path}.wear`)], [1, ...new Array(15).fill(0)])
})

const CUTS: Readonly<Record<Exclude<FlashFault, 'none' | 'fail'>, number[]>> = {
  'cut-before': [255, 255, 255, 255, 255, 255, 255, 255],
  cut: [0, 0, 0, 0, 255, 255, 255, 255],
  'cut-backward': [255, 255, 255, 255, 0, 0, 0, 0],
  'cut-ragged': [0, 255, 0, 255, 0, 255, 0, 255],
}

for (const [fault, left] of Object.entries(CUTS) as [FlashFault, number[]][]) {
  test(`what is left of a write and of an erasure: ${fault}`, (t) => {
    const flash = Flash.inMemory(0x2000)
    flash.fault = (_operation, address) => (address === 8 ? fault : 'none')
    t.is(flash.write(0, new Uint8Array(24)), FLASH_ERROR_FAILED)
    t.is(flash.read(0, new Uint8Array(8)), FLASH_ERROR_FAILED)
    flash.restorePower()
    const bytes = new Uint8Array(24)
    t.is(flash.read(0, bytes), FLASH_OK)
    t.deepEqual([...bytes], [...new Array(8).fill(0), ...left, ...new Array(8).fill(255)])

    flash.fault = null
    flash.write(0x1000, new Uint8Array(0x1000))
    flash.fault = () => fault
    t.is(flash.erase(0x1000, ERASE_BLOCK_BYTES), FLASH_ERROR_FAILED)
    flash.restorePower()
    const block = new Uint8Array(0x1000)
    flash.read(0x1000, block)
    const erased = block.filter((byte) => byte === 0xff).length
    t.is(erased, fault === 'cut-before' ? 0 : 0x800)
    t.is(flash.wear[1], fault === 'cut-before' ? 0 : 1)
  })
}
