/** Recordings: what a card was given, slice by slice, brings it to the same memory again. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { CARVE_BASE, REGISTER_BASE } from '../abi/memory.ts'
import { RandomStream } from '../emulator/random.ts'
import { FarmRecorder } from '../emulator/record/farm-recorder.ts'
import { RecordingError, RecordingFile, readRecording } from '../emulator/record/file.ts'
import { Recorder } from '../emulator/record/recorder.ts'
import { BoardReplay } from '../emulator/record/replay.ts'
import { openRecording } from '../toolchain/debug/session/open-recording.ts'
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

/** A short recording of one server, in a file of its own. */
async function recordFile(t: ExecutionContext): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'inic-record-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'farm.rec')
  const kit = new FarmKit({ servers: 1, memoryBytes: 16 << 20 })
  const file = new RecordingFile(path)
  const server = kit.server(1).board
  const recorder = new FarmRecorder(kit.farm, file.recorder, (board) => board === server)
  await traffic(kit, 50_000)
  recorder.close()
  file.close()
  await kit.close()
  return path
}

test('a file: read back, its end is the memory that was recorded, and a session goes through it both ways', async (t) => {
  const path = await recordFile(t)
  const { session, remark } = openRecording(path)
  t.is(remark, undefined)
  t.is(session.stop?.reason, 'entry')
  const established = session.addBreakpoint({ kind: 'tcp-state', to: 'ESTABLISHED' })
  const last = await session.reverseContinue()
  t.is(last.reason, 'state')
  t.deepEqual(last.breakpoints, [established.id])
  const { functionName, source } = session.frames(1)[0]!
  t.true(functionName.length > 0 && source !== undefined)
  await session.stepBack(1, 'over')
  t.is((await session.continue()).text, last.text)
  session.removeBreakpoint(established.id)
  t.regex((await session.continue()).text, /end of the recording/)
  t.throws(() => session.writeMemory(1, 0x20000, Uint8Array.of(1)), { message: /past cannot be changed/ })
  await session.detach()
})

test('a file that is foreign, damaged or cut off is refused, or read as far as it goes', async (t) => {
  const path = await recordFile(t)
  const whole = readFileSync(path)
  const read = (bytes: Uint8Array) => {
    writeFileSync(path, bytes)
    return readRecording(path)
  }
  t.throws(() => read(Buffer.from('GIF89a')), { message: /no recording/ })
  t.throws(() => read(whole.subarray(0, 10)), { message: /no recording/ })
  t.throws(() => read(Buffer.concat([whole.subarray(0, 8), Buffer.of(9), whole.subarray(9)])), { message: /version 9/ })
  const random = new RandomStream(new Uint8Array(16).fill(7))
  for (let n = 0; n < 200; n++) {
    const bytes = Buffer.from(whole)
    const at = 16 + random.below(bytes.length - 16)
    bytes[at] ^= 1 << random.below(8)
    let recording: ReturnType<typeof readRecording> | undefined
    try {
      recording = read(bytes)
    } catch (error) {
      t.true(error instanceof RecordingError, `byte ${at}: ${error}`)
    }
    // Padding, and a length that runs past the end, leave the rest readable.
    if (recording !== undefined) t.true(recording.remark !== undefined || recording.slice > 0, `byte ${at}`)
  }
  for (let n = 0; n < 50; n++) {
    const at = 16 + random.below(whole.length - 16)
    let message = ''
    try {
      message = read(whole.subarray(0, at)).remark ?? 'read as a whole'
    } catch (error) {
      message = (error as Error).message
    }
    t.regex(message, /breaks off at byte \d+|no board/, `cut at ${at}`)
  }
})
