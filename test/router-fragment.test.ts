/** A router takes packets apart that do not fit (RFC 791 §3.2). */
import test from 'ava'
import { bytes, ipv4Frame, parse } from './support/packets.ts'
import { A, by, C, datagram, RouterLab, reassemble } from './support/router-lab.ts'

test('what is too big is taken apart: every fragment fits, and together they are the packet', async (t) => {
  const lab = await RouterLab.make()
  for (const size of [573, 576, 580, 1148, 1152, 1472]) {
    const frame = datagram(C.ip, { identification: 0x1000 + size, ttl: 9 }, bytes(size))
    const sent = await lab.send(0, frame)
    t.is(sent.length, Math.ceil((size + 8) / 576), `${size} bytes`)
    t.deepEqual(reassemble(sent), frame.subarray(34))
    for (const [index, { port, frame: piece }] of sent.entries()) {
      const { ipv4, problems, destinationMac } = parse(piece)
      t.deepEqual([port, destinationMac, ipv4!.ttl], [2, C.mac, 8])
      t.true(ipv4!.totalLength <= 600)
      t.is(ipv4!.moreFragments, index < sent.length - 1)
      t.deepEqual(
        problems.filter((problem) => problem.includes('IPv4')),
        [],
      )
    }
  }
  t.is(lab.router.statistics().fragmented, 6)
})

test('a fragment is taken apart further, wherever it stands', async (t) => {
  const lab = await RouterLab.make()
  for (const moreFragments of [true, false]) {
    const payload = bytes(1200)
    const sent = await lab.send(0, ipv4Frame({ ...by(A, C.ip), protocol: 17, offset: 800, moreFragments, payload }))
    const offsets = sent.map(({ frame }) => parse(frame).ipv4!.offset)
    t.deepEqual(offsets, [800, 800 + 576, 800 + 1152])
    t.deepEqual(reassemble(sent), payload)
    t.is(parse(sent.at(-1)!.frame).ipv4!.moreFragments, moreFragments)
  }
})

test('later fragments have the options that are to be copied, and no others', async (t) => {
  const lab = await RouterLab.make()
  const copied = [0x94, 4, 0, 0]
  for (const [options, later] of [
    [[...copied, 7, 7, 4, 0, 0, 0, 0, 0], copied],
    [[7, 7, 4, 0, 0, 0, 0, 1, ...copied, 0, 0, 0, 0], copied],
    [[7, 7, 4, 0, 0, 0, 0, 0], []],
    [
      [0x94, 3, 9, 0],
      [0x94, 3, 9, 0],
    ],
    [[0x94, 0, 0, 0], []],
    [[0x94, 44, 0, 0], []],
    [[7, 1, 1, 1], []],
  ]) {
    const frame = datagram(C.ip, { options: Uint8Array.from(options) }, bytes(1000))
    const sent = await lab.send(0, frame)
    const [first, second] = sent.map(({ frame: piece }) => parse(piece).ipv4!)
    t.deepEqual([...first.options], options)
    t.deepEqual([...second.options], later)
    t.true(first.totalLength <= 600 && second.totalLength <= 600)
    t.deepEqual(reassemble(sent), frame.subarray(34 + options.length))
  }
})
