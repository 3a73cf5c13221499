import type { MemoryAccess } from './types.ts'

/** INIC memory that lies in this process, to be read and written. */
export function memoryOf(memory: ArrayBuffer): MemoryAccess {
  const bytes = new Uint8Array(memory)
  return {
    size: memory.byteLength,
    view: new DataView(memory),
    read: (address, count) =>
      address < 0 || count < 0 || address + count > bytes.length ? undefined : bytes.subarray(address, address + count),
    write: (address, data) => bytes.set(data, address),
  }
}
