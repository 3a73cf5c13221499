import test from 'ava'
import fc from 'fast-check'
import { Farm } from '../emulator/farm.ts'
import type { WireOptions } from '../emulator/link/wire.ts'
import { TestPort, testFrame } from './emulator-kit.ts'

const A = Uint8Array.of(2, 0, 0, 0, 0, 0xa)
const B = Uint8Array.of(2, 0, 0, 0, 0, 0xb)
const C = Uint8Array.of(2, 0, 0, 0, 0, 0xc)
const BROADCAST = new Uint8Array(6).fill(255)

function pair(wire: WireOptions, seed = 'test') {
  const farm = new Farm({ clock: 'virtual', seed })
  const a = new TestPort('a')
  const b = new TestPort('b')
  const cable = farm.connect(a, b, { wire })
  return { farm, a, b, cable }
}

function numbered(n: number, length = 64): Uint8Array {
  const frame = testFrame(B, A, length)
  new DataView(frame.buffer).setUint32(14, n)
  return frame
}

const numberOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(14)

test('a wire without impairments delivers at once and unchanged', (t) => {
  const { a, b, cable } = pair({})
  const frame = numbered(1, 1514)
  a.send(frame, 0)
  t.deepEqual(b.frames[0].bytes, frame)
  t.is(cable.statistics().forward.bytes, 1514)
  t.is(cable.statistics().backward.frames, 0)
})

test('delay: every frame arrives that much later, in both directions', async (t) => {
  const { farm, a, b } = pair({ delayNs: 25_000 })
  a.send(numbered(1), 0)
  b.send(numbered(2), 0)
  await farm.run(24_999)
  t.is(b.frames.length + a.frames.length, 0)
  await farm.run(30_000)
  t.is(b.frames[0].timeNs, 25_000)
  t.is(a.frames[0].timeNs, 25_000)
})

test('rate: frames leave one behind the other, each for its bytes and 24 more', async (t) => {
  const { farm, a, b } = pair({ rateBps: 1e9 })
  a.send(numbered(1, 1514), 0)
  a.send(numbered(2, 1514), 0)
  a.send(numbered(3, 20), 0)
  await farm.run(1e6)
  const bits = (1514 + 24) * 8
  t.deepEqual(
    b.frames.map(({ timeNs }) => timeNs),
    [bits, 2 * bits, 2 * bits + 84 * 8],
  )
})

test('queue: what does not fit is dropped at the tail and counted', async (t) => {
  const { farm, a, b, cable } = pair({ rateBps: 1e6, queueFrames: 10 })
  for (let n = 0; n < 25; n++) a.send(numbered(n), 0)
  await farm.run(1e9)
  t.deepEqual(
    b.frames.map(({ bytes }) => numberOf(bytes)),
    Array.from({ length: 10 }, (_, n) => n),
  )
  t.is(cable.statistics().forward.overflowed, 15)
})

const CHANCES: {
  option: 'loss' | 'duplication' | 'reordering' | 'corruption'
  counter: 'lost' | 'duplicated' | 'reordered' | 'corrupted'
}[] = [
  { option: 'loss', counter: 'lost' },
  { option: 'duplication', counter: 'duplicated' },
  { option: 'reordering', counter: 'reordered' },
  { option: 'corruption', counter: 'corrupted' },
]

