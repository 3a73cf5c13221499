/** Drivers that break the rules of virtio break their own queues, and nothing else. */
import test from 'ava'
import fc from 'fast-check'
import {
  QUEUE_CONTROL,
  QUEUE_EVENT,
  QUEUE_RX,
  QUEUE_STATE_BROKEN,
  QUEUE_STATE_DISABLED,
  QUEUE_STATE_ENABLED,
  QUEUE_TX,
} from '../abi/rings.ts'
import {
  BUS_FEATURES,
  BUS_QUEUE_AVAIL,
  BUS_QUEUE_DESC,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_SIZE,
  BUS_QUEUE_USED,
  BUS_WINDOW_BYTES,
  QUEUE_ERROR_ADDRESS,
  QUEUE_ERROR_CHAIN,
  QUEUE_ERROR_INDEX,
  QUEUE_ERROR_INDIRECT,
  QUEUE_ERROR_LAYOUT,
  QUEUE_ERROR_NONE,
  QUEUE_ERROR_SHORT,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../abi/virtio.ts'
import { Farm } from '../emulator/farm.ts'
import { TestQueue } from './dma-driver.ts'
import { firmware, TEST_MEMORY_BYTES } from './emulator-kit.ts'
import { BUFFERS, bench, RAM_BYTES } from './support/dma-bench.ts'

/** Each breaks a rule of virtio in its own way; queue TX unless told otherwise. */
const HOSTILE: { title: string; error: number; queue?: number; features?: number; offer(queue: TestQueue): void }[] = [
  {
    title: 'a buffer outside RAM',
    error: QUEUE_ERROR_ADDRESS,
    offer: (q) => q.add([{ address: RAM_BYTES - 8, length: 16 }], false),
  },
  {
    title: 'a buffer that ends beyond 4 GiB',
    error: QUEUE_ERROR_ADDRESS,
    offer: (q) => q.add([{ address: 0xfffffff0, length: 0xffffffff }], false),
  },
  {
    title: 'an address above 4 GiB',
    error: QUEUE_ERROR_ADDRESS,
    offer: (q) => {
      q.setDescriptor(0, 0x1_0000_0000n + BigInt(BUFFERS), 16, 0)
      q.offer(0)
    },
  },
  {
    title: 'a chain that loops',
    error: QUEUE_ERROR_CHAIN,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 1, VIRTQ_DESC_F_NEXT, 1)
      q.setDescriptor(1, BUFFERS, 1, VIRTQ_DESC_F_NEXT, 0)
      q.offer(0)
    },
  },
  {
    title: 'a next descriptor outside the table',
    error: QUEUE_ERROR_CHAIN,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_NEXT, 16)
      q.offer(0)
    },
  },
  { title: 'a head outside the table', error: QUEUE_ERROR_INDEX, offer: (q) => q.offer(16) },
  { title: 'an available index that ran ahead', error: QUEUE_ERROR_INDEX, offer: (q) => q.setAvailIdx(17) },
  { title: 'an available index that went back', error: QUEUE_ERROR_INDEX, offer: (q) => q.setAvailIdx(0xffff) },
  {
    title: 'a writable buffer where the card reads',
    error: QUEUE_ERROR_CHAIN,
    offer: (q) => q.add([{ address: BUFFERS, length: 16 }], true),
  },
  {
    title: 'a record without a header',
    error: QUEUE_ERROR_SHORT,
    offer: (q) => q.add([{ address: BUFFERS, length: 15 }], false),
  },
  {
    title: 'a record of more than 64 KiB and a header',
    error: QUEUE_ERROR_CHAIN,
    offer: (q) =>
      q.add(
        [
          { address: 0, length: 65552 },
          { address: 0, length: 1 },
        ],
        false,
      ),
  },
  {
    title: 'an indirect table that was not negotiated',
    error: QUEUE_ERROR_INDIRECT,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_INDIRECT)
      q.offer(0)
    },
  },
  {
    title: 'an indirect table within one',
    error: QUEUE_ERROR_INDIRECT,
    features: VIRTIO_F_INDIRECT_DESC,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_INDIRECT)
      q.setDescriptor(0, BUFFERS + 16, 16, VIRTQ_DESC_F_INDIRECT, 0, BUFFERS)
      q.offer(0)
    },
  },
  {
    title: 'an indirect table of 17 bytes',
    error: QUEUE_ERROR_INDIRECT,
    features: VIRTIO_F_INDIRECT_DESC,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 17, VIRTQ_DESC_F_INDIRECT)
      q.offer(0)
    },
  },
  {
    title: 'an indirect table outside RAM',
    error: QUEUE_ERROR_INDIRECT,
    features: VIRTIO_F_INDIRECT_DESC,
    offer: (q) => {
      q.setDescriptor(0, RAM_BYTES - 16, 32, VIRTQ_DESC_F_INDIRECT)
      q.offer(0)
    },
  },
  {
    title: 'an indirect table followed by a descriptor',
    error: QUEUE_ERROR_INDIRECT,
    features: VIRTIO_F_INDIRECT_DESC,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT, 1)
      q.offer(0)
    },
  },
  {
    title: 'a next descriptor outside the indirect table',
    error: QUEUE_ERROR_INDIRECT,
    features: VIRTIO_F_INDIRECT_DESC,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_INDIRECT)
      q.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_NEXT, 1, BUFFERS)
      q.offer(0)
    },
  },
  {
    title: 'a read-only buffer where the card writes',
    error: QUEUE_ERROR_CHAIN,
    queue: QUEUE_RX,
    offer: (q) => q.add([{ address: BUFFERS, length: 256 }], false),
  },
  {
    title: 'a buffer shorter than BUFFER_BYTES',
    error: QUEUE_ERROR_SHORT,
    queue: QUEUE_RX,
    offer: (q) => q.add([{ address: BUFFERS, length: 255 }], true),
  },
  {
    title: 'a read-only buffer in the middle of a chain to write',
    error: QUEUE_ERROR_CHAIN,
    queue: QUEUE_EVENT,
    offer: (q) => {
      q.setDescriptor(0, BUFFERS, 200, VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT, 1)
      q.setDescriptor(1, BUFFERS, 200, 0)
      q.offer(0)
    },
  },
]

