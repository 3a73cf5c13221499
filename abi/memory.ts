/**
 * INIC memory map.
 *
 *   0x0000_0000 ┌──────────────────────────────┐
 *               │ null guard (4 KiB)           │ a store here is a bus fault
 *   0x0000_1000 ├──────────────────────────────┤
 *               │ register page (4 KiB)        │ abi/registers.ts; a store into a hole is a bus fault
 *   0x0000_2000 ├──────────────────────────────┤
 *               │ unmapped (56 KiB)            │ a store here is a bus fault
 *   0x0001_0000 ├──────────────────────────────┤
 *               │ boot information (4 KiB)     │ abi/boot.ts; written by the boot loader
 *   0x0001_1000 ├──────────────────────────────┤
 *               │ firmware directory (4 KiB)   │ where the inspector finds tables and pools
 *   0x0001_2000 ├──────────────────────────────┤
 *               │ firmware constants (56 KiB)  │ data segments of firmware.wasm
 *   0x0002_0000 ├──────────────────────────────┤
 *               │ state, rings, pools          │ carved by the firmware at reset
 *   memoryBytes └──────────────────────────────┘
 *
 * Addresses are offsets in the firmware's linear memory, in bytes.
 */

export const NULL_GUARD_BASE = 0x0000
export const NULL_GUARD_BYTES = 0x1000

export const REGISTER_BASE = 0x1000
export const REGISTER_PAGE_BYTES = 0x1000

export const UNMAPPED_BASE = 0x2000
export const UNMAPPED_BYTES = 0xe000

export const BOOT_BASE = 0x10000
export const BOOT_BYTES = 0x1000

export const DIRECTORY_BASE = 0x11000
export const DIRECTORY_BYTES = 0x1000

export const CONSTANTS_BASE = 0x12000

export const CARVE_BASE = 0x20000

/** INIC memory, bytes, when a board does not say otherwise. */
export const DEFAULT_MEMORY_BYTES = 0x4000000
/** The least that the firmware boots with, bytes. */
export const MINIMUM_MEMORY_BYTES = 0x1000000

// Firmware directory: u32 magic, u32 entry count, then entries of 16 bytes { kind, base, stride, count }.
export const DIRECTORY_MAGIC = 0x52494449 // "IDIR"
export const DIRECTORY_COUNT = 4
export const DIRECTORY_ENTRIES = 16
export const DIRECTORY_ENTRY_BYTES = 16
export const DIRECTORY_MAXIMUM_ENTRIES = 128
/**
 * u32: DIRECTORY_*, or from CONSTANTS_BASE on the address of the name of the class whose rows these are: UTF-16, its length in bytes in the
 * u32 before it. The first is how ipOS names its tables, the second is for tables of anybody's own.
 */
export const DIRECTORY_ENTRY_KIND = 0
export const DIRECTORY_ENTRY_BASE = 4
export const DIRECTORY_ENTRY_STRIDE = 8
export const DIRECTORY_ENTRY_COUNT = 12

/** The firmware's one state block; class `State`. */
export const DIRECTORY_STATE = 1
/** Pool of transmission control blocks; class `Tcb`. Row 0 is never used. */
export const DIRECTORY_TCBS = 2
/** Pool of TIME-WAIT records; class `TimeWait`. */
export const DIRECTORY_TIME_WAITS = 3
/** Listening Sockets table (FIG. 12); class `Listener`. */
export const DIRECTORY_LISTENERS = 4
/** UDP endpoints; class `UdpEndpoint`. */
export const DIRECTORY_UDP_ENDPOINTS = 5
/** ARP cache; class `ArpEntry`. */
export const DIRECTORY_ARP = 6
/** Interfaces; class `Interface`. */
export const DIRECTORY_INTERFACES = 7
/** Chunk pool; raw bytes. */
export const DIRECTORY_CHUNKS = 8
/** Counters; class `Counters`. */
export const DIRECTORY_COUNTERS = 9
/** Forward table (FIG. 12), and what else the ipOS layer keeps of connections that are elsewhere; class `Forward`. Row 0 is never used. */
export const DIRECTORY_FORWARDS = 10
/** Endpoints that move or have come from elsewhere; class `Migration`. Row 0 is never used. */
export const DIRECTORY_MIGRATIONS = 11
/** Server State table (FIG. 12): row 0 is this server, then the peers; class `Server`. */
export const DIRECTORY_SERVERS = 12
/** Application Information table (FIG. 12); class `Application`. */
export const DIRECTORY_APPLICATIONS = 13
/** Ports that the servers of the farm serve; class `Service`. */
export const DIRECTORY_SERVICES = 14
