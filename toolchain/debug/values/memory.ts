import type { MemoryAccess } from './types.ts'

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
