import type { Board } from '../../emulator/board.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import { createDgram, type Dgram } from '../../host/dgram.ts'
import { Driver } from '../../host/driver/driver.ts'
import { createNet, type Net } from '../../host/net.ts'
import { type FirstSpeaker, NO_REFERENCES, type Stack } from '../../host/stack.ts'
import type { Layouts } from '../firmware/layouts.ts'
import { type CardHost, VirtualCard } from './virtual-card.ts'

/** RAM of a process on a main board, bytes. */
export const DEFAULT_RAM_BYTES = 16 << 20

/** A card with firmware that has sockets, and one process on its main board: its programs are written against `net` and `dgram`. */
export class VirtualNode extends VirtualCard {
  /** IPv4 address of port 0. */
  readonly address: string
  /** MAC addresses as they stand in frames, twelve digits each, in the order of `cables`. */
  readonly macs: readonly string[]
  stack!: Stack
  /** `node:net`, on this card. */
  net!: Net
  /** `node:dgram`, on this card. */
  dgram!: Dgram
  #set = -1

  constructor(
    name: string,
    address: string,
    board: Board,
    layouts: Layouts,
    host: CardHost,
    cables: readonly Cable[] = [],
    macs: readonly string[] = [],
  ) {
    super(name, board, layouts, host, cables)
    this.address = address
    this.macs = macs
  }

  /** Gives the board a process of its own, in place of the one that it had. */
  startProcess(
    ramBytes = DEFAULT_RAM_BYTES,
    names: ReadonlyMap<string, string> = new Map(),
    firstSpeakers: ReadonlyMap<number, FirstSpeaker> = new Map(),
  ): void {
    if (this.#set >= 0) this.board.detachProcess(this.#set)
    const { bus, set } = this.board.attachProcess({ ramBytes })
    this.#set = set
    this.stack = {
      driver: new Driver(bus),
      clock: this.board.hostClock,
      hosts: names,
      servers: names,
      firstSpeakers,
      references: NO_REFERENCES,
    }
    this.net = createNet(this.stack)
    this.dgram = createDgram(this.stack)
  }
}
