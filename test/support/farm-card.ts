import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import asc from 'assemblyscript/asc'
import { packageRoot } from '../../toolchain/package-root.ts'
import { BareCard, type Captured, type CardSettings, DEFAULT_INTERFACES } from './bare-card.ts'
import { BROADCAST_MAC, type Heard, type IposFields, type IposPacket, iposFrame, parse } from './packets.ts'
import { temporaryDirectory } from './tiny-firmware.ts'

/** Port of the synchronization hub, and the card's address on it, as `DEFAULT_INTERFACES` has them. */
export const HUB_PORT = 2
export const HUB_MAC = '02:00:00:00:00:03'
export const CARD_ADDRESS = '192.0.2.1'
/** Settings of the firmware that tests count on. */
export const INTERVAL_MS = 250
export const LEASE_MS = 2000

export const UP = 1
export const LEASED = 2
export const KNOWN = 4

export type StateMessage = Extract<IposPacket, { kind: 'state' }>

let compiled: Promise<string> | undefined

/** test/firmware/farm.as.ts as a file of its own: ipOS and some questions to it. */
export function farmFirmware(): Promise<string> {
  compiled ??= compile()
  return compiled
}

async function compile(): Promise<string> {
  let wasm: Uint8Array | undefined
  // The other options are those of asconfig.json.
  const { error, stderr } = await asc.main(
    ['test/firmware/farm.as.ts', '--baseDir', packageRoot, '--outFile', 'farm.wasm', '-O1', '--noAssert'],
    {
      writeFile: (_name, contents) => {
        if (typeof contents !== 'string') wasm = contents
      },
    },
  )
  if (error || !wasm) throw new Error(`test firmware farm: ${error?.message}\n${stderr.toString()}`)
  const path = join(await temporaryDirectory(), 'farm.wasm')
  await writeFile(path, wasm)
  return path
}

/** A server of the farm, played by the test: row `row` of the card's Server State table, and so many places behind it. */
export class Peer {
  readonly card: FarmCard
  readonly row: number
  readonly mac: string
  readonly address: string
  incarnation: number
  sequence = 0

  constructor(card: FarmCard, row: number) {
    this.card = card
    this.row = row
    this.mac = peerMac(row)
    this.address = peerAddressOf(row)
    this.incarnation = 0x1000 + row
  }

  /** Says how it is. Unless told otherwise, the next number of its sequence, and that it has heard all that the card has said. */
  say(fields: IposFields<'state'> = {}): Captured[] {
    this.sequence = fields.sequence ?? this.sequence + 1
    this.card.receive(HUB_PORT, this.frame(fields))
    return this.card.run()
  }

  frame(fields: IposFields<'state'> = {}): Uint8Array {
    const { incarnation, sequence, card } = this
    const heard = card.last ? [heardOf(card.last)] : []
    const link = { destinationMac: BROADCAST_MAC, sourceMac: this.mac }
    const header = { source: this.address, destination: '255.255.255.255' }
    return iposFrame('state', { ...link, ...header, incarnation, sequence, heard, lease: card.leaseMs, ...fields })
  }
}

const peerMac = (row: number) => `02:00:00:00:01:${row.toString(16).padStart(2, '0')}`
export const peerAddressOf = (row: number) => `192.0.2.${101 + row}`

/** The entry that tells a card that its message was heard. */
export function heardOf({ incarnation, sequence }: StateMessage): Heard {
  return { address: CARD_ADDRESS, incarnation, sequence }
}

export interface FarmSettings extends CardSettings {
  /** How many others there are; default 2. */
  count?: number
}

/** A card in a farm whose other servers the test plays. The card has place 0, the peer of row n place n. */
export class FarmCard extends BareCard {
  readonly hub: Peer[] = []
  /** What the card has said last. */
  last: StateMessage | undefined
  readonly leaseMs: number

  constructor({ count = 2, ...settings }: FarmSettings) {
    const rows = Array.from({ length: count }, (_, n) => n + 1)
    const peers = rows.map((row) => ({ mac: peerMac(row), index: row, addresses: [peerAddressOf(row)] }))
    super({ interfaces: DEFAULT_INTERFACES, memoryBytes: 0x2000000, peers, ...settings })
    this.leaseMs = settings.leaseMs ?? LEASE_MS
    for (const row of rows) this.hub.push(new Peer(this, row))
  }

  static async boot(settings: FarmSettings = {}): Promise<FarmCard> {
    return new FarmCard({ firmware: await farmFirmware(), ...settings })
  }

  /** Booted, and in touch with all peers: each hears the other. */
  static async settled(settings: FarmSettings = {}, fields: IposFields<'state'> = {}): Promise<FarmCard> {
    const card = await FarmCard.boot(settings)
    card.run()
    for (const peer of card.hub) peer.say(fields)
    card.advance(INTERVAL_MS)
    for (const peer of card.hub) peer.say(fields)
    return card
  }

  override poll(): Captured[] {
    const frames = super.poll()
    this.last = stateMessages(frames).at(-1)?.message ?? this.last
    return frames
  }

  /** Peer of row `row`, 1.. */
  peer(row: number): Peer {
    return this.hub[row - 1]!
  }

  /** SERVER_* of a row. */
  status(row: number): number {
    return this.call('status', row)
  }
}

/** State messages among frames, with the milliseconds at which they were sent. */
export function stateMessages(frames: Captured[]): { ms: number; message: StateMessage }[] {
  return frames.flatMap(({ port, timeNs, frame }) => {
    if (port !== HUB_PORT) return []
    const { ipos, problems } = parse(frame)
    if (problems.length > 0) throw new Error(`on the hub: ${problems.join('; ')}`)
    return ipos?.kind === 'state' ? [{ ms: timeNs / 1e6, message: ipos }] : []
  })
}
