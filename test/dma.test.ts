import test from 'ava'
import fc from 'fast-check'
import type { Bus } from '../abi/bus.ts'
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
  BUS_INTERRUPT_ACK,
  BUS_INTERRUPT_STATUS,
  BUS_QUEUE_AVAIL,
  BUS_QUEUE_DESC,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_SIZE,
  BUS_QUEUE_STATE,
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
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../abi/virtio.ts'
import type { Board } from '../emulator/board.ts'
import { Farm } from '../emulator/farm.ts'
import { TestQueue } from './dma-driver.ts'
import { firmware, TEST_MEMORY_BYTES } from './emulator-kit.ts'

const RAM_BYTES = 0x40000
const BUFFERS = 0x20000

interface Bench {
  farm: Farm
  board: Board
  bus: Bus
  set: number
  /** Control, TX, RX, event. */
  queues: TestQueue[]
  interrupts: number
  settle(): Promise<void>
}

/** A board with the record echo firmware and one process; all queues enabled unless told otherwise. */
async function bench({
  features = 0,
  shared = false,
  enable = true,
  size = 16,
  bufferBytes = 256,
} = {}): Promise<Bench> {
  const farm = new Farm({ clock: 'virtual' })
  const board = farm.addBoard('board', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  const { bus, set } = board.attachProcess({ ramBytes: RAM_BYTES, shared })
  board.powerOn({ wasm: await firmware('records') })
  const queues = [0, 1, 2, 3].map((index) => new TestQueue(bus, index, 0x8000 * index, size, bufferBytes))
  const result: Bench = {
    farm,
    board,
    bus,
    set,
    queues,
    interrupts: 0,
    settle: async () => {
      await farm.run(farm.now() + 1e6)
    },
  }
  await result.settle()
  bus.onInterrupt(() => result.interrupts++)
  bus.write(BUS_FEATURES, features)
  if (enable) for (const queue of queues) queue.enable()
  await result.settle()
  return result
}

function bytesAt(bus: Bus, address: number, length: number): number[] {
  return [...bus.ram.subarray(address, address + length)]
}

function fill(bus: Bus, address: number, length: number, seed = 1): number[] {
  const bytes = Array.from({ length }, (_, n) => (n * 7 + seed) & 0xff)
  bus.ram.set(bytes, address)
  return bytes
}

for (const shared of [false, true]) {
  test(`records go round, gathered and scattered, in ${shared ? 'shared' : 'private'} RAM`, async (t) => {
    const { bus, queues, settle, board } = await bench({ shared, bufferBytes: 64 })
    const [, tx, rx] = queues
    const sent = fill(bus, BUFFERS, 40)
    rx.add(
      [
        { address: BUFFERS + 0x1000, length: 5 },
        { address: BUFFERS + 0x1101, length: 100 },
      ],
      true,
    )
    tx.add(
      [
        { address: BUFFERS, length: 3 },
        { address: BUFFERS + 3, length: 0 },
        { address: BUFFERS + 3, length: 37 },
      ],
      false,
    )
    tx.kick()
    await settle()
    t.deepEqual(tx.takeUsed(), [{ id: 0, length: 0 }])
    t.deepEqual(rx.takeUsed(), [{ id: 0, length: 40 }])
    t.deepEqual([...bytesAt(bus, BUFFERS + 0x1000, 5), ...bytesAt(bus, BUFFERS + 0x1101, 35)], sent)
    t.is(bytesAt(bus, BUFFERS + 0x1101 + 35, 1)[0], 0, 'nothing behind the record')
    t.like(board.statistics().dma, { fetched: 1, fetchedBytes: 40, delivered: 1, deliveredBytes: 40, dropped: 0 })
  })
}

test('a record longer than a fetch buffer arrives in one piece', async (t) => {
  const { bus, queues, settle } = await bench({ bufferBytes: 65552 })
  const [, tx, rx] = queues
  const sent = fill(bus, 0x20000, 65552)
  rx.add(
    [
      { address: 0x30010, length: 0xfff0 },
      { address: 0x1f000, length: 32 },
    ],
    true,
  )
  tx.add([{ address: 0x20000, length: 65552 }], false)
  tx.kick()
  await settle()
  t.deepEqual(rx.takeUsed(), [{ id: 0, length: 65552 }])
  t.deepEqual([...bytesAt(bus, 0x30010, 0xfff0), ...bytesAt(bus, 0x1f000, 32)], sent)
})

test('a queue that is disabled in the middle of a record ends it early', async (t) => {
  const { bus, board, queues, settle } = await bench({ bufferBytes: 65552 })
  const [, tx, rx] = queues
  // Without buffers for it the firmware holds on to the pieces of 64 KiB, and the rest waits in RAM.
  for (let n = 0; n < 3; n++) tx.add([{ address: 0x20000, length: 65552 }], false)
  tx.kick()
  await settle()
  t.is(tx.takeUsed().length, 1)
  tx.write(BUS_QUEUE_ENABLE, 0)
  bus.ram.fill(0, 0, 0x20000)
  tx.enable()
  tx.nextDescriptor = 0
  rx.add([{ address: 0x20000, length: 65552 }], true)
  rx.add([{ address: 0x20000, length: 65552 }], true)
  rx.kick()
  await settle()
  t.is(board.crash, null)
})

test('rings wrap: a thousand records through queues of four', async (t) => {
  const { bus, queues, settle } = await bench({ size: 4, bufferBytes: 64 })
  const [, tx, rx] = queues
  for (let n = 0; n < 1000; n++) {
    const sent = fill(bus, BUFFERS, 16 + (n % 48), n)
    const to = BUFFERS + 0x1000
    bus.ram.fill(0, to, to + 64)
    rx.add([{ address: to, length: 64 }], true)
    tx.add([{ address: BUFFERS, length: sent.length }], false)
    tx.kick()
    await settle()
    const used = rx.takeUsed()
    if (used.length !== 1 || used[0].length !== sent.length) t.fail(`record ${n}: ${JSON.stringify(used)}`)
    if (Buffer.compare(bus.ram.subarray(to, to + sent.length), Uint8Array.from(sent)) !== 0)
      t.fail(`record ${n} changed`)
    tx.takeUsed()
  }
  t.is(rx.usedIdx, 1000)
})

test('a record waits for a buffer, and the doorbell of the buffer wakes the card', async (t) => {
  const { bus, queues, settle } = await bench()
  const [control, , , event] = queues
  fill(bus, BUFFERS, 20)
  control.add([{ address: BUFFERS, length: 20 }], false)
  control.kick()
  await settle()
  t.deepEqual(event.takeUsed(), [])
  event.add([{ address: BUFFERS + 0x100, length: 256 }], true)
  event.kick()
  await settle()
  t.deepEqual(event.takeUsed(), [{ id: 0, length: 20 }])
})

test('interrupts: one for a batch, none where the driver asks for none, status and acknowledgement', async (t) => {
  const it = await bench()
  const { bus, queues, settle } = it
  const [, tx, rx] = queues
  const batch = () => {
    for (let n = 0; n < 4; n++) rx.add([{ address: BUFFERS + 0x1000 + 0x100 * n, length: 256 }], true)
    for (let n = 0; n < 4; n++) tx.add([{ address: BUFFERS, length: 16 }], false)
    tx.kick()
  }
  batch()
  await settle()
  // One for what was fetched and delivered in the first slice, one for what the second delivered.
  t.true(it.interrupts >= 1 && it.interrupts <= 2, String(it.interrupts))
  t.is(bus.read(BUS_INTERRUPT_STATUS), (1 << QUEUE_TX) | (1 << QUEUE_RX))
  bus.write(BUS_INTERRUPT_ACK, 1 << QUEUE_TX)
  t.is(bus.read(BUS_INTERRUPT_STATUS), 1 << QUEUE_RX)
  it.interrupts = 0
  rx.availFlags = VIRTQ_AVAIL_F_NO_INTERRUPT
  tx.availFlags = VIRTQ_AVAIL_F_NO_INTERRUPT
  batch()
  await settle()
  t.is(it.interrupts, 0)
  t.is(rx.takeUsed().length, 8)
})

test('EVENT_IDX: an interrupt when the used index passes used_event, and avail_event asks for the next doorbell', async (t) => {
  const it = await bench({ features: VIRTIO_F_EVENT_IDX })
  const { queues, settle } = it
  const [, tx, rx] = queues
  rx.usedEvent = 2
  tx.usedEvent = 1000
  for (let n = 0; n < 8; n++) rx.add([{ address: BUFFERS + 0x1000 + 0x100 * n, length: 256 }], true)
  for (let n = 0; n < 4; n++) {
    tx.add([{ address: BUFFERS, length: 16 }], false)
    tx.kick()
    await settle()
    t.is(it.interrupts, n < 2 ? 0 : 1, `after record ${n}`)
    t.is(tx.availEvent, n + 1)
  }
})

test('NO_NOTIFY: set while the card has no room for what is offered, cleared once it looked at everything', async (t) => {
  const { bus, queues, settle } = await bench({ size: 256, bufferBytes: 64 })
  const [, tx, rx] = queues
  fill(bus, BUFFERS, 16)
  for (let n = 0; n < 200; n++) tx.add([{ address: BUFFERS, length: 16 }], false)
  tx.kick()
  await settle()
  // The fetch ring has 64 entries, and the firmware holds them: nothing can be delivered.
  t.is(tx.usedFlags, VIRTQ_USED_F_NO_NOTIFY)
  t.is(tx.takeUsed().length, 64)
  for (let n = 0; n < 200; n++) rx.add([{ address: BUFFERS + 0x1000, length: 64 }], true)
  rx.kick()
  await settle()
  t.is(rx.takeUsed().length, 200)
  t.is(tx.usedFlags, 0)
})

test('indirect descriptors: after direct ones, and alone', async (t) => {
  const { bus, queues, settle } = await bench({ features: VIRTIO_F_INDIRECT_DESC })
  const [, tx, rx] = queues
  const sent = fill(bus, BUFFERS, 48)
  const table = BUFFERS + 0x4000
  rx.add([{ address: BUFFERS + 0x1000, length: 256 }], true)
  tx.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_NEXT, 1)
  tx.setDescriptor(1, table, 32, VIRTQ_DESC_F_INDIRECT)
  tx.setDescriptor(0, BUFFERS + 16, 16, VIRTQ_DESC_F_NEXT, 1, table)
  tx.setDescriptor(1, BUFFERS + 32, 16, 0, 0, table)
  tx.offer(0)
  tx.kick()
  await settle()
  t.is(tx.error, QUEUE_ERROR_NONE)
  t.deepEqual(bytesAt(bus, BUFFERS + 0x1000, 48), sent)
})

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

