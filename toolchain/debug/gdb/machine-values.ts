/** Locals and operands as qWasmLocal and qWasmStackValue carry them: bytes, lowest first, as many as the type has. */
import type { Value } from '../session/api.ts'

const V128_BYTES = 16

/** The bytes of a machine value in hex, or undefined for one that has none. */
export function machineValueHex({ type, scalar }: Value): string | undefined {
  if (scalar === undefined || typeof scalar === 'boolean') return undefined
  const bytes = Buffer.alloc(V128_BYTES)
  switch (type) {
    case 'i32':
      bytes.writeInt32LE(Number(scalar) | 0)
      return bytes.toString('hex', 0, 4)
    case 'i64':
      bytes.writeBigInt64LE(BigInt.asIntN(64, BigInt(scalar)))
      return bytes.toString('hex', 0, 8)
    case 'f32':
      bytes.writeFloatLE(Number(scalar))
      return bytes.toString('hex', 0, 4)
    case 'f64':
      bytes.writeDoubleLE(Number(scalar))
      return bytes.toString('hex', 0, 8)
    case 'v128': {
      const bits = BigInt(scalar)
      bytes.writeBigUInt64LE(BigInt.asUintN(64, bits))
      bytes.writeBigUInt64LE(BigInt.asUintN(64, bits >> 64n), 8)
      return bytes.toString('hex')
    }
  }
  return undefined
}
