import test from 'ava'
import { BUS_CARD_STATE, CARD_OFF, CARD_RUNNING, CARD_STOPPED } from '../abi/virtio.ts'
import type { BoardOptions } from '../emulator/board.ts'
import { BootError, type CrashReport, formatCrash } from '../emulator/board.ts'
import { availableCpu } from '../emulator/cpu/index.ts'
import { Flash } from '../emulator/devices/flash.ts'
import { Farm, type FarmOptions } from '../emulator/farm.ts'
import { firmware, TEST_MEMORY_BYTES, TestPort, testFrame } from './emulator-kit.ts'

const BROADCAST = Uint8Array.of(255, 255, 255, 255, 255, 255)
const PEER = Uint8Array.of(2, 0, 0, 0, 0, 9)

function virtualFarm(options: FarmOptions = {}): Farm {
  return new Farm({ clock: 'virtual', ...options })
}

const board = (farm: Farm, name: string, options: BoardOptions = {}) =>
  farm.addBoard(name, { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES, ...options })

/** What misbehave.as.ts does for each value of BOOT_FLAGS, and how the board has to end. */
const MISBEHAVIOUR: {
  title: string
  flags: number
  kind: CrashReport['kind']
  message: RegExp
  wasmtimeOnly?: boolean
}[] = [
  { title: 'a trap', flags: 1, kind: 'trap', message: /unreachable/ },
  { title: 'an endless loop', flags: 2, kind: 'watchdog', message: /cycles without returning/, wasmtimeOnly: true },
  { title: 'a store into a hole between registers', flags: 3, kind: 'bus-fault', message: /0x00001018/ },
  { title: 'a panic', flags: 4, kind: 'panic', message: /reason 7, detail 48879/ },
  { title: 'a ring outside memory', flags: 5, kind: 'bus-fault', message: /MAC 0 receive ring.*0xfffffff0/ },
  { title: 'a ring of three entries', flags: 6, kind: 'bus-fault', message: /MAC 0 receive ring.*3 descriptors/ },
  {
    title: 'a deliver descriptor outside memory',
    flags: 8,
    kind: 'bus-fault',
    message: /deliver descriptor.*0xfffff000/,
  },
  { title: 'a watchdog that is not kicked', flags: 9, kind: 'watchdog', message: /WATCHDOG_KICK.*10 ms/ },
  { title: 'a store into a hole of one word', flags: 10, kind: 'bus-fault', message: /0x0000110c/ },
  { title: 'a record without a beginning', flags: 11, kind: 'bus-fault', message: /not begun/ },
  { title: 'a UART ring of 100 bytes', flags: 15, kind: 'bus-fault', message: /UART/ },
  { title: 'a store outside memory', flags: 19, kind: 'trap', message: /out of bounds|outside INIC memory/ },
  {
    title: 'a store into the unmapped range',
    flags: 13,
    kind: 'bus-fault',
    message: /0x00008000|8000/,
    wasmtimeOnly: true,
  },
  { title: 'a store into the null guard', flags: 14, kind: 'bus-fault', message: /0x0*10\b|null/, wasmtimeOnly: true },
]

for (const cpu of ['v8', 'wasmtime'] as const) {
  for (const { title, flags, kind, message, wasmtimeOnly } of MISBEHAVIOUR) {
    if (wasmtimeOnly && cpu === 'v8') continue
    test(`${cpu}: ${title} stops the board alone, with a report`, async (t) => {
      if (cpu === 'wasmtime' && availableCpu() !== 'wasmtime') {
        t.log('skipped: the CPU addon is not built')
        t.pass()
        return
      }
      const farm = virtualFarm()
      const bad = board(farm, 'bad', { cpu })
      const good = board(farm, 'good', { cpu })
      const crashes: string[] = []
      farm.on('crash', (which) => crashes.push(which.name))
      const { bus } = bad.attachProcess({ ramBytes: 4096 })
      let interrupts = 0
      bus.onInterrupt(() => interrupts++)
      t.is(bus.read(BUS_CARD_STATE), CARD_OFF)
      const wasm = await firmware('misbehave')
      bad.powerOn({ wasm, boot: { flags } })
      good.powerOn({ wasm, boot: { flags: 20 } })
      t.is(bus.read(BUS_CARD_STATE), CARD_RUNNING)
      await farm.run(50e6)
      t.deepEqual(crashes, ['bad'])
      t.is(bad.crash?.kind, kind)
      t.regex(bad.crash!.message, message)
      t.is(bad.cardState, CARD_STOPPED)
      t.is(bus.read(BUS_CARD_STATE), CARD_STOPPED)
      t.true(interrupts >= 2, 'one for the power-on, one for the stop')
      t.is(good.cardState, CARD_RUNNING)
      t.true(good.slices > 8)
    })
  }
}