for (const { option, counter } of CHANCES) {
  test(`${option}: 2 % of 20,000 frames, the same ones for the same seed`, async (t) => {
    const run = async (seed: string) => {
      const { farm, a, b, cable } = pair({ [option]: 0.02, delayNs: 1000, reorderNs: 5000 }, seed)
      for (let n = 0; n < 20_000; n++) {
        a.send(numbered(n), farm.now())
        await farm.run(farm.now() + 1000)
      }
      await farm.run(farm.now() + 1e6)
      return { frames: b.frames, count: cable.statistics().forward[counter] }
    }
    const { frames, count } = await run('one')
    t.true(count > 320 && count < 480, String(count))
    t.deepEqual(await run('one'), { frames, count })
    t.not((await run('two')).count, count)
    const numbers = frames.map(({ bytes }) => numberOf(bytes))
    const late = numbers.filter((n, at) => at > 0 && n < numbers[at - 1]).length
    if (option === 'loss') t.is(frames.length, 20_000 - count)
    if (option === 'duplication') t.is(frames.length, 20_000 + count)
    if (option === 'reordering') t.true(late > count * 0.9, String(late))
    else if (option !== 'corruption') t.is(late, 0)
    if (option === 'corruption') {
      const changed = frames.filter(({ bytes }, n) => {
        const original = numbered(n)
        let bits = 0
        for (let i = 0; i < bytes.length; i++) for (let x = bytes[i] ^ original[i]; x !== 0; x &= x - 1) bits++
        if (bits > 1) t.fail('more than one bit')
        return bits === 1
      })
      t.is(changed.length, count)
    }
  })
}

test('jitter keeps the order', async (t) => {
  const { farm, a, b } = pair({ delayNs: 1000, jitterNs: 50_000 })
  for (let n = 0; n < 500; n++) {
    a.send(numbered(n), farm.now())
    await farm.run(farm.now() + 100)
  }
  await farm.run(farm.now() + 1e6)
  t.deepEqual(
    b.frames.map(({ bytes }) => numberOf(bytes)),
    Array.from({ length: 500 }, (_, n) => n),
  )
  t.true(new Set(b.frames.map(({ timeNs }, n) => timeNs - n * 100)).size > 50)
})

test('a cut cable takes the carrier and every frame; frames under way arrive; mended, it works again', async (t) => {
  const { farm, a, b, cable } = pair({ delayNs: 1000 })
  a.send(numbered(1), 0)
  cable.cut()
  t.false(a.carrier || b.carrier)
  a.send(numbered(2), 0)
  await farm.run(10_000)
  t.deepEqual(
    b.frames.map(({ bytes }) => numberOf(bytes)),
    [1],
  )
  t.is(cable.statistics().forward.cut, 1)
  cable.mend()
  t.true(a.carrier && b.carrier)
  a.send(numbered(3), farm.now())
  await farm.run(20_000)
  t.is(b.frames.length, 2)
})

test('impairments taken away: later frames do not overtake those under way', async (t) => {
  const { farm, a, b, cable } = pair({ delayNs: 1e6 })
  a.send(numbered(1), 0)
  cable.impair({ delayNs: 0 })
  a.send(numbered(2), 0)
  await farm.run(2e6)
  t.deepEqual(
    b.frames.map(({ bytes }) => numberOf(bytes)),
    [1, 2],
  )
  a.send(numbered(3), farm.now())
  t.is(b.frames.length, 3)
})

test('wire options out of range are refused by name', (t) => {
  const { cable } = pair({})
  for (const options of [
    { loss: 1.5 },
    { loss: -1 },
    { delayNs: -1 },
    { rateBps: 0.5 },
    { queueFrames: 0 },
    { queueFrames: 1.5 },
    { corruption: Number.NaN },
  ]) {
    t.throws(() => cable.impair(options), { instanceOf: RangeError, message: new RegExp(Object.keys(options)[0]) })
  }
})

test('random impairments never lose count of a frame', async (t) => {
  const chance = fc.double({ min: 0, max: 1, noNaN: true })
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        delayNs: fc.integer({ min: 0, max: 5000 }),
        jitterNs: fc.integer({ min: 0, max: 5000 }),
        rateBps: fc.constantFrom(0, 1e8, 1e10),
        loss: chance,
        duplication: chance,
        reordering: chance,
        corruption: chance,
        queueFrames: fc.integer({ min: 1, max: 64 }),
      }),
      async (wire) => {
        const { farm, a, b, cable } = pair(wire)
        for (let n = 0; n < 100; n++) {
          a.send(numbered(n), farm.now())
          if (n % 10 === 0) await farm.run(farm.now() + 3000)
        }
        await farm.run(farm.now() + 1e9)
        const { frames, lost, duplicated, overflowed } = cable.statistics().forward
        t.is(frames, 100)
        t.is(b.frames.length, frames - lost + duplicated - overflowed)
        for (const [n, { timeNs }] of b.frames.entries()) t.true(n === 0 || timeNs >= b.frames[n - 1].timeNs)
      },
    ),
    { numRuns: 50 },
  )
})

