/** Recordings: what a card was given, slice by slice, brings it to the same memory again. */
import test from 'ava'
import { CARVE_BASE, REGISTER_BASE } from '../abi/memory.ts'
import { FarmRecorder } from '../emulator/record/farm-recorder.ts'
import { Recorder } from '../emulator/record/recorder.ts'
import { BoardReplay } from '../emulator/record/replay.ts'
import { FarmKit, type Node } from './support/farm-kit.ts'

/** Where `b` first differs from `a`, or -1. The registers are the devices' too. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1
  return a.findIndex((byte, at) => byte !== b[at] && (at < REGISTER_BASE || at >= CARVE_BASE))
}

async function traffic(kit: FarmKit, bytes: number): Promise<void> {
  const content = Buffer.alloc(bytes, 'recorded ')
  for (const server of kit.servers) {
    const listener = server.net.createServer((socket) => {
      socket.end(content)
    })
    listener.on('migrate', (socket: { end(bytes: Buffer): void }) => socket.end(content))
    listener.listen(80)
  }
  await kit.settle()
  const done = Array.from({ length: 6 }, (_, n) => {
    const socket = kit.client().net.connect(80, kit.server((n % kit.servers.length) + 1).address)
    let received = 0
    let closed = false
    socket.on('data', (data: Buffer) => {
      received += data.length
    })
    socket.on('close', () => {
      closed = true
    })
    socket.write('go')
    return () => closed && received === bytes
  })
  const finished = await kit.until(() => done.every((isDone) => isDone()), 60_000)
  if (!finished) throw new Error('the traffic does not end')
}

test('a farm with connections placed on other servers, and loss: every board replays to the memory that it has', async (t) => {
  const kit = new FarmKit({ servers: 3, lan: { delayNs: 20_000, loss: 0.01 }, seed: 'record' })
  const { recorder } = new FarmRecorder(kit.farm, new Recorder())
  await traffic(kit, 200_000)
  const boards: Node[] = [...kit.servers, ...kit.clients]
  for (const { board, name } of boards) {
    const life = recorder.lifeOf(board)!
    const replay = new BoardReplay(life, recorder.log)
    const slices = replay.seek(Number.POSITIVE_INFINITY)
    t.is(slices, board.slices, `${name}: slices of ${recorder.slice}`)
    // What devices have stored since the last slice belongs to the next one.
    const { ranges, count } = board.memory!.journal!
    for (let n = 0; n < count; n += 2) {
      const [from, to] = [ranges[n], ranges[n] + ranges[n + 1]]
      replay.memory.bytes.set(board.memory!.bytes.subarray(from, to), from)
    }
    t.is(firstDifference(replay.memory.bytes, board.memory!.bytes), -1, name)
    replay.dispose()
  }
  await kit.close()
})
