/** The fields that abi/ipos.ts declares, as its text says them: name, offset and, in the comment, type. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../toolchain/package-root.ts'

export interface AbiField {
  /** As in `BLOCK_SND_UNA`. */
  readonly name: string
  /** As in `BLOCK`: a key of IPOS_LAYOUTS. */
  readonly piece: string
  readonly at: number
  readonly bytes: number
}

const BYTES: Readonly<Record<string, number>> = { u8: 1, u16: 2, u32: 4, f32: 4 }
/** Fields of the connection information are named as those of the header are. */
const CONNECTION_FIELD = /^IPOS_SERVER_/

/** @param pieces names of the pieces that packets consist of */
export function abiFields(pieces: readonly string[]): AbiField[] {
  const text = readFileSync(join(packageRoot, 'abi/ipos.ts'), 'utf8')
  const longestFirst = [...pieces].sort((a, b) => b.length - a.length)
  return [...text.matchAll(/^export const (\w+) = (\d+) \/\/ (u8|u16|u32|f32)\b/gm)].map(([, name, at, type]) => {
    const prefix = longestFirst.find((candidate) => name.startsWith(`${candidate}_`))
    const piece = CONNECTION_FIELD.test(name) ? 'CONNECTION' : name.startsWith('IPOS_') ? 'HEADER' : prefix
    if (piece === undefined) throw new Error(`abi/ipos.ts: ${name} belongs to none of ${pieces.join(', ')}`)
    return { name, piece, at: Number(at), bytes: BYTES[type] }
  })
}
