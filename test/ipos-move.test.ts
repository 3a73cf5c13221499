/** A live migration, frame by frame: what leaves when, and what a frame that is lost costs. */
import type { Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { PLACEMENT_LOCAL_ONLY } from '../abi/boot.ts'
import type { Inspector } from '../emulator/link/interposer.ts'
import { FarmKit } from './support/farm-kit.ts'
import { type IposKind, parse } from './support/packets.ts'

const PORT = 80
const WIRE = { delayNs: 1000, rateBps: 1e10 }
/** Application state, of one frame and of more. */
const SMALL = { text: 'x'.repeat(1000) }
const LARGE = { text: 'x'.repeat(4000) }
const LARGE_FRAMES = 3

/** A frame that a board sent: an ipOS packet, or a segment to or from the client with bytes. */
interface Sent {
  readonly from: string
  readonly what: string
  readonly ms: number
}

/** Notes what boards send, and loses the first frames of some kinds. */
class Watch implements Inspector {
  readonly sent: Sent[] = []
  readonly lose = new Map<IposKind, number>()

  inspect(...[interposer, passage, frame, nowNs]: Parameters<Inspector['inspect']>): [] | null {
    if (passage !== 'in') return null
    const { ipos, tcp } = parse(frame)
    const from = interposer.name.split('.')[0]!
    if (tcp !== undefined && ipos === undefined && tcp.payload.length > 0)
      this.sent.push({ from, what: Buffer.from(tcp.payload).toString(), ms: nowNs / 1e6 })
    if (ipos === undefined || ipos.kind === 'state') return null
    this.sent.push({ from, what: ipos.kind, ms: nowNs / 1e6 })
    const left = this.lose.get(ipos.kind) ?? 0
    this.lose.set(ipos.kind, left - 1)
    return left > 0 ? [] : null
  }

  names(): string[] {
    return this.sent.map(({ from, what }) => `${from} ${what}`)
  }

  at(what: string): number {
    return this.sent.find((frame) => frame.what === what)!.ms
  }
}

/** A connection that server 1 serves writes `before` and moves to server 2 at once, with state `given`; there `after` is written. */
async function move(
  t: ExecutionContext,
  before: string,
  after: string,
  given: object = SMALL,
  lose: [IposKind, number][] = [],
): Promise<Watch> {
  const watch = new Watch()
  const farm = new FarmKit({
    servers: 2,
    countFuel: true,
    lan: WIRE,
    hub: WIRE,
    inspector: watch,
    boot: { placement: PLACEMENT_LOCAL_ONLY },
  })
  t.teardown(() => farm.close())
  const [first, second] = farm.servers
  const connected = new Promise<Socket>((resolve) => first!.net.createServer({ noDelay: true }, resolve).listen(PORT))
  const states: unknown[] = []
  const listener = second!.net.createServer()
  listener.on('migrate', (socket, state) => {
    states.push(state)
    socket.write(after)
  })
  listener.listen(PORT)
  await farm.settle()
  const client = farm.client().net.connect({ host: first!.address, port: PORT })
  client.on('connect', () => client.write('request'))
  let received = ''
  client.on('data', (data) => {
    received += data
  })
  let socket: Socket | undefined
  void connected.then((it) => {
    socket = it
  })
  await farm.until(() => socket !== undefined)
  socket!.resume()
  await farm.run(100)
  watch.sent.length = 0
  for (const [kind, count] of lose) watch.lose.set(kind, count)
  if (before) socket!.write(before)
  void socket!.migrate(second!.name, given)
  t.true(await farm.until(() => received === before + after, 1000))
  t.deepEqual(states, [given])
  return watch
}

test('the state is on its way while the connection packet is answered', async (t) => {
  const watch = await move(t, '', 'from the second')
  const expected = ['server1 connect', 'server1 application', 'server2 acknowledge', 'server1 commit']
  t.deepEqual(watch.names().slice(0, 4), expected)
})

test('what was written before the move leaves by the old server', async (t) => {
  const watch = await move(t, 'from the first', 'from the second')
  t.deepEqual(watch.names().slice(0, 2), ['server1 from the first', 'server1 connect'])
  t.true(watch.names().includes('server1 data'), 'unacknowledged, it goes along too')
  t.is(watch.names().filter((name) => name.endsWith('from the first')).length, 1)
})

const LOSSES: [name: string, lose: [IposKind, number][], maximumMs: number][] = [
  ['nothing', [], 0.1],
  ['a piece of the state', [['application', 1]], 0.1],
  ['all of the state, once', [['application', LARGE_FRAMES]], 0.1],
  // It is known without it that all is there.
  ['the commit', [['commit', 1]], 0.1],
  ['the answer to the commit', [['committed', 1]], 0.1],
  ['the acknowledgement', [['acknowledge', 1]], 5],
  ['the connection packet', [['connect', 1]], 5],
  ['the bytes', [['data', 1]], 0.1],
]
for (const [name, lose, maximumMs] of LOSSES) {
  test(`lost: ${name}`, async (t) => {
    const watch = await move(t, 'from the first, ', 'from the second', LARGE, lose)
    const gapMs = watch.at('from the second') - watch.at('from the first, ')
    t.true(gapMs < maximumMs, `${gapMs} ms`)
  })
}
