import { REGISTER_BASE } from '../../abi/memory.ts'
import { SYS_PANIC, SYS_PANIC_DETAIL } from '../../abi/registers.ts'

/** An invariant is broken: leave the reason where the crash report finds it, and trap. */
export const PANIC_ASSERT = 1
export const PANIC_BOOT_INFORMATION = 2
export const PANIC_MEMORY = 3
export const PANIC_POOL = 4
export const PANIC_TABLE = 5

export function panic(reason: u32, detail: u32): void {
  store<u32>(REGISTER_BASE + SYS_PANIC, reason)
  store<u32>(REGISTER_BASE + SYS_PANIC_DETAIL, detail)
  unreachable()
}

/** What `assert` of the debug build calls. */
export function abort(_message: string | null, _file: string | null, line: u32, _column: u32): void {
  panic(PANIC_ASSERT, line)
}
