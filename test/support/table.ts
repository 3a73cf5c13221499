import test, { type ExecutionContext } from 'ava'
import { boardNetwork, cardNetwork, type Network, nodeNetwork } from './network.ts'

/** A case of a table of behaviour. */
export type Case = (t: ExecutionContext, network: Network) => Promise<void> | void

const NETWORKS: Record<string, () => Network> = { node: nodeNetwork, card: cardNetwork, board: boardNetwork }

/**
 * Runs every case three times: on Node's own modules over the machine's loopback, which proves that the expectation is Node's; on our
 * sockets over two cards without firmware; and over two emulated boards with it.
 */
export function runTable(cases: Readonly<Record<string, Case>>): void {
  for (const [kind, make] of Object.entries(NETWORKS)) {
    // Two emulated boards in real time want the processor for themselves.
    const define = kind === 'board' ? test.serial : test
    for (const [name, run] of Object.entries(cases)) {
      define(`${kind}: ${name}`, async (t) => {
        const network = make()
        try {
          await run(t, network)
        } finally {
          await network.close()
        }
      })
    }
  }
}
