/**
 * INIC registers: 32-bit, little-endian, offsets from REGISTER_BASE. "RO": the device rewrites it before every poll
 * and ignores what the firmware stored. "RW": the device reads it after every poll. A store outside a register
 * listed here is a bus fault.
 */

// System.
export const SYS_ID = 0x000 // RO: SYS_ID_VALUE
export const SYS_VERSION = 0x004 // RO: version of this map
export const SYS_MEMORY_BYTES = 0x008 // RO
export const SYS_PANIC = 0x00c // RW: reason code, stored by the firmware just before it traps
export const SYS_PANIC_DETAIL = 0x010 // RW: a value that explains the reason
export const SYS_READY = 0x014 // RW: 1 once the firmware serves
export const SYS_ID_VALUE = 0x43494e49 // "INIC"
export const SYS_VERSION_VALUE = 1

// Timer: nanoseconds since power-on, 64 bits, at the start of this poll.
export const TIMER_NOW_LOW = 0x040 // RO
export const TIMER_NOW_HIGH = 0x044 // RO

// Interrupt controller. The pending and enabled bits are also the argument of `poll`.
export const IRQ_PENDING = 0x080 // RO
export const IRQ_ENABLE = 0x084 // RW

export const IRQ_MAC0 = 1 // a frame was received on port 0; port n is IRQ_MAC0 << n
export const IRQ_MAC1 = 2
export const IRQ_MAC2 = 4
export const IRQ_TIMER = 8 // the wake time returned by the last poll has come
export const IRQ_FETCH = 16 // the DMA engine filled fetch descriptors
export const IRQ_QUEUE = 32 // a queue status entry changed
export const IRQ_LINK = 64 // a port's link went up or down
export const IRQ_ALL = 127

// UART: a ring of bytes in INIC memory. HEAD and TAIL run freely and are masked by BYTES - 1.
export const UART_BASE = 0x0c0 // RW
export const UART_BYTES = 0x0c4 // RW: power of two, 0 = off
export const UART_HEAD = 0x0c8 // RW: bytes written by the firmware
export const UART_TAIL = 0x0cc // RO: bytes taken by the device

// Trace: a ring of TRACE_ENTRY_BYTES entries (abi/rings.ts), overwritten when full.
export const TRACE_BASE = 0x100 // RW
export const TRACE_ENTRIES = 0x104 // RW: power of two, 0 = off
export const TRACE_HEAD = 0x108 // RW: entries written by the firmware, free-running

// Watchdog: the firmware must change KICK at least once in TIMEOUT_MS. The slice watchdog (fuel, or the clock) is always on.
export const WATCHDOG_TIMEOUT_MS = 0x140 // RW: 0 = off
export const WATCHDOG_KICK = 0x144 // RW

// Flash controller: one command at a time, carried out after the poll that changed COMMAND from 0;
// the device stores STATUS and then sets COMMAND back to 0.
export const FLASH_COMMAND = 0x180 // RW
export const FLASH_ADDRESS = 0x184 // RW: byte offset in flash
export const FLASH_BUFFER = 0x188 // RW: address in INIC memory
export const FLASH_LENGTH = 0x18c // RW: bytes
export const FLASH_STATUS = 0x190 // RO: FLASH_OK or an error
export const FLASH_BYTES = 0x194 // RO: size of the flash
export const FLASH_ERASE_BLOCK = 0x198 // RO: bytes
export const FLASH_WRITE_GRANULE = 0x19c // RO: bytes

export const FLASH_COMMAND_NONE = 0
export const FLASH_COMMAND_READ = 1
export const FLASH_COMMAND_WRITE = 2
export const FLASH_COMMAND_ERASE = 3
export const FLASH_OK = 0
export const FLASH_ERROR_RANGE = 1 // outside the flash or outside INIC memory
export const FLASH_ERROR_ALIGNMENT = 2 // not a multiple of the granule or block
export const FLASH_ERROR_NOT_ERASED = 3 // a write would set a bit from 0 to 1
export const FLASH_ERROR_COMMAND = 4 // unknown command
export const FLASH_ERROR_FAILED = 5 // the device failed (injected)
export const FLASH_ERROR_LOCKED = 6 // the boot loader has locked the place until the next power-on

// DMA engine, firmware side (abi/rings.ts).
export const FETCH_BASE = 0x1c0 // RW: ring of descriptors for host-to-card data
export const FETCH_ENTRIES = 0x1c4 // RW: power of two, 0 = off
export const DELIVER_BASE = 0x1c8 // RW: ring of descriptors for card-to-host data
export const DELIVER_ENTRIES = 0x1cc // RW
export const QUEUE_STATUS_BASE = 0x1d0 // RW: QUEUE_COUNT entries of QUEUE_STATUS_BYTES, written by the device
export const DMA_DROPPED = 0x1d4 // RO: records dropped because the host had no buffer, free-running

// MAC ports: MAC_PORTS blocks of MAC_STRIDE from MAC_BLOCK.
export const MAC_BLOCK = 0x200
export const MAC_STRIDE = 0x40
export const MAC_PORTS = 3
export const MAC_ADDRESS_LOW = 0x00 // RO: the address's last four bytes, as one big-endian number
export const MAC_ADDRESS_HIGH = 0x04 // RO: its first two bytes, likewise
export const MAC_LINK = 0x08 // RO: 1 = link up
export const MAC_RX_BASE = 0x0c // RW
export const MAC_RX_ENTRIES = 0x10 // RW: power of two, 0 = receiver off
export const MAC_TX_BASE = 0x14 // RW
export const MAC_TX_ENTRIES = 0x18 // RW: power of two, 0 = transmitter off
export const MAC_PROMISCUOUS = 0x1c // RW: 1 = accept every destination address
export const MAC_RX_FRAMES = 0x20 // RO: free-running counters
export const MAC_RX_DROPPED = 0x24 // RO: no descriptor was free, or the frame was longer than its buffer
export const MAC_TX_FRAMES = 0x28 // RO
export const MAC_TX_REFUSED = 0x2c // RO: a descriptor named memory outside the INIC's, or a length out of range

export const REGISTER_END = 0x2c0
