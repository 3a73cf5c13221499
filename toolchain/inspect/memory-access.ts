/** INIC memory as those see it who look from outside: live, or of the past. */
export interface MemoryAccess {
  /** Bytes of INIC memory. */
  readonly size: number
  /** All of it, where it lies in this process: reads then go there, without a copy. */
  readonly view?: DataView | undefined
  /** A copy, or a view that holds until the INIC runs again; undefined if any byte is outside. */
  read(address: number, bytes: number): Uint8Array | undefined
  /** Absent where memory cannot be written: in the past. */
  write?(address: number, bytes: Uint8Array): void
}

/** INIC memory that lies in this process; `store` where it may be written. */
export function memoryOf(bytes: Uint8Array, store?: (address: number, data: Uint8Array) => void): MemoryAccess {
  return {
    size: bytes.length,
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
    read: (address, count) =>
      address < 0 || count < 0 || address + count > bytes.length ? undefined : bytes.subarray(address, address + count),
    ...(store !== undefined && { write: store }),
  }
}

/** A little-endian word; 0 outside of memory. */
export function wordAt(memory: MemoryAccess, address: number): number {
  if (address < 0 || address + 4 > memory.size) return 0
  const { view } = memory
  if (view !== undefined) return view.getUint32(address, true)
  const bytes = memory.read(address, 4)
  return bytes === undefined ? 0 : new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true)
}
