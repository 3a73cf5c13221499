/** The CPU of an INIC: one interface, run by Wasmtime or by the JavaScript engine itself. */

import { hasAddon, loadAddon } from './addon.ts'
import { CountingCpu, type CountSink } from './counting.ts'
import { type Cpu, CpuError, type CpuKind, type CpuOptions, type SliceLimit } from './cpu.ts'
import { checkOptions } from './options.ts'
import { precompileForV8, V8Cpu } from './v8.ts'
import { WasmtimeCpu } from './wasmtime.ts'

export { CountingCpu, type CountSink } from './counting.ts'
export * from './cpu.ts'
export * from './debug.ts'
export { WasmtimeCpu } from './wasmtime.ts'

/**
 * A CPU with this firmware, not yet reset.
 *
 * `auto` is Wasmtime where the addon was built, else v8. Throws ERR_CPU_ADDON_MISSING (`wasmtime` asked for and not
 * there), ERR_CPU_OPTION, ERR_CPU_MODULE, ERR_CPU_MEMORY.
 *
 * @param counts takes how often each instruction ran; on v8 it gets nothing
 */
export function createCpu(kind: CpuKind | 'auto', options: CpuOptions, counts: CountSink | null = null): Cpu {
  checkOptions(options)
  if ((kind === 'auto' ? availableCpu() : kind) !== 'wasmtime') return new V8Cpu(options)
  return counts === null ? new WasmtimeCpu(options) : new CountingCpu(options, counts)
}

/**
 * Compiles a firmware for CPUs to come, on other threads: the slices of boards that run are not held up, as they are when
 * a CPU is made. Throws ERR_CPU_MODULE, ERR_CPU_ADDON_MISSING.
 *
 * @param limit what the CPUs will have
 */
export async function precompile(kind: CpuKind, module: Uint8Array, limit?: SliceLimit): Promise<void> {
  if (kind === 'v8') return precompileForV8(module)
  try {
    await loadAddon().precompile(module, limit)
  } catch (cause) {
    if (cause instanceof CpuError) throw cause
    throw new CpuError('ERR_CPU_MODULE', (cause as Error).message, { cause })
  }
}

/** What `auto` stands for in this installation. */
export function availableCpu(): CpuKind {
  return hasAddon() ? 'wasmtime' : 'v8'
}
