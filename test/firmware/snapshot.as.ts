/** Copies the register page, as `reset` and then the first `poll` find it, to where a test reads it. */
import { REGISTER_BASE, REGISTER_PAGE_BYTES } from '../../abi/memory.ts'
import { REGISTER_END } from '../../abi/registers.ts'

/** Copy of the page at reset, and behind it that of the first poll. */
const COPY: u32 = 0x100000

export function reset(): void {
  memory.copy(COPY, REGISTER_BASE, REGISTER_END)
}

export function poll(_irqs: u32): u32 {
  memory.copy(COPY + REGISTER_PAGE_BYTES, REGISTER_BASE, REGISTER_END)
  return 0xffffffff
}
