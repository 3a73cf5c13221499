/** Every instruction that touches INIC memory, for watchpoints. */
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'
import type { AccessSites } from './types.ts'

interface Site {
  readonly pc: number
  readonly store: boolean
  readonly depth: number
  readonly offset: number
  readonly bytes: number
}

export function collectAccessSites(bodies: Iterable<readonly DecodedInstruction[]>): AccessSites {
  const sites: Site[] = []
  for (const instructions of bodies) {
    for (const instruction of instructions) sites.push(...sitesOf(instruction))
  }
  return {
    count: sites.length,
    pc: Uint32Array.from(sites, ({ pc }) => pc),
    store: Uint8Array.from(sites, ({ store }) => (store ? 1 : 0)),
    depth: Uint8Array.from(sites, ({ depth }) => depth),
    offset: Uint32Array.from(sites, ({ offset }) => offset),
    bytes: Uint8Array.from(sites, ({ bytes }) => bytes),
  }
}

function sitesOf({ pc, offset, opcode }: DecodedInstruction): Site[] {
  const { name, accessBytes, stores = false, loads = false } = opcode
  switch (name) {
    case 'memory.copy': // destination, source, count
      return [
        { pc, store: true, depth: 2, offset: 0, bytes: 0 },
        { pc, store: false, depth: 1, offset: 0, bytes: 0 },
      ]
    case 'memory.fill': // destination, value, count
    case 'memory.init': // destination, offset in the segment, count
      return [{ pc, store: true, depth: 2, offset: 0, bytes: 0 }]
  }
  if (accessBytes === undefined) return []
  const site = { pc, depth: operandsAbove(name, stores), offset, bytes: accessBytes }
  return [...(stores ? [{ ...site, store: true }] : []), ...(loads ? [{ ...site, store: false }] : [])]
}

/** Operands on the stack above the address. */
function operandsAbove(name: string, stores: boolean): number {
  if (name.includes('cmpxchg') || name.includes('.wait')) return 2
  return stores || name.endsWith('_lane') ? 1 : 0
}
