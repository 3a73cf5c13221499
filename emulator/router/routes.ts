import { maskOf } from './wire.ts'

/** A way to a prefix. Addresses are numbers: 192.0.2.1 is 0xc0000201. */
export interface Route {
  readonly network: number
  /** Bits. */
  readonly prefix: number
  /** Index of the port that leads there. */
  readonly port: number
  /** The next router, or 0 where the prefix is the port's own network. */
  readonly via: number
}

/** Routes by longest prefix; among equals the first that was given wins, so that connected networks come before static routes. */
export class RouteTable {
  readonly routes: readonly Route[]
  readonly #networks: Int32Array
  readonly #masks: Int32Array
  readonly #ports: Uint8Array

  constructor(routes: readonly Route[]) {
    this.routes = routes.toSorted((a, b) => b.prefix - a.prefix)
    this.#masks = Int32Array.from(this.routes, ({ prefix }) => maskOf(prefix))
    this.#networks = Int32Array.from(this.routes, ({ network }, n) => network & this.#masks[n])
    this.#ports = Uint8Array.from(this.routes, ({ port }) => port)
  }

  /** Index of the best route over a port whose bit in `usable` is set, or -1. */
  find(destination: number, usable: number): number {
    const networks = this.#networks
    for (let n = 0; n < networks.length; n++) {
      if ((destination & this.#masks[n]) === networks[n] && (usable >>> this.#ports[n]) & 1) return n
    }
    return -1
  }
}
