/** Memory by pages: which of them differ from a copy, for checkpoints that cost what a run has changed. */

import { loadAddon } from './addon.ts'
import { CpuError } from './cpu.ts'

/** The unit of {@link copyDirty}. */
export const SNAPSHOT_PAGE_BYTES = 4096

/**
 * Looks for pages of `memory` that differ from `shadow`, a copy made earlier, in ascending order. Each one's number is
 * put into `pages`, its contents into `bytes` at the same place, and `shadow` is brought up to date.
 *
 * Returns how many there were. As many as fit `pages`, or `bytes` (4096 each): there may be more, and the next call goes
 * on with them. Runs at the speed of memory. `memory` and `shadow` are of one length, a multiple of 4096, and no two of
 * the four overlap: throws ERR_CPU_OPTION. For INIC memory use the method of the CPU, which skips what was never used.
 */
export function copyDirty(memory: Uint8Array, shadow: Uint8Array, pages: Uint32Array, bytes: Uint8Array): number {
  try {
    return loadAddon().copyDirty(memory, shadow, pages, bytes)
  } catch (error) {
    throw CpuError.from(error)
  }
}
