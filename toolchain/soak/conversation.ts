import type net from 'node:net'
import type { VirtualNode } from '../testing/virtual-node.ts'

/**
 * Conversations of which both ends know every byte. A client asks by a line of text, `<conversation> <round>`, and sends so many bytes
 * behind it; the server answers with so many. What each end gets is compared with what the plan says, wherever the server's end is at
 * the time: it takes its place in the plan along when it moves.
 */
export interface Plan {
  readonly port: number
  readonly rounds: readonly Round[]
  /** The client sends every round at once. */
  readonly pipelined?: boolean
  /** The client sends a round in pieces of so many bytes, so far apart. */
  readonly pieceBytes?: number
  readonly pieceMs?: number
  /** The server's answer comes in pieces of so many bytes, so far apart. */
  readonly writeBytes?: number
  readonly writeMs?: number
  /** Silence between two rounds. */
  readonly pauseMs?: number
  /** The client reads nothing for so long, once the first byte of each answer is there. */
  readonly readPauseMs?: number
  /**
   * Who ends it, once all is said; `client-early`: the client's FIN comes right behind its last request. A server that resets may do so
   * before everything is there.
   */
  readonly ends: 'client' | 'client-early' | 'server' | 'client-reset' | 'server-reset'
  /** The client resets after so many bytes of the last answer. */
  readonly resetAt?: number
  /** In the order in which they come. */
  readonly moves?: readonly PlannedMove[]
}

export interface Round {
  readonly upload: number
  readonly download: number
}

/** The server's end moves as soon as it is so far. */
export interface PlannedMove {
  readonly round: number
  /** At the latest after so many bytes of the upload, or of the answer; 'between' is before the next round. */
  readonly during: 'upload' | 'answer' | 'between'
  readonly at?: number
  /** Name of the server; none = the best. */
  readonly to?: string
  /** As a connection that no application hands over; between rounds alone. */
  readonly asNew?: boolean
}

/** Ports of a farm's servers, by who speaks first. */
export const PORT_CLIENT_FIRST = 80
export const PORT_GREETING = 25
export const PORT_SERVER_FIRST = 26
const PORTS = [PORT_CLIENT_FIRST, PORT_GREETING, PORT_SERVER_FIRST]
const GREETING_BYTES = 300
const LONGEST_LINE = 40
const DEFAULT_WRITE_BYTES = 16384
/** Silence after which each end asks whether the other is still there. */
const KEEP_ALIVE_MS = 10_000

// ── content ──

/** A prime, so that no size of segment or buffer divides it. */
const PERIOD = 65521
const LONGEST_PIECE = 1 << 20
const pattern = Buffer.alloc(PERIOD + LONGEST_PIECE)
for (let i = 0; i < pattern.length; i++) pattern[i] = (Math.imul((i % PERIOD) + 1, 0x9e3779b1) >>> 13) & 0xff

/** Bytes of one direction of one round, from `offset` on; `bytes` at most a megabyte. */
function content(conversation: number, round: number, direction: number, offset: number, bytes: number): Buffer {
  const at = (Math.imul(conversation, 7919) + round * 131 + direction * 31 + offset) % PERIOD
  return pattern.subarray(at, at + bytes)
}

const UP = 0
const DOWN = 1
const GREETING = 2

// ── the account ──

/** What came to light, in the order of virtual time. */
export interface Violation {
  readonly ms: number
  readonly what: string
}

/** Knows every conversation of a run, and what must not happen in it. */
export class Ledger {
  readonly violations: Violation[] = []
  /** By their numbers. */
  readonly conversations = new Map<number, Conversation>()
  /** Live moves that succeeded, and why others did not. */
  moved = 0
  readonly stayed: Record<string, number> = {}
  /** Told of a live move that failed, and why. */
  onStay: ((node: VirtualNode, code: string) => void) | undefined
  readonly #nowNs: () => number
  readonly #begun = new Map<string, string>()
  #next = 0
  #ends = 0

  constructor(nowNs: () => number) {
    this.#nowNs = nowNs
  }

  get nowMs(): number {
    return this.#nowNs() / 1e6
  }

  violate(what: string): void {
    this.violations.push({ ms: this.nowMs, what })
  }

