import { unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import { formatLinkAddress, type LinkAddress } from './address.ts'
import { FrameParser, LENGTH_BYTES } from './frame-stream.ts'
import type { LinkHost } from './link.ts'
import { OutsidePort } from './outside.ts'

/** Buffers on their way out, and their size: what a slow peer can make us keep. */
const BUFFERS = 16
const BUFFER_BYTES = 0x10000
const FIRST_RETRY_MS = 100
const LONGEST_RETRY_MS = 5000

/** What happened to a link, for people. */
export type LinkReporter = (message: string) => void

export interface StreamOptions {
  /** Exactly one of the two. A listening link serves one peer at a time and turns others away. */
  listen?: LinkAddress
  /** Tried again, ever more slowly, until it works and whenever it breaks. */
  connect?: LinkAddress
  /** Told when a peer comes or goes, and why. */
  onReport?: LinkReporter
}

/**
 * A link to another process over a TCP or Unix stream, in the framing of QEMU's `-netdev stream`: another farm, a virtual machine,
 * passt, VDE. Frames that a peer does not take fast enough are dropped and counted.
 */
export class StreamLink extends OutsidePort {
  /** Resolves once the link listens, or at once where it connects; rejects with what node:net says. */
  readonly ready: Promise<void>
  readonly #options: StreamOptions
  readonly #parser: FrameParser
  #server: Server | null = null
  #socket: Socket | null = null
  #peer = ''
  #connected = false
  #closed = false
  #retry: NodeJS.Timeout | null = null
  #retryMs = FIRST_RETRY_MS

  /** Buffers that are free; made as they are needed. */
  readonly #free: Buffer[] = []
  #buffers = 0
  #filling: Buffer | null = null
  #filled = 0
  #flushing = false
  readonly #flushNow = (): void => this.#flush()

  /** Throws RangeError in virtual time, or if neither or both of `listen` and `connect` are given. */
  constructor(name: string, host: LinkHost, options: StreamOptions) {
    super(name, host)
    if ((options.listen === undefined) === (options.connect === undefined))
      throw new RangeError(`${name}: give either listen or connect.`)
    this.#options = options
    this.#parser = new FrameParser((memory, offset, length) => this.#take(memory, offset, length))
    this.ready = options.listen === undefined ? Promise.resolve(this.#connect()) : this.#listen(options.listen)
  }

  /** Where the link listens: tells the port that was chosen for port 0. */
  get address(): LinkAddress | null {
    const address = this.#server?.address()
    if (address === null || address === undefined) return null
    return typeof address === 'string' ? { path: address } : { host: address.address, port: address.port }
  }

  get connected(): boolean {
    return this.#connected
  }

  frame(memory: Uint8Array, offset: number, length: number): void {
    if (!this.#connected || !this.#room(LENGTH_BYTES + length)) {
      this.lost++
      return
    }
    const buffer = this.#filling!
    buffer.writeUInt32BE(length, this.#filled)
    buffer.set(memory.subarray(offset, offset + length), this.#filled + LENGTH_BYTES)
    this.#filled += LENGTH_BYTES + length
    this.sent++
    if (!this.#flushing) {
      this.#flushing = true
      // One write for all that a turn of the farm sends.
      process.nextTick(this.#flushNow)
    }
  }

  /** Ends the connection and the listening. */
  async close(): Promise<void> {
    this.#closed = true
    if (this.#retry !== null) clearTimeout(this.#retry)
    this.#socket?.destroy()
    const server = this.#server
    if (server !== null) await new Promise((resolve) => server.close(resolve))
  }

  #listen(address: LinkAddress): Promise<void> {
    const server = createServer((socket) => this.#accept(socket))
    this.#server = server
    return new Promise((resolve, reject) => {
      const listen = (): void => {
        if ('path' in address) server.listen(address.path)
        else server.listen(address.port, address.host)
      }
      let cleared = false
      server.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EADDRINUSE' || !('path' in address) || cleared) {
          reject(error)
          return
        }
        // A process that was killed leaves its socket's name behind.
        cleared = true
        removeStaleSocket(address.path, listen, reject)
      })
      server.on('listening', () => {
        this.#report(`listens on ${formatLinkAddress(this.address ?? address)}`)
        resolve()
      })
      listen()
    })
  }

  #accept(socket: Socket): void {
    if (this.#socket !== null) {
      this.#report(`turned ${peerName(socket)} away: ${this.#peer} is connected`)
      socket.destroy()
      return
    }
    this.#use(socket, peerName(socket))
    this.#opened()
  }

  #connect(): void {
    const address = this.#options.connect!
    const socket = 'path' in address ? connect(address.path) : connect(address.port, address.host)
    this.#use(socket, formatLinkAddress(address))
    socket.on('connect', () => {
      this.#retryMs = FIRST_RETRY_MS
      this.#opened()
    })
  }

  #use(socket: Socket, peer: string): void {
    this.#socket = socket
    this.#peer = peer
    let reason = 'the peer closed the connection'
    socket.on('data', (chunk: Buffer) => {
      const badLength = this.#parser.push(chunk)
      this.host.wake()
      if (badLength < 0) return
      reason = `a frame of ${badLength} bytes was announced; the other side does not speak QEMU's stream framing`
      socket.destroy()
    })
    socket.on('error', (error) => {
      reason = error.message
    })
    socket.on('end', () => socket.destroy())
    socket.on('close', () => this.#lostPeer(reason))
  }

  #opened(): void {
    this.#connected = true
    this.#socket!.setNoDelay(true)
    this.#report(`connected to ${this.#peer}`)
  }

  #lostPeer(reason: string): void {
    const address = this.#options.connect
    const firstFailure = this.#connected || this.#retryMs === FIRST_RETRY_MS
    this.#connected = false
    this.#socket = null
    this.#parser.reset()
    this.#filled = 0
    if (this.#closed) return
    // A peer that stays away is not news.
    if (firstFailure) this.#report(`lost ${this.#peer}: ${reason}${address === undefined ? '' : '; trying again'}`)
    if (address === undefined) return
    this.#retry = setTimeout(() => this.#connect(), this.#retryMs)
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS)
  }

  #take(memory: Uint8Array, offset: number, length: number): void {
    if (length < MAC_MINIMUM_FRAME || length > MAC_MAXIMUM_FRAME) {
      this.refused++
      return
    }
    this.received++
    this.outlet.frame(memory, offset, length, this.host.now())
  }

  // ── out ──

  /** True if the buffer being filled has room; a full one is sent. */
  #room(bytes: number): boolean {
    if (this.#filling !== null && this.#filled + bytes > BUFFER_BYTES) this.#write()
    if (this.#filling !== null) return true
    this.#filling = this.#free.pop() ?? this.#newBuffer()
    this.#filled = 0
    return this.#filling !== null
  }

  #newBuffer(): Buffer | null {
    if (this.#buffers === BUFFERS) return null
    this.#buffers++
    return Buffer.alloc(BUFFER_BYTES)
  }

  #flush(): void {
    this.#flushing = false
    if (this.#filled > 0 && this.#connected) this.#write()
  }

  #write(): void {
    const buffer = this.#filling!
    const filled = this.#filled
    this.#filling = null
    this.#filled = 0
    // Called with an error too, once the connection is gone.
    this.#socket!.write(buffer.subarray(0, filled), () => this.#free.push(buffer))
  }

  #report(message: string): void {
    this.#options.onReport?.(`${this.name} ${message}`)
  }
}

/** Removes the name of a Unix socket that nobody listens on any more, then calls `retry`; else `fail`. */
function removeStaleSocket(path: string, retry: () => void, fail: (error: Error) => void): void {
  const probe = connect(path)
  probe.on('connect', () => {
    probe.destroy()
    fail(Object.assign(new Error(`listen EADDRINUSE: another process listens on ${path}`), { code: 'EADDRINUSE' }))
  })
  probe.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ECONNREFUSED') {
      fail(error)
      return
    }
    try {
      unlinkSync(path)
      retry()
    } catch (cause) {
      fail(cause as Error)
    }
  })
}

function peerName(socket: Socket): string {
  if (socket.remoteAddress === undefined) return 'a local peer'
  return formatLinkAddress({ host: socket.remoteAddress, port: socket.remotePort! })
}