test('a receive buffer outside memory is found when a frame comes, and names the port', async (t) => {
  const farm = virtualFarm()
  const bad = board(farm, 'bad')
  const peer = new TestPort('peer')
  farm.connect(peer, bad.ports[0])
  bad.powerOn({ wasm: await firmware('misbehave'), boot: { flags: 7 } })
  await farm.run(10e6)
  t.is(bad.crash, null)
  peer.send(testFrame(BROADCAST, PEER), farm.now())
  await farm.run(20e6)
  t.regex(bad.crash!.message, /bad\.0: a receive descriptor names a buffer of 2048 bytes at 0xfffff000/)
})

test('a store at the end of the register page is found within a round of the slow search', async (t) => {
  const farm = virtualFarm()
  const bad = board(farm, 'bad')
  const cable = farm.connect(new TestPort('peer'), bad.ports[0])
  bad.powerOn({ wasm: await firmware('misbehave'), boot: { flags: 12 } })
  await farm.run(10e6)
  // Each time the carrier comes or goes is a slice.
  for (let n = 0; n < 2100 && bad.crash === null; n++) {
    if (cable.isCut) cable.mend()
    else cable.cut()
    await farm.run(farm.now() + 1e6)
  }
  t.regex(bad.crash!.message, /0x00001ff0/)
})

test('a crash report holds call stack with source, registers, trace and console', async (t) => {
  const farm = virtualFarm()
  const asked: (number | null)[] = []
  const bad = board(farm, 'bad', {
    resolveSource: (pc) => {
      asked.push(pc)
      return { file: 'misbehave.as.ts', line: 57, column: 17 }
    },
  })
  bad.powerOn({ wasm: await firmware('misbehave'), boot: { flags: 1 } })
  await farm.run(10e6)
  const report = bad.crash!
  t.is(report.frames[0].source!.line, 57)
  t.is(asked[0], report.frames[0].pc)
  t.regex(report.frames.map((frame) => frame.function).join(' '), /misbehave/)
  t.is(report.registers.find(({ name }) => name === 'SYS_ID')!.value, 0x43494e49)
  t.is(report.registers.find(({ name }) => name === 'TRACE_HEAD')!.value, 10)
  t.deepEqual(report.console, ['hello from reset', 'poll 0'])
  t.is(report.trace.length, 8)
  t.is(report.trace[0].text, 'boot, 2 bytes of memory')
  const text = formatCrash(report).join('\n')
  t.regex(text, /bad stopped at .*: trap: unreachable/)
  t.regex(text, /misbehave\.as\.ts:57:17/)
  t.regex(text, /SYS_ID=0x43494e49/)
  t.regex(text, /hello from reset/)
})

test('firmware that traps in its reset leaves a report; the board can be switched on again', async (t) => {
  const farm = virtualFarm()
  const bad = board(farm, 'bad')
  const wasm = await firmware('misbehave')
  bad.powerOn({ wasm, boot: { flags: 100 } })
  t.is(bad.crash!.kind, 'trap')
  t.deepEqual(bad.crash!.console, ['hello from reset'])
  bad.powerOn({ wasm, boot: { flags: 20 } })
  t.is(bad.crash, null)
  await farm.run(20e6)
  t.is(bad.cardState, CARD_RUNNING)
  t.throws(() => bad.powerOn({ wasm }), { instanceOf: BootError, message: /on already/ })
  bad.powerOff()
  t.is(bad.cardState, CARD_STOPPED)
  t.is(bad.memory, null)
})

