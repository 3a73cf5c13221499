/** Breakpoints and watchpoints that LLDB set, by the address that it gave. */
import { DebugError, type SessionApi, type Stop } from '../session/api.ts'
import { codeAddress, type WasmAddress } from './address.ts'
import { BETWEEN_SLICES, type Inferior } from './inferior.ts'

/** Most that one connection may set. */
const MAXIMUM_BREAKPOINTS = 4096

export type WatchAccess = 'read' | 'write' | 'access'

interface Own {
  /** As LLDB gave it: a stop is told by it, though the engine may have slipped to the next instruction. */
  readonly address: bigint
  /** Of the session's breakpoint; undefined for the return out of a slice. */
  readonly id: number | undefined
}

export class Breakpoints {
  readonly #session: SessionApi
  readonly #inferior: Inferior
  readonly #own = new Map<bigint, Own>()
  readonly #watches = new Map<string, { readonly id: number; readonly offset: number }>()

  constructor(session: SessionApi, inferior: Inferior) {
    this.#session = session
    this.#inferior = inferior
  }

  /** @throws DebugError if nothing can stop there */
  add(place: WasmAddress): void {
    if (place.space !== 'code') throw new DebugError('memory', 'there is no code at that address')
    const address = codeAddress(place.module, place.offset)
    if (this.#own.has(address)) return
    this.#own.set(address, { address, id: this.#add(place.module, place.offset) })
  }

  #add(index: number, pc: number): number | undefined {
    if (pc === BETWEEN_SLICES) return undefined
    this.#checkRoom()
    const module = this.#inferior.modules[index]
    if (module === undefined) throw new DebugError('memory', `there is no module ${index}`)
    const everywhere = this.#inferior.modules.length === 1
    const set = this.#session.addBreakpoint({
      kind: 'instruction',
      pc,
      ...(!everywhere && { threads: module.threads }),
    })
    if (set.verified) return set.id
    this.#session.removeBreakpoint(set.id)
    throw new DebugError('memory', set.message ?? `nothing stops at ${pc}`)
  }

  remove(place: WasmAddress): void {
    if (place.space !== 'code') throw new DebugError('memory', 'there is no code at that address')
    const address = codeAddress(place.module, place.offset)
    const own = this.#own.get(address)
    this.#own.delete(address)
    if (own?.id !== undefined) this.#session.removeBreakpoint(own.id)
  }

  /** Watches 1, 2, 4 or 8 bytes of the INIC's memory. @throws DebugError */
  watch(place: WasmAddress, bytes: number, access: WatchAccess): void {
    if (place.space !== 'memory') throw new DebugError('memory', 'code cannot be watched')
    if (![1, 2, 4, 8].includes(bytes)) throw new DebugError('memory', '1, 2, 4 or 8 bytes can be watched')
    this.#checkRoom()
    const key = watchKey(place.offset, bytes, access)
    if (this.#watches.has(key)) return
    const { id } = this.#session.addBreakpoint({
      kind: 'watch',
      expression: `u${bytes * 8}[${place.offset}]`,
      access,
      threads: [this.#inferior.thread.id],
    })
    this.#watches.set(key, { id, offset: place.offset })
  }

  unwatch(place: WasmAddress, bytes: number, access: WatchAccess): void {
    const key = watchKey(place.offset, bytes, access)
    const watch = this.#watches.get(key)
    this.#watches.delete(key)
    if (watch !== undefined) this.#session.removeBreakpoint(watch.id)
  }

  /** The one of LLDB's own that the farm stopped at. */
  hit(stop: Stop): Own | undefined {
    return [...this.#own.values()].find(({ id }) => id !== undefined && stop.breakpoints.includes(id))
  }

  isAt(address: bigint): boolean {
    return this.#own.has(address)
  }

  /** Address of the one of LLDB's own watchpoints that the farm stopped at. */
  watched(stop: Stop): number | undefined {
    return [...this.#watches.values()].find(({ id }) => stop.breakpoints.includes(id))?.offset
  }

  /** LLDB waits for the return out of the slice: the outermost function is to be finished. */
  get awaitsSliceEnd(): boolean {
    return [...this.#own.values()].some(({ id }) => id === undefined)
  }

  #checkRoom(): void {
    if (this.#own.size + this.#watches.size >= MAXIMUM_BREAKPOINTS) {
      throw new DebugError('unsupported', `${MAXIMUM_BREAKPOINTS} breakpoints are set`)
    }
  }
}

function watchKey(offset: number, bytes: number, access: WatchAccess): string {
  return `${access} ${offset} ${bytes}`
}