  /** Takes a conversation in, and gives it its number. */
  enter(conversation: Conversation): number {
    this.conversations.set(this.#next, conversation)
    return this.#next++
  }

  /** Ends of conversations that applications on servers hold. */
  get serverEnds(): number {
    return this.#ends
  }

  /** An application begins to serve a round: that happens once, however often packets come. */
  begin(conversation: number, round: number, node: VirtualNode): void {
    const key = `${conversation} ${round}`
    const before = this.#begun.get(key)
    if (before !== undefined) this.violate(`round ${key} is served on ${node.name}, and was on ${before}`)
    else this.#begun.set(key, node.name)
    this.isAt(conversation, node)
  }

  /** A conversation's server end is there. */
  isAt(conversation: number, { name }: VirtualNode): void {
    this.conversations.get(conversation)?.isAt(name)
  }

  /** It is on its way there; none = to whichever server takes it. */
  goes(conversation: number, to: string | undefined): void {
    this.conversations.get(conversation)?.goes(to)
  }

  served(conversation: number, round: number): string | undefined {
    return this.#begun.get(`${conversation} ${round}`)
  }

  stay(node: VirtualNode, code: string): void {
    this.stayed[code] = (this.stayed[code] ?? 0) + 1
    this.onStay?.(node, code)
  }

  opened(): void {
    this.#ends++
  }

  closed(): void {
    this.#ends--
  }

  plan(conversation: number): Plan | undefined {
    return this.conversations.get(conversation)?.plan
  }

  /** Forgets what is over, so that hours of it fit into memory. */
  forget(): void {
    for (const [id, { status, plan }] of this.conversations) {
      if (status === 'open') continue
      for (let round = 0; round < plan.rounds.length; round++) this.#begun.delete(`${id} ${round}`)
      this.conversations.delete(id)
    }
  }
}

// ── the client's end ──

/** How a conversation stands: `open`, `complete` = every byte and an orderly end, or the code of the error that the client saw. */
export type Status = string

export interface ConversationOptions {
  /** Address of the entry server. */
  readonly to: string
  readonly localPort?: number
}

/** The client's end of a conversation. */
export class Conversation {
  readonly id: number
  readonly plan: Plan
  readonly startMs: number
  status: Status = 'open'
  endMs = 0
  localPort = 0
  /** Something has happened that it need not survive. */
  mayFail = false
  /** The way to the entry server was cut while it was opened. */
  mayNotConnect = false
  isConnected = false
  readonly choosesPort: boolean
  onClose: (() => void) | undefined
  readonly #ledger: Ledger
  readonly #node: VirtualNode
  readonly #socket: net.Socket
  /** Rounds that were sent, the round that is answered, and bytes of it; -1 = the greeting. */
  #sent = 0
  #round: number
  #got = 0
  #ended = false
  #finished = false
  #error: string | undefined
  /** Servers that have, or had, to do with it; and whether all of them may have, because nobody knows where its server's end is. */
  readonly #servers = new Set<string>()
  #isAnywhere = true

