/** Values as front ends write them: numbers in other bases, bytes as a dump. */
import type { Value } from '../session/api.ts'

export type NumberFormat = 'x' | 'd' | 'u' | 'o' | 't' | 'c' | 'a' | 'z'

/** The number behind a value; undefined for what is none. */
export function scalarOf({ scalar }: Value): number | bigint | undefined {
  return typeof scalar === 'boolean' ? Number(scalar) : scalar
}

/** Bits of an integer type of AssemblyScript; 32 for what is none. */
export function bitsOf(value: Value): number {
  const match = /^[iu](8|16|32|64)$/.exec(value.type)
  return match ? Number(match[1]) : value.bytes === 8 ? 64 : 32
}

/** As gdb's p/F writes it. */
export function formatNumber(value: number | bigint, format: NumberFormat, bits: number): string {
  const signed = BigInt.asIntN(bits, BigInt(value))
  const unsigned = BigInt.asUintN(bits, BigInt(value))
  switch (format) {
    case 'x':
    case 'a':
      return `0x${unsigned.toString(16)}`
    case 'z':
      return `0x${unsigned.toString(16).padStart(bits / 4, '0')}`
    case 'd':
      return String(signed)
    case 'u':
      return String(unsigned)
    case 'o':
      return `0${unsigned.toString(8)}`
    case 't':
      return unsigned.toString(2)
    case 'c': {
      const code = Number(BigInt.asUintN(8, unsigned))
      return `${BigInt.asIntN(8, unsigned)} ${quoteCharacter(code)}`
    }
  }
}

function quoteCharacter(code: number): string {
  if (code === 0x27 || code === 0x5c) return `'\\${String.fromCharCode(code)}'`
  return code >= 0x20 && code < 0x7f ? `'${String.fromCharCode(code)}'` : `'\\x${code.toString(16).padStart(2, '0')}'`
}

export function hex(number: number, digits = 0): string {
  return `0x${number.toString(16).padStart(digits, '0')}`
}

/** An expression that gives this value again; undefined for what is nowhere in memory. */
export function pathOf({ path, address, bytes }: Value): string | undefined {
  if (path !== undefined) return path
  if (address === undefined || bytes === undefined || ![1, 2, 4, 8].includes(bytes)) return undefined
  return `u${bytes * 8}[${hex(address)}]`
}
