/** The CPU of an INIC: one interface, run by Wasmtime or by the JavaScript engine itself. */

import { hasAddon } from './addon.ts'
import type { Cpu, CpuKind, CpuOptions } from './cpu.ts'
import { checkOptions } from './options.ts'
import { V8Cpu } from './v8.ts'
import { WasmtimeCpu } from './wasmtime.ts'

export * from './cpu.ts'
export { copyMemory, DebugCpu, type DebugFrame, type DebugOutcome, type DebugValue } from './debug.ts'

/**
 * A CPU with this firmware, not yet reset.
 *
 * `auto` is Wasmtime where the addon was built, else v8. Throws ERR_CPU_ADDON_MISSING (`wasmtime` asked for and not
 * there), ERR_CPU_OPTION, ERR_CPU_MODULE, ERR_CPU_MEMORY.
 */
export function createCpu(kind: CpuKind | 'auto', options: CpuOptions): Cpu {
  checkOptions(options)
  return (kind === 'auto' ? availableCpu() : kind) === 'wasmtime' ? new WasmtimeCpu(options) : new V8Cpu(options)
}

/** What `auto` stands for in this installation. */
export function availableCpu(): CpuKind {
  return hasAddon() ? 'wasmtime' : 'v8'
}
