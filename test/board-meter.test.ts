import test from 'ava'
import type { Board } from '../emulator/board.ts'
import type { HostedProcess, ProcessReport } from '../host/process.ts'
import { parseFarm } from '../toolchain/config/load-farm.ts'
import { BoardMeter } from '../toolchain/farm/board-meter.ts'
import { serversOnHub } from '../toolchain/farm/directory.ts'

/** What a main board says of itself. */

function farm(clock: 'real' | 'virtual', more: Record<string, unknown> = {}) {
  const server = (name: string, last: number, interfaces: object[]) => ({ name, interfaces, ...(last === 1 && more) })
  return parseFarm(
    JSON.stringify({
      clock,
      networks: [
        { name: 'lan-a', link: { rate: '10Gbit/s' } },
        { name: 'lan-b', link: { rate: '1Gbit/s' } },
        { name: 'sync', kind: 'hub', link: { rate: '40Gbit/s' } },
      ],
      servers: [
        server('server1', 1, [
          { network: 'lan-a', address: '10.0.0.1/24' },
          { network: 'lan-b', address: '10.0.1.1/24' },
          { network: 'sync' },
        ]),
        server('server2', 2, [
          { network: 'lan-a', address: '10.0.0.2/24' },
          { network: 'lan-b', address: '10.0.1.2/24' },
          { network: 'sync' },
        ]),
        server('alone', 3, [{ network: 'lan-a', address: '10.0.0.3/24' }]),
      ],
    }),
    'farm.json',
  )
}

/** A board that has sent so many bytes by its ports at a time. */
function fakeBoard(): { board: Board; sent: number[]; nowNs: number } {
  const fake = { sent: [0, 0, 0], nowNs: 0, board: undefined as unknown as Board }
  fake.board = {
    statistics: () => ({ ports: fake.sent.map((txBytes) => ({ txBytes })) }),
    hostClock: { now: () => fake.nowNs },
  } as unknown as Board
  return fake
}

function process(report: Partial<ProcessReport> | undefined): HostedProcess {
  return { report: async () => report } as HostedProcess
}

test('in real time it is measured', async (t) => {
  const config = farm('real')
  const fake = fakeBoard()
  let processes = [process({ cpuPermille: 300 }), process({ cpuPermille: 250 })]
  const meter = new BoardMeter({
    farm: config,
    server: config.servers[0]!,
    board: fake.board,
    processes: () => processes,
  })
  fake.nowNs = 500e6
  // The hub's bytes are not the clients'.
  fake.sent = [125_000_000, 25_000_000, 9_000_000_000]
  const state = await meter.measure()
  t.like(state, { cpuPermille: 550, bandwidthTotalKbit: 11_000_000, bandwidthAvailableKbit: 11_000_000 - 2_400_000 })
  t.true(state.memoryTotalKib > 0 && state.memoryAvailableKib > 0 && state.memoryAvailableKib <= state.memoryTotalKib)
  t.is(state.connections, undefined)
  // Who does not answer is busy, and more than all of it is not said.
  processes = [process(undefined), process({ cpuPermille: 250 })]
  fake.nowNs = 1000e6
  t.like(await meter.measure(), { cpuPermille: 1000, bandwidthAvailableKbit: 11_000_000 })
})

test('in virtual time it is what is configured, at once', (t) => {
  const config = farm('virtual')
  const { board } = fakeBoard()
  const meter = new BoardMeter({ farm: config, server: config.servers[0]!, board, processes: () => [] })
  t.deepEqual(meter.measure(), {
    cpuPermille: 0,
    memoryAvailableKib: 0,
    memoryTotalKib: 0,
    bandwidthAvailableKbit: 11_000_000,
    bandwidthTotalKbit: 11_000_000,
  })
})

for (const clock of ['real', 'virtual'] as const) {
  test(`what is pinned stands for what is measured, in ${clock} time`, async (t) => {
    const config = farm(clock)
    const server = { ...config.servers[0]!, pinnedState: { cpuPermille: 700, bandwidthTotalKbit: 5, connections: 3 } }
    const { board } = fakeBoard()
    const meter = new BoardMeter({ farm: config, server, board, processes: () => [] })
    t.like(await meter.measure(), {
      cpuPermille: 700,
      bandwidthAvailableKbit: 11_000_000,
      bandwidthTotalKbit: 5,
      connections: 3,
    })
  })
}

test('connections move to the servers on the hub, by names', (t) => {
  const config = farm('real')
  const [server1, , alone] = config.servers
  t.deepEqual(serversOnHub(config, server1!), { server1: '10.0.0.1', server2: '10.0.0.2' })
  t.deepEqual(serversOnHub(config, alone!), {})
})
