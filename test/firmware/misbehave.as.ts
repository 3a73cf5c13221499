/**
 * Says hello on the UART, then does at its second poll what BOOT_FLAGS names: see MISBEHAVIOUR in emulator-board.test.ts.
 */
import { BOOT_FLAGS } from '../../abi/boot.ts'
import { BOOT_BASE } from '../../abi/memory.ts'
import {
  DELIVER_BASE,
  MAC_BLOCK,
  MAC_RX_BASE,
  MAC_RX_ENTRIES,
  SYS_PANIC,
  SYS_PANIC_DETAIL,
  TRACE_BASE,
  TRACE_ENTRIES,
  TRACE_HEAD,
  UART_BYTES,
  WATCHDOG_KICK,
  WATCHDOG_TIMEOUT_MS,
} from '../../abi/registers.ts'
import { get, print, printNumber, putByte, ring, set, start, startDma, startPort, VARIABLES } from './card.as.ts'

export function reset(): void {
  start()
  startPort(0)
  startDma()
  print('hello from reset\n')
  set(TRACE_BASE, 0x40000)
  set(TRACE_ENTRIES, 8)
  for (let n: u32 = 0; n < 10; n++) {
    const at: u32 = 0x40000 + (n & 7) * 16
    store<u32>(at, n * 1000)
    store<u16>(at, 1, 4)
    store<u32>(at, n, 8)
  }
  set(TRACE_HEAD, 10)
  if (load<u32>(BOOT_BASE + BOOT_FLAGS) == 100) unreachable()
}

export function poll(_irqs: u32): u32 {
  const polls = load<u32>(VARIABLES)
  store<u32>(VARIABLES, polls + 1)
  const what = load<u32>(BOOT_BASE + BOOT_FLAGS)
  if (what == 20) set(WATCHDOG_KICK, get(WATCHDOG_KICK) + 1)
  if (polls == 0) {
    print('poll ')
    printNumber(polls)
    putByte(10)
    if (what == 9 || what == 20) set(WATCHDOG_TIMEOUT_MS, 10)
    return what == 20 ? 5000 : 1000
  }
  if (polls == 1) misbehave(what)
  return what == 20 ? 5000 : 0xffffffff
}

function misbehave(what: u32): void {
  if (what == 1) unreachable()
  if (what == 2) while (true) store<u32>(VARIABLES, 1, 4)
  if (what == 3) store<u32>(0x1018, 1) // the hole behind SYS_READY
  if (what == 4) {
    set(SYS_PANIC, 7)
    set(SYS_PANIC_DETAIL, 0xbeef)
    unreachable()
  }
  if (what == 5) set(MAC_BLOCK + MAC_RX_BASE, 0xfffffff0)
  if (what == 6) set(MAC_BLOCK + MAC_RX_ENTRIES, 3)
  if (what == 7) store<u32>(ring(0), 0xfffff000) // the next receive buffer
  if (what == 8) {
    // A deliver descriptor outside memory.
    const at = get(DELIVER_BASE)
    store<u32>(at, 0xfffff000)
    store<u32>(at, 64, 4)
    store<u32>(at, 0x302, 8)
    store<u32>(at, 1, 12)
  }
  if (what == 10) store<u32>(0x110c, 1) // a hole that shares eight bytes with TRACE_HEAD
  if (what == 11) {
    // A record that goes on without having begun.
    const at = get(DELIVER_BASE)
    store<u32>(at, 64, 4)
    store<u32>(at, 0x002, 8)
    store<u32>(at, 1, 12)
  }
  if (what == 12) store<u32>(0x1ff0, 1) // the end of the register page
  if (what == 13) store<u32>(0x8000, 1) // the unmapped range
  if (what == 14) store<u32>(0x10, 1) // the null guard
  if (what == 15) set(UART_BYTES, 100) // no power of two
  if (what == 16) for (let n = 0; n < 3000; n++) putByte(65 + (n & 15)) // more than the ring holds
  if (what == 17) print('\x1b[31mred\x01\n')
  if (what == 18) for (let n = 0; n < 600; n++) putByte(66)
  if (what == 19) store<u32>(load<u32>(VARIABLES, 0x700) - 4, 1) // outside of memory
  if (what == 15 || what == 18) print('\n')
}