test('offsets that are no register throw; read-only registers ignore what is stored', async (t) => {
  const { bus } = await bench()
  for (const offset of [
    -4,
    1,
    2,
    0x19,
    0x24,
    0x3c,
    0x110,
    0x13c,
    BUS_WINDOW_BYTES,
    0x1000,
    0xffffffff,
    0.5,
    Number.NaN,
  ]) {
    t.throws(() => bus.read(offset), { instanceOf: RangeError }, String(offset))
    t.throws(() => bus.write(offset, 1), { instanceOf: RangeError }, String(offset))
  }
  bus.write(BUS_QUEUE_STATE, 7)
  t.is(bus.read(BUS_QUEUE_STATE), QUEUE_STATE_ENABLED)
  bus.write(BUS_FEATURES, VIRTIO_F_EVENT_IDX)
  t.is(bus.read(BUS_FEATURES), 0, 'features are settled before a queue is enabled')
})

test('processes come and go: queue sets run out, come back, and an old bus does nothing', async (t) => {
  const { board, bus, queues, set, settle } = await bench()
  const others = Array.from({ length: 15 }, () => board.attachProcess({ ramBytes: 4096 }))
  t.throws(() => board.attachProcess({ ramBytes: 4096 }), { instanceOf: RangeError, message: /16 queue sets/ })
  for (const ramBytes of [0, 100, -4096, 2 ** 31, Number.NaN])
    t.throws(() => board.attachProcess({ ramBytes }), { instanceOf: RangeError })
  board.detachProcess(set)
  t.throws(() => board.detachProcess(set), { instanceOf: RangeError })
  const again = board.attachProcess({ ramBytes: 4096 })
  t.is(again.set, set)
  queues[QUEUE_TX].enable()
  queues[QUEUE_TX].kick()
  await settle()
  t.is(bus.read(BUS_QUEUE_STATE), QUEUE_STATE_DISABLED)
  t.is(others[14].set, 15)
  t.is(board.crash, null)
})

test('the card stops: queues are disabled and the process told', async (t) => {
  const it = await bench()
  it.board.powerOff()
  await it.settle()
  t.is(it.interrupts, 1)
  for (const queue of it.queues) t.is(queue.state, QUEUE_STATE_DISABLED)
  it.board.powerOn({ wasm: await firmware('records') })
  for (const queue of it.queues) queue.enable()
  await it.settle()
  it.queues[QUEUE_RX].add([{ address: BUFFERS, length: 256 }], true)
})

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
