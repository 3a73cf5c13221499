import { closeSync, openSync, writeSync } from 'node:fs'
import type { FrameSink } from './link.ts'

// PCAP Next Generation (PCAPNG) Capture File Format, draft-ietf-opsawg-pcapng, §4; written little-endian.
const SECTION_HEADER_BLOCK = 0x0a0d0d0a
const INTERFACE_DESCRIPTION_BLOCK = 0x00000001
const ENHANCED_PACKET_BLOCK = 0x00000006
const BYTE_ORDER_MAGIC = 0x1a2b3c4d
const LINKTYPE_ETHERNET = 1
const OPTION_END = 0
const SHB_USERAPPL = 4
const IDB_NAME = 2
const IDB_TSRESOL = 9
/** 10^-9 seconds (§4.2, if_tsresol). */
const NANOSECONDS = 9

/** Block header and trailer, interface, time stamp, both lengths. */
const PACKET_OVERHEAD_BYTES = 32
const BUFFER_BYTES = 0x40000
const DEFAULT_SNAP_BYTES = 65535

export interface PcapngOptions {
  /** Nanoseconds since 1970 at which the farm's clock was 0 (`farm.epochNs`). Default 0: the same run gives the same bytes. */
  epochNs?: bigint
  /** Bytes kept of each frame. */
  snapBytes?: number
  /** Told once when the file can no longer be written; nothing more is captured then. */
  onError?: (error: Error) => void
}

/** Writes frames into a pcapng file. Buffered: `flush` and `close` bring what is left to the file. */
export class PcapngWriter {
  /** Frames written; those after an error are counted in `lost`. */
  frames = 0
  lost = 0
  readonly #write: (bytes: Buffer) => void
  /** File that `close` closes, or -1. */
  readonly #ownFd: number
  readonly #snapBytes: number
  readonly #epochHigh: number
  readonly #epochLow: number
  readonly #onError: ((error: Error) => void) | undefined
  readonly #buffer = Buffer.alloc(BUFFER_BYTES)
  readonly #view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, BUFFER_BYTES)
  #used = 0
  #interfaces = 0
  #open = true

  /**
   * `target` is a path, which is written over; an open file descriptor, which stays open; or a function, which is given bytes that are
   * valid during the call. Throws what node:fs throws.
   */
  constructor(target: string | number | ((bytes: Buffer) => void), options: PcapngOptions = {}) {
    const { epochNs = 0n, snapBytes = DEFAULT_SNAP_BYTES, onError } = options
    if (!Number.isInteger(snapBytes) || snapBytes < 14 || snapBytes > 65535)
      throw new RangeError(`snapBytes is ${snapBytes}; it is between 14 and 65535.`)
    this.#ownFd = typeof target === 'string' ? openSync(target, 'w') : -1
    const fd = typeof target === 'number' ? target : this.#ownFd
    this.#write = typeof target === 'function' ? target : (bytes) => writeFully(fd, bytes)
    this.#snapBytes = snapBytes
    this.#epochHigh = Number(epochNs >> 32n)
    this.#epochLow = Number(epochNs & 0xffffffffn)
    this.#onError = onError
    const application = optionBytes(SHB_USERAPPL, Buffer.from('inic'))
    // §4.1: version 1.0, section of unknown length.
    this.#block(SECTION_HEADER_BLOCK, [
      u32(BYTE_ORDER_MAGIC),
      u16(1),
      u16(0),
      u32(0xffffffff),
      u32(0xffffffff),
      application,
      optionBytes(OPTION_END),
    ])
  }

  /** A sink that writes what it sees as frames of one interface. `name` is what readers show. */
  interface(name: string): FrameSink {
    const id = this.#interfaces++
    this.#block(INTERFACE_DESCRIPTION_BLOCK, [
      u16(LINKTYPE_ETHERNET),
      u16(0),
      u32(this.#snapBytes),
      optionBytes(IDB_NAME, Buffer.from(name.slice(0, 255))),
      optionBytes(IDB_TSRESOL, Buffer.of(NANOSECONDS)),
      optionBytes(OPTION_END),
    ])
    return { frame: (memory, offset, length, nowNs) => this.#packet(id, memory, offset, length, nowNs) }
  }

  /** Writes what is buffered. */
  flush(): void {
    if (this.#used === 0 || !this.#open) return
    try {
      this.#write(this.#buffer.subarray(0, this.#used))
    } catch (error) {
      this.#open = false
      this.#onError?.(error as Error)
    }
    this.#used = 0
  }

  close(): void {
    this.flush()
    this.#open = false
    if (this.#ownFd >= 0) closeSync(this.#ownFd)
  }

  #packet(id: number, memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    if (!this.#open) {
      this.lost++
      return
    }
    const kept = Math.min(length, this.#snapBytes)
    const padded = (kept + 3) & ~3
    const total = PACKET_OVERHEAD_BYTES + padded
    if (this.#used + total > BUFFER_BYTES) this.flush()
    const low = this.#epochLow + (nowNs % 4294967296)
    const high = this.#epochHigh + Math.floor(nowNs / 4294967296) + (low >= 4294967296 ? 1 : 0)
    const view = this.#view
    const at = this.#used
    view.setUint32(at, ENHANCED_PACKET_BLOCK, true)
    view.setUint32(at + 4, total, true)
    view.setUint32(at + 8, id, true)
    view.setUint32(at + 12, high, true)
    view.setUint32(at + 16, low, true)
    view.setUint32(at + 20, kept, true)
    view.setUint32(at + 24, length, true)
    this.#buffer.set(memory.subarray(offset, offset + kept), at + 28)
    this.#buffer.fill(0, at + 28 + kept, at + 28 + padded)
    view.setUint32(at + total - 4, total, true)
    this.#used += total
    this.frames++
  }

  #block(type: number, parts: Buffer[]): void {
    const body = Buffer.concat(parts)
    const total = 12 + body.length
    const block = Buffer.concat([u32(type), u32(total), body, u32(total)])
    if (this.#used + total > BUFFER_BYTES) this.flush()
    this.#buffer.set(block, this.#used)
    this.#used += total
  }
}

function writeFully(fd: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done)
}

/** §3.5: code, length, value, padded to four bytes. */
function optionBytes(code: number, value: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u16(code), u16(value.length), value, Buffer.alloc(-value.length & 3)])
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
