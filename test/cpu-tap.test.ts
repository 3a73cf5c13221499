import { createSocket } from 'node:dgram'
import { existsSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { openTap, type Tap, type TapOptions } from '../emulator/cpu/tap.ts'

/** A network for tests (RFC 2544, RFC 5737) that this machine is not on. */
const NETWORK = ['198.18.77.', '203.0.113.', '198.51.100.'].find(
  (prefix) => !Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address.startsWith(prefix))),
)
const KERNEL = `${NETWORK}1`
const PEER = `${NETWORK}2`
const isRoot = process.getuid?.() === 0
const withTap = hasAddon() && isRoot && NETWORK && existsSync('/dev/net/tun') ? test.serial : test.skip

const PEER_MAC = [2, 0, 0, 0, 0, 2]
const ETHERTYPE_ARP = 0x0806
const ETHERTYPE_IPV4 = 0x0800

/** Opens an interface and collects what the kernel sends, every frame read as soon as it can be. */
function collect(t: ExecutionContext, options: Omit<TapOptions, 'onReadable'>) {
  const frames: Buffer[] = []
  let calls = 0
  const tap: Tap = openTap(`inic${process.pid % 100000}`, {
    ...options,
    onReadable: () => {
      calls++
      const buffer = Buffer.alloc(2048)
      for (let length = tap.read(buffer, 0); length > 0; length = tap.read(buffer, 0)) {
        frames.push(Buffer.from(buffer.subarray(0, length)))
      }
    },
  })
  t.teardown(() => tap.close())
  return { tap, frames, calls: () => calls }
}

/** Waits for a frame that matches. */
async function arrival(frames: readonly Buffer[], matches: (frame: Buffer) => boolean): Promise<Buffer | undefined> {
  for (let n = 0; n < 200; n++) {
    const frame = frames.find(matches)
    if (frame) return frame
    await sleep(10)
  }
  return undefined
}

const etherType = (frame: Buffer) => frame.readUInt16BE(12)

withTap('the kernel talks to a TAP interface', async (t) => {
  const { tap, frames, calls } = collect(t, { mtuBytes: 1400, address: `${KERNEL}/24`, up: true })
  t.is(tap.name, `inic${process.pid % 100000}`)
  t.is(tap.mtuBytes, 1400)
  const socket = createSocket('udp4')
  t.teardown(() => socket.close())
  socket.send('hello', 9, PEER)
  const request = await arrival(frames, (frame) => etherType(frame) === ETHERTYPE_ARP && frame.readUInt16BE(20) === 1)
  if (!request) return t.fail('no ARP request came')
  t.is(request.subarray(38, 42).join('.'), PEER)

  const reply = Buffer.from(request)
  reply.set(request.subarray(6, 12), 0)
  reply.set(PEER_MAC, 6)
  reply.writeUInt16BE(2, 20)
  reply.set(PEER_MAC, 22)
  reply.set(request.subarray(38, 42), 28)
  reply.set(request.subarray(22, 32), 32)
  const room = Buffer.alloc(100)
  reply.copy(room, 10)
  t.true(tap.write(room, 10, 42))
  const isHello = (frame: Buffer) => etherType(frame) === ETHERTYPE_IPV4 && frame.subarray(-5).toString() === 'hello'
  const datagram = await arrival(frames, isHello)
  t.truthy(datagram, 'what was sent follows')
  t.deepEqual([...(datagram?.subarray(0, 6) ?? [])], PEER_MAC)

  const before = calls()
  await sleep(50)
  t.true(calls() - before <= 1, 'and nobody is called without cause')
  t.is(tap.read(room, 0), 0)
})

withTap('is gone when closed', async (t) => {
  const { tap } = collect(t, {})
  const path = `/sys/class/net/${tap.name}`
  t.true(existsSync(path))
  t.false(tap.write(Buffer.alloc(60), 0, 60), 'the interface is down')
  tap.close()
  tap.close()
  t.throws(() => tap.read(Buffer.alloc(100), 0), { code: 'EBADF' })
  t.throws(() => tap.write(Buffer.alloc(100), 0, 60), { code: 'EBADF' })
  for (let n = 0; n < 100 && existsSync(path); n++) await sleep(10)
  t.false(existsSync(path))
})

withTap('a reader that does not drain is not called again', async (t) => {
  let calls = 0
  const tap = openTap(`inic${process.pid % 100000}`, { address: `${KERNEL}/24`, up: true, onReadable: () => calls++ })
  t.teardown(() => tap.close())
  const socket = createSocket('udp4')
  t.teardown(() => socket.close())
  for (let n = 0; n < 5; n++) {
    socket.send('x', 9, `${NETWORK}${n + 10}`)
    await sleep(20)
  }
  t.is(calls, 1)
  const buffer = Buffer.alloc(2048)
  while (tap.read(buffer, 0) > 0);
  socket.send('x', 9, `${NETWORK}99`)
  for (let n = 0; n < 100 && calls < 2; n++) await sleep(10)
  t.is(calls, 2)
})

withTap('refuses what cannot be', async (t) => {
  const { tap } = collect(t, {})
  const onReadable = () => {}
  t.throws(() => openTap(tap.name, { onReadable }), { code: 'EBUSY', message: new RegExp(tap.name) })
  t.throws(() => openTap('a-name-longer-than-15', { onReadable }), { code: 'ERR_INVALID_ARG_VALUE' })
  for (const address of [KERNEL, `${KERNEL}/33x`, 'here/24']) {
    t.throws(() => openTap('inic-x', { onReadable, address }), { code: 'ERR_INVALID_ARG_VALUE', message: /no address/ })
  }
  t.throws(() => tap.read(Buffer.alloc(10), 11), { code: 'EINVAL' })
  t.throws(() => tap.write(Buffer.alloc(10), 5, 6), { code: 'EINVAL' })
  t.throws(() => openTap('lo', { onReadable }), { code: 'EINVAL', message: /is it a TAP interface/ })
})

withTap('says what it needs', (t) => {
  process.seteuid?.(65534)
  try {
    const error = t.throws(() => openTap('inic-x', { onReadable: () => {} }))
    t.regex((error as NodeJS.ErrnoException).code ?? '', /EPERM|EACCES/)
    t.regex(error.message, /needs/)
  } finally {
    process.seteuid?.(0)
  }
})
