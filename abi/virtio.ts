/**
 * Split virtqueues in main-board RAM (virtio 1.2 §2.7) and the register window through which the driver sets them up.
 * The window and the RAM belong to one queue set: a process sees its own alone. Addresses are offsets in that RAM.
 */

// §2.7.5 descriptor table: 16 bytes each, le64 addr, le32 len, le16 flags, le16 next. The high half of addr must be 0.
export const VIRTQ_DESC_BYTES = 16
export const VIRTQ_DESC_ADDR = 0
export const VIRTQ_DESC_LEN = 8
export const VIRTQ_DESC_FLAGS = 12
export const VIRTQ_DESC_NEXT = 14
export const VIRTQ_DESC_F_NEXT = 1
export const VIRTQ_DESC_F_WRITE = 2
export const VIRTQ_DESC_F_INDIRECT = 4

// §2.7.6 available ring: le16 flags, le16 idx, le16 ring[size], le16 used_event. Aligned to 2.
export const VIRTQ_AVAIL_FLAGS = 0
export const VIRTQ_AVAIL_IDX = 2
export const VIRTQ_AVAIL_RING = 4
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1

// §2.7.8 used ring: le16 flags, le16 idx, { le32 id, le32 len } ring[size], le16 avail_event. Aligned to 4.
export const VIRTQ_USED_FLAGS = 0
export const VIRTQ_USED_IDX = 2
export const VIRTQ_USED_RING = 4
export const VIRTQ_USED_ELEM_BYTES = 8
export const VIRTQ_USED_F_NO_NOTIFY = 1

/** Largest queue size, entries; a power of two (§2.7: at most 32768). */
export const VIRTQ_MAXIMUM_SIZE = 4096
/** Longest chain that the device follows, descriptors, direct or in one indirect table. */
export const VIRTQ_MAXIMUM_CHAIN = 64

// Feature bits (§6). Accepted: event suppression by index and indirect descriptors.
export const VIRTIO_F_INDIRECT_DESC = 0x10000000 // bit 28
export const VIRTIO_F_EVENT_IDX = 0x20000000 // bit 29

// Register window of one queue set, byte offsets. Queue q of the set has a block of BUS_QUEUE_STRIDE at q * BUS_QUEUE_STRIDE.
export const BUS_QUEUE_STRIDE = 0x40
export const BUS_QUEUE_DESC = 0x00 // RW, address of the descriptor table, aligned to 16
export const BUS_QUEUE_AVAIL = 0x04 // RW, aligned to 2
export const BUS_QUEUE_USED = 0x08 // RW, aligned to 4
export const BUS_QUEUE_SIZE = 0x0c // RW, entries
export const BUS_QUEUE_BUFFER_BYTES = 0x10 // RW, bytes writable in each chain (RX and event queues)
export const BUS_QUEUE_ENABLE = 0x14 // RW, 1 enables, 0 disables and forgets
export const BUS_QUEUE_NOTIFY = 0x18 // W, doorbell: the available ring has grown
export const BUS_QUEUE_STATE = 0x1c // RO, QUEUE_STATE_*
export const BUS_QUEUE_ERROR = 0x20 // RO, QUEUE_ERROR_*: why the queue is broken
export const BUS_FEATURES = 0x100 // RW, accepted feature bits; set before a queue is enabled
export const BUS_INTERRUPT_STATUS = 0x104 // RO, bit q = queue q has new used entries
export const BUS_INTERRUPT_ACK = 0x108 // W, clears the bits stored
export const BUS_CARD_STATE = 0x10c // RO, CARD_*
export const BUS_WINDOW_BYTES = 0x140

export const CARD_OFF = 0 // not booted
export const CARD_RUNNING = 1
export const CARD_STOPPED = 2 // crashed or halted: sockets are gone

export const QUEUE_ERROR_NONE = 0
export const QUEUE_ERROR_LAYOUT = 1 // a ring lies outside RAM or is not aligned, or the size is no power of two
export const QUEUE_ERROR_INDEX = 2 // the available index ran ahead by more than the queue's size, or named no descriptor
export const QUEUE_ERROR_CHAIN = 3 // a chain is too long, loops, or has a descriptor of the wrong direction
export const QUEUE_ERROR_ADDRESS = 4 // a buffer lies outside RAM
export const QUEUE_ERROR_INDIRECT = 5 // an indirect table is malformed or was not negotiated
export const QUEUE_ERROR_SHORT = 6 // a writable chain is shorter than BUS_QUEUE_BUFFER_BYTES, or a readable one has no header