test('console: lines, long lines, lost bytes, control characters', async (t) => {
  const farm = virtualFarm()
  const wasm = await firmware('misbehave')
  const lines: Record<string, string[]> = { b16: [], b17: [], b18: [] }
  farm.on('console', (from, line) => lines[from.name].push(line))
  for (const flags of [16, 17, 18]) board(farm, `b${flags}`).powerOn({ wasm, boot: { flags } })
  await farm.run(5e6)
  t.deepEqual(lines.b17, ['hello from reset', 'poll 0', '\\x1b[31mred\\x01'])
  t.deepEqual(
    lines.b18.map((line) => line.length),
    [16, 6, 256, 256, 88],
  )
  t.is(lines.b16[2], '[1976 bytes of console output lost]')
})

test('boot: the loader reads flash, its errors are told, and settings reach the firmware', async (t) => {
  const farm = virtualFarm()
  const wasm = await firmware('misbehave')
  const flash = Flash.inMemory(0x10000)
  const bootLoader = {
    load: (from: Flash) => {
      const magic = new Uint8Array(4)
      from.read(0, magic)
      return magic[0] === 0xff ? { error: 'slot 0 is empty' } : { wasm, description: 'test' }
    },
  }
  const it = board(farm, 'it', { flash, bootLoader, boot: { flags: 20, interfaces: [{ address: 0xc0000201 }] } })
  t.throws(() => it.powerOn(), { instanceOf: BootError, message: 'Board it does not boot: slot 0 is empty' })
  flash.write(0, new Uint8Array(8))
  it.powerOn()
  t.is(it.image!.description, 'test')
  t.is(it.memory!.words[(0x10000 + 256 + 4) / 4], 0xc0000201)
  t.is(it.memory!.words[(0x10000 + 256) / 4], 1)
  t.throws(() => board(farm, 'none').powerOn(), { instanceOf: BootError, message: /no flash to boot from/ })
  t.throws(() => board(farm, 'junk').powerOn({ wasm: new Uint8Array(100) }), {
    instanceOf: BootError,
    message: /junk does not boot/,
  })
  t.throws(() => board(farm, 'odd').powerOn({ wasm, boot: { mslMs: -1 } }), {
    instanceOf: BootError,
    message: /mslMs is -1/,
  })
  t.throws(() => board(farm, 'it'), { instanceOf: RangeError, message: /has a board it already/ })
})

test('MAC: filter, counters, ring order, frames too long and too short', async (t) => {
  const farm = virtualFarm()
  const echo = board(farm, 'echo')
  const peer = new TestPort('peer')
  farm.connect(peer, echo.ports[0])
  t.true(peer.carrier)
  echo.powerOn({ wasm: await firmware('echo') })
  await farm.run(1e6)
  const own = echo.ports[0].address
  const cases: [string, Uint8Array, boolean][] = [
    ['own address', testFrame(own, PEER), true],
    ['broadcast', testFrame(BROADCAST, PEER), true],
    ['multicast', testFrame(Uint8Array.of(1, 0, 0x5e, 0, 0, 1), PEER), true],
    ['another address', testFrame(Uint8Array.of(2, 0x49, 0x4e, 0, 9, 0), PEER), false],
    ['14 bytes', testFrame(own, PEER, 14), true],
    ['13 bytes', testFrame(own, PEER, 14).subarray(0, 13), false],
    ['2032 bytes', testFrame(own, PEER, 2032), true],
    ['2033 bytes', testFrame(own, PEER, 2033), false],
  ]
  for (const [title, frame, answered] of cases) {
    peer.frames.length = 0
    peer.send(frame, farm.now())
    await farm.run(farm.now() + 1e6)
    t.is(peer.frames.length, answered ? 1 : 0, title)
    if (!answered) continue
    const [{ bytes }] = peer.frames
    t.deepEqual(bytes.subarray(0, 6), PEER, title)
    t.deepEqual(bytes.subarray(6, 12), own, title)
    t.deepEqual(bytes.subarray(12), frame.subarray(12), title)
  }
  const { rxFrames, rxDropped, rxFiltered, txFrames, txRefused } = echo.ports[0].statistics()
  t.like(
    { rxFrames, rxDropped, rxFiltered, txFrames, txRefused },
    { rxFrames: 5, rxDropped: 1, rxFiltered: 2, txFrames: 5, txRefused: 0 },
  )
})

