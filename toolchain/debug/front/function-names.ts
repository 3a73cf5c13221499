/** Names of a firmware's functions, as a function breakpoint takes them. */
import { readWasmModule, WasmFormatError } from '../../firmware/wasm-module.ts'
import type { DebugModule } from '../session/api.ts'

const known = new WeakMap<Uint8Array, readonly string[]>()

/** Short names, `tcpInput`, `Tcb#reset`, in order; those of inlined functions are not in a module. */
export function functionNames({ wasm }: DebugModule): readonly string[] {
  let names = known.get(wasm)
  if (names === undefined) {
    names = readNames(wasm)
    known.set(wasm, names)
  }
  return names
}

function readNames(wasm: Uint8Array): readonly string[] {
  try {
    const paths = [...readWasmModule(wasm).functionNames.values()]
    return [...new Set(paths.map((path) => path.replace(/<.*$/, '').split('/').at(-1)!))].sort()
  } catch (error) {
    if (error instanceof WasmFormatError) return [] // nothing to offer
    throw error
  }
}
