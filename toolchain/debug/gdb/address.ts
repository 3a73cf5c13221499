/**
 * Addresses as LLDB has them for WebAssembly, 64 bits: two bits say whether it is memory or code, 30 of which, 32 are the offset.
 *
 * Source: LLDB, lldb/source/Plugins/Process/wasm/ProcessWasm.h, `wasm_addr_t`.
 */

/** Code is numbered by firmware, memory by nothing: there is one, that of the INIC that is looked at. */
export type WasmAddress =
  | { readonly space: 'memory'; readonly offset: number }
  | { readonly space: 'code'; readonly module: number; readonly offset: number }

const SPACE_SHIFT = 62n
const MODULE_SHIFT = 32n
const MODULE_MASK = 0x3fffffffn
const OFFSET_MASK = 0xffffffffn
const MEMORY = 0n
const CODE = 1n

/** Address of a byte of a firmware's file. */
export function codeAddress(module: number, offset: number): bigint {
  return (CODE << SPACE_SHIFT) | (BigInt(module) << MODULE_SHIFT) | BigInt(offset)
}

/** What an address in hex stands for, or undefined: no address, or one of neither. */
export function parseAddress(text: string): WasmAddress | undefined {
  if (!/^[0-9a-f]{1,16}$/i.test(text)) return undefined
  const value = BigInt(`0x${text}`)
  const space = value >> SPACE_SHIFT
  const module = Number((value >> MODULE_SHIFT) & MODULE_MASK)
  const offset = Number(value & OFFSET_MASK)
  if (space === CODE) return { space: 'code', module, offset }
  return space === MEMORY && module === 0 ? { space: 'memory', offset } : undefined
}

/** A 64-bit register's value in the order of its bytes in memory. */
export function registerHex(value: bigint): string {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes.toString('hex')
}
