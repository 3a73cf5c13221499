/** Copies and clears by 16 bytes at a time: the processor counts every byte of `memory.copy` and `memory.fill`. */

/** Copies `bytes` bytes. The ranges do not overlap. */
export function copyBytes(target: u32, source: u32, bytes: u32): void {
  for (const end = source + (bytes & ~255); source < end; source += 256) {
    for (let i: u32 = 0; i < 256; i += 128) {
      const a = v128.load(source + i)
      const b = v128.load(source + i, 16)
      const c = v128.load(source + i, 32)
      const d = v128.load(source + i, 48)
      v128.store(target + i, a)
      v128.store(target + i, b, 16)
      v128.store(target + i, c, 32)
      v128.store(target + i, d, 48)
      const e = v128.load(source + i, 64)
      const f = v128.load(source + i, 80)
      const g = v128.load(source + i, 96)
      const h = v128.load(source + i, 112)
      v128.store(target + i, e, 64)
      v128.store(target + i, f, 80)
      v128.store(target + i, g, 96)
      v128.store(target + i, h, 112)
    }
    target += 256
  }
  for (const end = source + (bytes & 240); source < end; source += 16) {
    v128.store(target, v128.load(source))
    target += 16
  }
  copyFew(target, source, bytes & 15)
}

/** Copies fewer than 16 bytes. */
export function copyFew(target: u32, source: u32, bytes: u32): void {
  if (bytes & 8) {
    store<u64>(target, load<u64>(source))
    target += 8
    source += 8
  }
  if (bytes & 4) {
    store<u32>(target, load<u32>(source))
    target += 4
    source += 4
  }
  if (bytes & 2) {
    store<u16>(target, load<u16>(source))
    target += 2
    source += 2
  }
  if (bytes & 1) store<u8>(target, load<u8>(source))
}

/** Zeroes `bytes` bytes, a multiple of 16. */
export function clearBytes(address: u32, bytes: u32): void {
  const zero = i32x4.splat(0)
  for (const end = address + (bytes & ~63); address < end; address += 64) {
    v128.store(address, zero)
    v128.store(address, zero, 16)
    v128.store(address, zero, 32)
    v128.store(address, zero, 48)
  }
  for (const end = address + (bytes & 48); address < end; address += 16) v128.store(address, zero)
}
