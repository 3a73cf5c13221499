/** Locals and operands as qWasmLocal and qWasmStackValue carry them: bytes, lowest first, as many as the type has. */
import type { Value } from '../session/api.ts'

const V128_BYTES = 16

/** The bytes of a machine value in hex, or undefined for one that has none. */
export function machineValueHex(value: Value): string | undefined {
  const bytes = Buffer.alloc(V128_BYTES)
  switch (value.type) {
    case 'i32':
      bytes.writeUInt32LE(Number(BigInt.asUintN(32, integer(value))))
      return bytes.toString('hex', 0, 4)
    case 'i64':
      bytes.writeBigUInt64LE(BigInt.asUintN(64, integer(value)))
      return bytes.toString('hex', 0, 8)
    case 'f32':
      bytes.writeFloatLE(Number(value.display))
      return bytes.toString('hex', 0, 4)
    case 'f64':
      bytes.writeDoubleLE(Number(value.display))
      return bytes.toString('hex', 0, 8)
    case 'v128': {
      const bits = BigInt.asUintN(128, integer(value))
      bytes.writeBigUInt64LE(BigInt.asUintN(64, bits))
      bytes.writeBigUInt64LE(bits >> 64n, 8)
      return bytes.toString('hex')
    }
  }
  return undefined
}

function integer(value: Value): bigint {
  const match = /^-?(0x[0-9a-f]+|\d+)/i.exec(value.display)
  if (match === null) return 0n
  return match[0].startsWith('-') ? -BigInt(match[1]) : BigInt(match[1])
}