test('MAC: a burst longer than the ring is dropped at its tail and counted; the ring wraps', async (t) => {
  const farm = virtualFarm()
  const echo = board(farm, 'echo')
  const peer = new TestPort('peer')
  farm.connect(peer, echo.ports[0])
  echo.powerOn({ wasm: await firmware('echo') })
  await farm.run(1e6)
  for (let burst = 0; burst < 5; burst++) {
    peer.frames.length = 0
    for (let n = 0; n < 100; n++) {
      const frame = testFrame(echo.ports[0].address, PEER)
      frame[20] = n
      peer.send(frame, farm.now())
    }
    await farm.run(farm.now() + 1e6)
    t.deepEqual(
      peer.frames.map(({ bytes }) => bytes[20]),
      Array.from({ length: 64 }, (_, n) => n),
    )
  }
  t.is(echo.ports[0].rxDropped, 5 * 36)
})

test('frames that arrive while a slice lasts wait for its end', async (t) => {
  const farm = virtualFarm({ sliceNs: 10_000 })
  const echo = board(farm, 'echo')
  const peer = new TestPort('peer')
  farm.connect(peer, echo.ports[0])
  echo.powerOn({ wasm: await firmware('echo') })
  await farm.run(1e6)
  peer.send(testFrame(BROADCAST, PEER), farm.now())
  await farm.run(farm.now() + 5000)
  peer.send(testFrame(BROADCAST, PEER), farm.now())
  await farm.run(farm.now() + 30_000)
  t.deepEqual(
    peer.frames.map(({ timeNs }) => timeNs),
    [1e6 + 10_000, 1e6 + 20_000],
  )
})

test('RO registers are shown again, whatever the firmware stored', async (t) => {
  const farm = virtualFarm()
  const echo = board(farm, 'echo')
  const peer = new TestPort('peer')
  farm.connect(peer, echo.ports[0])
  echo.powerOn({ wasm: await firmware('echo') })
  await farm.run(1e6)
  echo.memory!.setRegister(0x000, 99)
  echo.memory!.setRegister(0x200, 99)
  peer.send(testFrame(BROADCAST, PEER), farm.now())
  await farm.run(farm.now() + 1e6)
  t.is(echo.memory!.register(0x000), 0x43494e49)
  t.is(echo.memory!.register(0x200), 0x4e000100)
})

test('listeners may switch the board that stopped on again, and off', async (t) => {
  const farm = virtualFarm()
  const wasm = await firmware('misbehave')
  const bad = board(farm, 'bad')
  let crashes = 0
  farm.on('crash', () => {
    crashes++
    if (crashes < 3) bad.powerOn({ wasm, boot: { flags: crashes === 1 ? 3 : 20 } })
  })
  bad.powerOn({ wasm, boot: { flags: 1 } })
  await farm.run(20e6)
  t.is(crashes, 2)
  t.is(bad.cardState, CARD_RUNNING)
  farm.on('console', () => bad.powerOff())
  bad.powerOff()
  bad.powerOn({ wasm })
  await farm.run(farm.now() + 20e6)
  t.is(bad.cardState, CARD_STOPPED)
  t.is(bad.crash, null)
})

test('frames between two ports of one board wait until its transmit and deliver rings are empty', async (t) => {
  const farm = virtualFarm()
  const both = board(farm, 'both')
  farm.connect(both.ports[0], both.ports[1])
  both.powerOn({ wasm: await firmware('echo'), boot: { interfaces: [{ address: 40 }, { address: 40 }] } })
  await farm.run(1e6)
  const [a, b] = both.ports.map((port) => port.statistics())
  t.is(both.crash, null)
  t.is(a.rxDropped + b.rxDropped, 0)
  t.true(a.rxFrames > 1000 && b.rxFrames > 1000)
})