  constructor(ledger: Ledger, node: VirtualNode, plan: Plan, { to, localPort }: ConversationOptions) {
    this.id = ledger.enter(this)
    this.plan = plan
    this.#ledger = ledger
    this.#node = node
    this.startMs = ledger.nowMs
    this.choosesPort = localPort !== undefined
    this.#round = plan.port === PORT_CLIENT_FIRST ? 0 : -1
    const socket = node.net.connect({
      port: plan.port,
      host: to,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
      ...(localPort !== undefined && { localPort }),
    })
    this.#socket = socket
    socket.on('connect', () => {
      this.isConnected = true
      this.localPort = socket.localPort ?? 0
      if (this.#round === 0) this.#ask()
    })
    socket.on('data', (data: Buffer) => this.#take(data))
    socket.on('end', () => this.#end())
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#error = error.code ?? error.message
    })
    socket.on('close', () => this.#close())
  }

  /** What a person may want to know of it. */
  toString(): string {
    return `conversation ${this.id} (port ${this.localPort}, round ${this.#round}, ${this.#got} bytes)`
  }

  /** What happens to that server may happen to this conversation. */
  concerns({ name }: VirtualNode): boolean {
    return this.#isAnywhere || this.#servers.has(name)
  }

  /** Where it enters the farm, and whose client it is. */
  involve({ name }: VirtualNode): void {
    this.#servers.add(name)
  }

  /** See `Ledger.isAt`. */
  isAt(name: string): void {
    this.#servers.add(name)
    this.#isAnywhere = false
  }

  /** See `Ledger.goes`. */
  goes(to: string | undefined): void {
    if (to === undefined) this.#isAnywhere = true
    else this.#servers.add(to)
  }

  /** Gives up, as a client that loses patience does. */
  giveUp(): void {
    this.#error ??= 'gave up'
    this.#socket.resetAndDestroy()
  }

  /** Sends the next round, or all that there are. */
  #ask(): void {
    const { rounds, pipelined, ends, pieceBytes, pieceMs = 0 } = this.plan
    const bytes: Buffer[] = []
    do bytes.push(...this.#request(this.#sent++))
    while (pipelined && this.#sent < rounds.length)
    const all = bytes.length === 1 ? bytes[0]! : Buffer.concat(bytes)
    const isLast = this.#sent === rounds.length && ends === 'client-early'
    const step = pieceBytes ?? all.length
    for (let at = 0, n = 0; at < all.length; at += step, n++) {
      const piece = all.subarray(at, at + step)
      const write = () => {
        if (!this.#socket.writable) return
        if (isLast && at + step >= all.length) this.#socket.end(piece)
        else this.#socket.write(piece)
      }
      if (n === 0 || pieceMs === 0) write()
      else this.#node.board.hostClock.schedule(n * pieceMs * 1e6, write)
    }
  }

  #request(round: number): Buffer[] {
    const { upload } = this.plan.rounds[round]!
    const bytes: Buffer[] = [Buffer.from(`${this.id} ${round}\n`)]
    for (let at = 0; at < upload; at += LONGEST_PIECE)
      bytes.push(content(this.id, round, UP, at, Math.min(LONGEST_PIECE, upload - at)))
    return bytes
  }

  #take(data: Buffer): void {
    while (data.length > 0) {
      const isGreeting = this.#round < 0
      const size = isGreeting ? GREETING_BYTES : (this.plan.rounds[this.#round]?.download ?? 0)
      const expected = Math.min(size - this.#got, data.length)
      if (expected === 0) {
        this.#ledger.violate(`${this} got ${data.length} bytes that nobody sent`)
        this.giveUp()
        return
      }
      const right = isGreeting
        ? content(0, 0, GREETING, this.#got, expected)
        : content(this.id, this.#round, DOWN, this.#got, expected)
      if (right.compare(data, 0, expected) !== 0) {
        this.#ledger.violate(`${this} got wrong bytes${describeDifference(right, data)}`)
        this.giveUp()
        return
      }
      const first = this.#got === 0
      this.#got += expected
      data = data.subarray(expected)
      if (first && this.plan.readPauseMs !== undefined) this.#rest(this.plan.readPauseMs)
      if (this.#resets()) return
      if (this.#got === size) this.#answered()
    }
  }

  #resets(): boolean {
    const { resetAt = Number.POSITIVE_INFINITY, rounds } = this.plan
    if (this.#round !== rounds.length - 1 || this.#got < resetAt) return false
    this.#finished = true
    this.#socket.resetAndDestroy()
    return true
  }

  #rest(ms: number): void {
    this.#socket.pause()
    this.#node.board.hostClock.schedule(ms * 1e6, () => this.#socket.resume())
  }

  #answered(): void {
    this.#got = 0
    this.#round++
    const { rounds, ends, pauseMs, pipelined } = this.plan
    if (this.#round === rounds.length) {
      this.#finished = true
      if (ends === 'client') this.#socket.end()
      else if (ends === 'client-reset') this.#socket.resetAndDestroy()
      return
    }
    if (pipelined && this.#round > 0) return
    if (pauseMs === undefined) this.#ask()
    else this.#node.board.hostClock.schedule(pauseMs * 1e6, () => this.#socket.writable && this.#ask())
  }

  #end(): void {
    this.#ended = true
    if (!this.#finished && this.#error === undefined) this.#ledger.violate(`${this} was ended before all was said`)
  }

  #close(): void {
    this.endMs = this.#ledger.nowMs
    const { ends, resetAt } = this.plan
    if (ends === 'server-reset' && this.#error === 'ECONNRESET') this.status = 'complete'
    else if (this.#error !== undefined) this.status = this.#error
    else {
      const orderly = this.#ended || ends === 'client-reset' || resetAt !== undefined
      this.status = this.#finished && orderly ? 'complete' : 'closed'
    }
    this.onClose?.()
  }
}

function describeDifference(right: Buffer, data: Buffer): string {
  const at = right.findIndex((byte, n) => byte !== data[n])
  const place = right.subarray(at).indexOf(data.subarray(at, at + 16))
  return ` from byte ${at} of ${right.length} on${place > 0 ? `, which belong ${place} bytes later` : ''}`
}

// ── the server's end ──

/** Where the server's end stands in the plan: it goes along when the connection moves. */
interface Place {
  greeted: number
  /** What has come of the next line. */
  line: string
  conversation: number
  round: number
  uploaded: number
  answered: number
  moves: number
}

const BEGIN: Place = { greeted: 0, line: '', conversation: -1, round: -1, uploaded: 0, answered: 0, moves: 0 }

/** Listens on every port of conversations. */
export function serveConversations(node: VirtualNode, ledger: Ledger): net.Server[] {
  return PORTS.map((port) => {
    const options = { allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }
    const server = node.net.createServer(options, (socket) => {
      new ServerEnd(node, ledger, socket, { ...BEGIN, greeted: port === PORT_CLIENT_FIRST ? GREETING_BYTES : 0 })
    })
    server.on('migrate', (socket, state) => {
      new ServerEnd(node, ledger, socket, state as Place)
    })
    server.on('drain', (socket, to) => {
      ServerEnd.of(socket)?.handOver(to)
    })
    // The board is switched off: nobody to be told.
    server.on('error', () => {})
    server.listen(port)
    return server
  })
}

class ServerEnd {
  readonly #node: VirtualNode
  readonly #ledger: Ledger
  readonly #socket: net.Socket
  readonly #place: Place
  #moving = false
  #ended = false
  #resting = false

  static readonly #all = new WeakMap<net.Socket, ServerEnd>()

  static of(socket: net.Socket): ServerEnd | undefined {
    return ServerEnd.#all.get(socket)
  }

  constructor(node: VirtualNode, ledger: Ledger, socket: net.Socket, place: Place) {
    ServerEnd.#all.set(socket, this)
    this.#node = node
    this.#ledger = ledger
    this.#socket = socket
    this.#place = place
    ledger.opened()
    if (place.conversation >= 0) ledger.isAt(place.conversation, node)
    // Bytes are taken as they are needed: what a move finds unread is the stream's.
    socket.on('readable', () => this.#go())
    socket.on('drain', () => this.#go())
    socket.on('end', () => {
      this.#ended = true
      this.#go()
    })
    socket.on('error', () => {})
    socket.on('close', () => ledger.closed())
    this.#go()
  }

  /** Its server wants to be rid of it. */
  handOver(to: string | undefined): void {
    if (!this.#moving && !this.#socket.destroyed) this.#migrate(to, false)
  }

  /** Goes on as far as it can. */
  #go(): void {
    while (!this.#moving && !this.#resting && !this.#socket.destroyed && this.#step()) {}
  }

  /** One step; false if something has to come first. */
  #step(): boolean {
    const place = this.#place
    if (place.greeted < GREETING_BYTES) {
      place.greeted = GREETING_BYTES
      this.#socket.write(content(0, 0, GREETING, 0, GREETING_BYTES))
      return true
    }
    const plan = this.#ledger.plan(place.conversation)
    const round = plan?.rounds[place.round]
    if (plan === undefined || round === undefined) return this.#readLine()
    const move = plan.moves?.[place.moves]
    if (move !== undefined && isDue(move, place, plan)) {
      place.moves++
      this.#migrate(move.to, move.asNew === true)
      return false
    }
    if (place.uploaded < round.upload) return this.#readUpload(round, move)
    if (place.answered < round.download) return this.#answer(plan, round, move)
    return this.#roundOver(plan)
  }

  /** At most so many bytes, or null if none are there: then it goes on when some come, or the end. */
  #read(bytes: number): Buffer | null {
    const { readableLength } = this.#socket
    const data = this.#socket.read(readableLength > 0 ? Math.min(bytes, readableLength) : undefined) as Buffer | null
    if (data === null && this.#ended && !this.#socket.writableEnded) this.#socket.end()
    return data
  }

  #readLine(): boolean {
    const place = this.#place
    for (;;) {
      const byte = this.#read(1)?.toString('latin1')
      if (byte === undefined) return false
      if (byte === '\n') break
      place.line += byte
      if (place.line.length > LONGEST_LINE) break
    }
    const [conversation = Number.NaN, round = Number.NaN] = place.line.split(' ').map(Number)
    const plan = this.#ledger.plan(conversation)
    const isNext = place.conversation < 0 || (conversation === place.conversation && round === place.round + 1)
    if (!isNext || plan?.rounds[round] === undefined) {
      this.#wrong(`was asked ${JSON.stringify(place.line)} after round ${place.round} of ${place.conversation}`)
      return false
    }
    // One that came as new has made the moves that lie behind it.
    if (place.conversation < 0) place.moves = (plan.moves ?? []).filter((move) => move.round < round).length
    while (plan.moves?.[place.moves]?.asNew && plan.moves[place.moves]!.round < round) place.moves++
    place.line = ''
    place.conversation = conversation
    place.round = round
    place.uploaded = place.answered = 0
    this.#ledger.begin(conversation, round, this.#node)
    return true
  }

  #readUpload({ upload }: Round, move: PlannedMove | undefined): boolean {
    const place = this.#place
    const stop = move?.round === place.round && move.during === 'upload' ? (move.at ?? 0) : upload
    const data = this.#read(Math.min(stop, upload) - place.uploaded)
    if (data === null) return false
    const right = content(place.conversation, place.round, UP, place.uploaded, data.length)
    if (!right.equals(data)) {
      this.#wrong(`got wrong bytes${describeDifference(right, data)}, after ${place.uploaded} bytes of an upload`)
      return false
    }
    place.uploaded += data.length
    return true
  }

  #answer({ writeBytes = DEFAULT_WRITE_BYTES, writeMs = 0 }: Plan, { download }: Round, move?: PlannedMove): boolean {
    const place = this.#place
    if (this.#socket.writableNeedDrain) return false
    const stop = move?.round === place.round && move.during === 'answer' ? (move.at ?? 0) : download
    const bytes = Math.min(writeBytes, Math.min(stop, download) - place.answered)
    this.#socket.write(content(place.conversation, place.round, DOWN, place.answered, bytes))
    place.answered += bytes
    if (writeMs > 0) {
      this.#resting = true
      this.#node.board.hostClock.schedule(writeMs * 1e6, () => {
        this.#resting = false
        this.#go()
      })
    }
    return true
  }

  #roundOver({ rounds, ends }: Plan): boolean {
    const place = this.#place
    if (place.round < rounds.length - 1) return this.#readLine()
    if (ends === 'server-reset') {
      this.#socket.resetAndDestroy()
      return false
    }
    if (ends === 'server' && !this.#socket.writableEnded) this.#socket.end()
    if (this.#read(1) !== null) this.#wrong('got more than there is')
    return false
  }

  #wrong(what: string): void {
    this.#ledger.violate(`${this.#node.name}, conversation ${this.#place.conversation}: ${what}`)
    this.#socket.destroy()
  }

  #migrate(to: string | undefined, asNew: boolean): void {
    this.#moving = true
    this.#ledger.goes(this.#place.conversation, to)
    const moving = asNew ? this.#socket.migrate(to, undefined, { asNew }) : this.#socket.migrate(to, this.#place)
    moving.then(
      () => {
        this.#ledger.moved++
      },
      (error: NodeJS.ErrnoException) => {
        this.#ledger.stay(this.#node, error.code ?? error.message)
        this.#ledger.isAt(this.#place.conversation, this.#node)
        this.#moving = false
        this.#go()
      },
    )
  }
}

function isDue({ round, during, at = 0, asNew }: PlannedMove, place: Place, plan: Plan): boolean {
  if (place.round !== round) return place.round > round && !asNew
  const isUploaded = place.uploaded === plan.rounds[round]!.upload
  if (during === 'upload') return place.uploaded >= at
  if (during === 'answer') return isUploaded && place.answered >= at
  return isUploaded && place.answered === plan.rounds[round]!.download && place.line === ''
}
