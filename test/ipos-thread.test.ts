/** Thread ports (docs/protocol.md): no two servers propose the same, and one of a moment ago is not taken. */
import type { Socket } from 'node:net'
import test from 'ava'
import { PLACEMENT_LOCAL_ONLY } from '../abi/boot.ts'
import { REFUSE_THREAD_TAKEN } from '../abi/ipos.ts'
import type { Copy, Inspector } from '../emulator/link/interposer.ts'
import { FarmKit } from './support/farm-kit.ts'
import { type IposPacket, parse } from './support/packets.ts'

const PORT = 80
const WIRE = { delayNs: 1000 }
/** Between two moves. */
const REST_MS = 1
/** By which a connection packet comes a second time: the endpoint has gone on. */
const LATE_MS = 20

interface Sent {
  readonly from: string
  readonly ipos: IposPacket
}

/** Notes what servers say to each other; connection packets come twice if it is told so. */
class Watch implements Inspector {
  readonly sent: Sent[] = []
  repeats = false

  inspect(...[interposer, passage, frame]: Parameters<Inspector['inspect']>): readonly Copy[] | null {
    const { ipos } = parse(frame)
    if (passage !== 'in' || ipos === undefined || ipos.kind === 'state') return null
    this.sent.push({ from: interposer.name.split('.')[0]!, ipos })
    return this.repeats && ipos.kind === 'connect' ? [{}, { delayNs: LATE_MS * 1e6 }] : null
  }
}

/** A connection to the first of three servers, that moves along `route`. Returns how moves failed. */
async function travel(farm: FarmKit, route: readonly string[]): Promise<unknown[]> {
  const failed: unknown[] = []
  let moves = 0
  const serve = (socket: Socket) => {
    socket.on('error', () => {})
    farm.client().board.hostClock.schedule(REST_MS * 1e6, () => {
      const to = route[moves++]
      if (to !== undefined) socket.migrate(to, {}).catch((error: unknown) => failed.push(error))
    })
  }
  for (const server of farm.servers) {
    const listener = server.net.createServer(serve)
    listener.on('migrate', serve)
    listener.listen(PORT)
  }
  await farm.settle()
  const client = farm.client().net.connect({ host: farm.server(1).address, port: PORT })
  client.on('connect', () => client.write('request'))
  await farm.until(() => moves > route.length, 10_000)
  await farm.run(2 * LATE_MS)
  return failed
}

function kit(watch: Watch): FarmKit {
  return new FarmKit({ servers: 3, lan: WIRE, hub: WIRE, inspector: watch, boot: { placement: PLACEMENT_LOCAL_ONLY } })
}

test('servers share the numbers by their places: what one has used no other proposes', async (t) => {
  const watch = new Watch()
  const farm = kit(watch)
  t.teardown(() => farm.close())
  const round = ['server2', 'server3', 'server2', 'server1', 'server3', 'server1']
  t.deepEqual(await travel(farm, [...round, ...round, ...round]), [])
  const proposals = watch.sent.flatMap(({ from, ipos }) => (ipos.kind === 'connect' ? [{ from, ...ipos }] : []))
  t.is(proposals.length, 3 * round.length)
  for (const { from, thread } of proposals) t.is(`server${(thread % 3) + 1}`, from)
  t.is(new Set(proposals.map(({ thread }) => thread)).size, proposals.length)
})

test('a number of a moment ago is refused, and that disturbs nobody', async (t) => {
  const watch = new Watch()
  watch.repeats = true
  const farm = kit(watch)
  t.teardown(() => farm.close())
  t.deepEqual(await travel(farm, ['server2', 'server1', 'server2', 'server3']), [])
  const refusals = watch.sent.flatMap(({ ipos }) => (ipos.kind === 'refuse' ? [ipos] : []))
  t.is(refusals.length, 3, 'the endpoint is where the last one led')
  for (const { reason } of refusals) t.is(reason, REFUSE_THREAD_TAKEN)
})