for (const { title, error, queue = QUEUE_TX, features = 0, offer } of HOSTILE) {
  test(`hostile driver: ${title} breaks its queue alone`, async (t) => {
    const it = await bench({ features })
    const { board, queues, settle } = it
    // A neighbour that keeps to the rules.
    const other = board.attachProcess({ ramBytes: RAM_BYTES })
    const [, otherTx, otherRx] = [0, 1, 2].map((index) => new TestQueue(other.bus, index, 0x8000 * index))
    otherTx.enable()
    otherRx.enable()
    offer(queues[queue])
    queues[queue].kick()
    // What is written is looked at when there is something to write.
    if (queue !== QUEUE_TX) {
      const from = queues[queue === QUEUE_RX ? QUEUE_TX : QUEUE_CONTROL]
      from.add([{ address: BUFFERS + 0x1000, length: 16 }], false)
      from.kick()
    }
    await settle()
    t.is(queues[queue].state, QUEUE_STATE_BROKEN)
    t.is(queues[queue].error, error)
    t.true(it.interrupts >= 1)
    for (const neighbour of queues) if (neighbour !== queues[queue]) t.is(neighbour.state, QUEUE_STATE_ENABLED)
    otherRx.add([{ address: BUFFERS, length: 256 }], true)
    otherTx.add([{ address: BUFFERS + 0x1000, length: 16 }], false)
    otherTx.kick()
    await settle()
    t.is(otherRx.takeUsed().length, 1)
    t.is(board.crash, null)
    // Disabled and enabled again, the queue works.
    queues[queue].write(BUS_QUEUE_ENABLE, 0)
    t.is(queues[queue].state, QUEUE_STATE_DISABLED)
    t.is(queues[queue].error, QUEUE_ERROR_NONE)
  })
}

const LAYOUTS: { title: string; register: number; value: number }[] = [
  { title: 'no size', register: BUS_QUEUE_SIZE, value: 0 },
  { title: 'a size that is no power of two', register: BUS_QUEUE_SIZE, value: 12 },
  { title: 'a size above 4096', register: BUS_QUEUE_SIZE, value: 8192 },
  { title: 'a table that is not aligned', register: BUS_QUEUE_DESC, value: 8 },
  { title: 'a table outside RAM', register: BUS_QUEUE_DESC, value: RAM_BYTES - 240 },
  { title: 'an available ring that is not aligned', register: BUS_QUEUE_AVAIL, value: 0x1001 },
  { title: 'an available ring outside RAM', register: BUS_QUEUE_AVAIL, value: RAM_BYTES - 36 },
  { title: 'a used ring that is not aligned', register: BUS_QUEUE_USED, value: 0x1002 },
  { title: 'a used ring at the end of the address space', register: BUS_QUEUE_USED, value: 0xfffffffc },
]

