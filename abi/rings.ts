/**
 * Descriptor rings in INIC memory. All four kinds (MAC receive, MAC transmit, DMA fetch, DMA deliver) share one
 * 16-byte descriptor. Entries are a power of two, the index wraps by mask, and each side keeps its own index: whoever
 * owns the descriptor may touch it and its buffer.
 *
 *      0         4         8         12        16
 *      ├─ADDRESS─┼─LENGTH──┼─INFO────┼─OWNER───┤
 *
 * Devices act only between polls, in this order: transmit, deliver, fetch, receive.
 *
 * A ring's base is a multiple of 4 and it has at most 65536 entries; one that is moved, resized or switched on again starts at its
 * first descriptor. A bad base or a bad receive, fetch or deliver descriptor is a bus fault; a bad transmit descriptor is refused and counted.
 */

export const DESCRIPTOR_BYTES = 16
export const DESCRIPTOR_ADDRESS = 0 // u32, buffer in INIC memory
export const DESCRIPTOR_LENGTH = 4 // u32, bytes
export const DESCRIPTOR_INFO = 8 // u32, see each ring
export const DESCRIPTOR_OWNER = 12 // u32, OWNER_FIRMWARE or OWNER_DEVICE

export const OWNER_FIRMWARE = 0
export const OWNER_DEVICE = 1

// MAC receive: the firmware gives a buffer with LENGTH = its capacity; the device stores the frame (no FCS), sets
// LENGTH to its bytes and INFO to 0, and gives the descriptor back.
// MAC transmit: the firmware gives a frame (14..MAC_MAXIMUM_FRAME bytes); the device gives the descriptor back once sent.
export const MAC_MINIMUM_FRAME = 14
/** Largest frame that a port carries, bytes, without FCS. */
export const MAC_MAXIMUM_FRAME = 2032

// DMA fetch: the firmware gives empty buffers with LENGTH = capacity. The device copies each device-readable chain
// into as many buffers as it needs, in order; INFO = queue index | FIRST | LAST, LENGTH = bytes stored. A queue that is disabled
// in the middle of a record ends it with LAST and LENGTH 0; its epoch tells that the record is not whole.
// DMA deliver: the firmware gives pieces; those from one with FIRST to the next with LAST form one record, written
// into one device-writable chain of the queue in INFO. The device always takes all that it owns: a record for a queue
// without a free chain is dropped and counted, so the firmware looks at the queue status first.
export const INFO_QUEUE_MASK = 0xff
export const INFO_FIRST = 0x100
export const INFO_LAST = 0x200

// Queues: each process on the main board has a queue set; queue index = set * QUEUES_PER_SET + one of these.
export const QUEUE_SETS = 16
export const QUEUES_PER_SET = 4
export const QUEUE_COUNT = 64
export const QUEUE_CONTROL = 0 // host to card: commands
export const QUEUE_TX = 1 // host to card: stream data and what must stay in order with it
export const QUEUE_RX = 2 // card to host: received data
export const QUEUE_EVENT = 3 // card to host: everything else

// Queue status, one entry a queue.
export const QUEUE_STATUS_BYTES = 16
export const QUEUE_STATUS_AVAILABLE = 0 // u32: chains ever made available since the queue was enabled, free-running
export const QUEUE_STATUS_STATE = 4 // u32: one of QUEUE_STATE_*
export const QUEUE_STATUS_EPOCH = 8 // u32: counts how often the queue was enabled or disabled; a change means that the process is new or gone
export const QUEUE_STATUS_BUFFER_BYTES = 12 // u32: bytes that the device may write in each chain (RX and event queues)

export const QUEUE_STATE_DISABLED = 0
export const QUEUE_STATE_ENABLED = 1
export const QUEUE_STATE_BROKEN = 2 // the driver broke a rule of virtio; nothing moves until it disables the queue

// Trace entry: u32 time (low 32 bits of TIMER_NOW, ns), u16 event (abi/trace.ts), u16 a, u32 b, u32 c.
export const TRACE_ENTRY_BYTES = 16