function lan(ports: number, addresses?: number) {
  const farm = new Farm({ clock: 'virtual' })
  const lan = farm.addSwitch('lan', addresses === undefined ? {} : { addresses })
  const stations = Array.from({ length: ports }, (_, n) => {
    const station = new TestPort(`s${n}`)
    farm.connect(station, lan.addPort())
    return station
  })
  const received = () => stations.map((station) => station.frames.splice(0).length)
  return { farm, lan, stations, received }
}

test('switch: floods what it does not know, learns, forwards, filters', (t) => {
  const { lan: it, stations, received } = lan(4)
  stations[0].send(testFrame(B, A), 0)
  t.deepEqual(received(), [0, 1, 1, 1], 'unknown: flooded')
  stations[1].send(testFrame(A, B), 1)
  t.deepEqual(received(), [1, 0, 0, 0], 'learned')
  stations[0].send(testFrame(B, A), 2)
  t.deepEqual(received(), [0, 1, 0, 0])
  stations[2].send(testFrame(BROADCAST, C), 3)
  t.deepEqual(received(), [1, 1, 0, 1], 'broadcast')
  stations[3].send(testFrame(Uint8Array.of(1, 0x80, 0xc2, 0, 0, 0x0e), C), 4)
  t.deepEqual(received(), [0, 0, 0, 0], 'reserved address')
  t.is(it.lookup(C, 5), 3, 'it moved')
  stations[3].send(testFrame(C, A), 6)
  t.deepEqual(received(), [0, 0, 0, 0], 'for the port it came from')
  t.like(it.statistics(), { flooded: 2, forwarded: 2, filtered: 2 })
})

test('switch: forgets after 300 s, and when a cable is cut', (t) => {
  const { farm, lan: it, stations, received } = lan(3)
  stations[0].send(testFrame(B, A), 0)
  t.is(it.lookup(A, 299e9), 0)
  t.is(it.lookup(A, 301e9), -1)
  received()
  stations[1].send(testFrame(A, B), 301e9)
  t.deepEqual(received(), [1, 0, 1])
  ;[...farm.cables.values()][1].cut()
  t.is(it.lookup(B, 302e9), -1)
})

test('switch: a full table evicts, and goes on', (t) => {
  const { lan: it, stations } = lan(2, 16)
  for (let n = 0; n < 1000; n++) stations[n & 1].send(testFrame(B, Uint8Array.of(2, 0, 0, 1, n >> 8, n & 255)), n)
  t.true(it.statistics().evicted > 900)
  let known = 0
  for (let n = 0; n < 1000; n++) if (it.lookup(Uint8Array.of(2, 0, 0, 1, n >> 8, n & 255), 1000) >= 0) known++
  t.true(known <= 16 && known >= 8, String(known))
})

test('switch: a loop of cables without delay does not hang', (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const one = farm.addSwitch('one')
  const two = farm.addSwitch('two')
  const station = new TestPort('s')
  farm.connect(station, one.addPort())
  farm.connect(one.addPort(), two.addPort())
  farm.connect(one.addPort(), two.addPort())
  station.send(testFrame(BROADCAST, A), 0)
  t.true(one.statistics().looped > 0)
})

test('cabling mistakes are told', (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const [a, b, c] = ['a', 'b', 'c'].map((name) => new TestPort(name))
  const cable = farm.connect(a, b)
  t.throws(() => farm.connect(a, c), { instanceOf: RangeError, message: 'Port a is plugged into cable a-b already.' })
  t.throws(() => farm.connect(c, c), { instanceOf: RangeError, message: /joined to itself/ })
  farm.disconnect(cable)
  t.false(a.carrier)
  a.send(testFrame(B, A), 0)
  t.is(b.frames.length, 0)
  farm.connect(a, c, { name: 'a-b' })
})