for (const { title, register, value } of LAYOUTS) {
  test(`layout: ${title} is refused`, async (t) => {
    const { queues } = await bench({ enable: false })
    const tx = queues[QUEUE_TX]
    tx.enable()
    tx.write(BUS_QUEUE_ENABLE, 0)
    tx.write(register, value)
    tx.write(BUS_QUEUE_ENABLE, 1)
    t.is(tx.state, QUEUE_STATE_BROKEN)
    t.is(tx.error, QUEUE_ERROR_LAYOUT)
  })
}

test('random queues and descriptors never throw, never stop the card, never write outside their buffers', async (t) => {
  const wasm = await firmware('records')
  const word = fc.oneof(
    fc.integer({ min: 0, max: 0xffffffff }),
    fc.integer({ min: 0, max: RAM_BYTES }),
    fc.integer({ min: 0, max: 64 }),
  )
  const descriptor = fc.record({
    address: word,
    high: fc.constantFrom(0, 0, 0, 1),
    length: word,
    flags: fc.integer({ min: 0, max: 7 }),
    next: fc.integer({ min: 0, max: 20 }),
  })
  const action = fc.oneof(
    fc.record({
      kind: fc.constant('descriptor' as const),
      queue: fc.integer({ min: 0, max: 3 }),
      slot: fc.integer({ min: 0, max: 15 }),
      descriptor,
    }),
    fc.record({
      kind: fc.constant('offer' as const),
      queue: fc.integer({ min: 0, max: 3 }),
      head: fc.integer({ min: 0, max: 17 }),
    }),
    fc.record({
      kind: fc.constant('index' as const),
      queue: fc.integer({ min: 0, max: 3 }),
      index: fc.integer({ min: 0, max: 65535 }),
    }),
    fc.record({
      kind: fc.constant('write' as const),
      register: fc.integer({ min: 0, max: BUS_WINDOW_BYTES / 4 - 1 }),
      value: word,
    }),
    fc.record({ kind: fc.constant('kick' as const), queue: fc.integer({ min: 0, max: 3 }) }),
    fc.constant({ kind: 'run' as const }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 60 }), fc.boolean(), async (actions, events) => {
      const farm = new Farm({ clock: 'virtual' })
      const board = farm.addBoard('board', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
      const { bus } = board.attachProcess({ ramBytes: RAM_BYTES })
      const neighbour = board.attachProcess({ ramBytes: 4096 })
      board.powerOn({ wasm })
      bus.write(BUS_FEATURES, VIRTIO_F_INDIRECT_DESC | (events ? VIRTIO_F_EVENT_IDX : 0))
      const queues = [0, 1, 2, 3].map((index) => new TestQueue(bus, index, 0x8000 * index))
      for (const queue of queues) queue.enable()
      for (const it of actions) {
        if (it.kind === 'descriptor') {
          const { address, high, length, flags, next } = it.descriptor
          queues[it.queue].setDescriptor(it.slot, BigInt(address) | (BigInt(high) << 32n), length, flags, next)
        } else if (it.kind === 'offer') queues[it.queue].offer(it.head)
        else if (it.kind === 'index') queues[it.queue].setAvailIdx(it.index)
        else if (it.kind === 'kick') queues[it.queue].kick()
        else if (it.kind === 'run') await farm.run(farm.now() + 20_000)
        else {
          try {
            bus.write(it.register * 4, it.value)
          } catch (error) {
            if (!(error instanceof RangeError)) throw error
          }
        }
      }
      for (const queue of queues) queue.kick()
      await farm.run(farm.now() + 200_000)
      if (board.crash !== null) throw new Error(board.crash.message)
      if (neighbour.bus.ram.some((byte) => byte !== 0)) throw new Error('the neighbour was written to')
    }),
    { numRuns: 300 },
  )
  t.pass()
})
