import { closeSync, openSync, readSync } from 'node:fs'

// Classic format: draft-ietf-opsawg-pcap. Next generation: draft-ietf-opsawg-pcapng.
const PCAP_MICROSECONDS = 0xa1b2c3d4
const PCAP_NANOSECONDS = 0xa1b23c4d
const PCAP_HEADER_BYTES = 24
const PCAP_RECORD_BYTES = 16
const SECTION_HEADER_BLOCK = 0x0a0d0d0a
const INTERFACE_DESCRIPTION_BLOCK = 1
const SIMPLE_PACKET_BLOCK = 3
const ENHANCED_PACKET_BLOCK = 6
const BYTE_ORDER_MAGIC = 0x1a2b3c4d
const LINKTYPE_ETHERNET = 1
const OPTION_END = 0
const IDB_NAME = 2
const IDB_TSRESOL = 9
const IDB_TSOFFSET = 14
const MAXIMUM_INTERFACES = 65536
/** Largest block or record, bytes. */
const MAXIMUM_BLOCK_BYTES = 0x1000000

/** A file that is no capture, or a broken one. */
export class CaptureError extends Error {
  override name = 'CaptureError'
  readonly code = 'ERR_INIC_CAPTURE'
}

/** An interface of a capture. */
export interface CaptureInterface {
  /** Empty if the file gives none. */
  name: string
  linkType: number
}

/**
 * Reads Ethernet frames from a pcap or pcapng file, one at a time; the frame is in `memory` until the next call of `next`. Every
 * length in the file is checked. Frames of other link types are skipped and counted.
 */
export class CaptureReader {
  readonly path: string
  readonly format: 'pcap' | 'pcapng'
  memory: Uint8Array = new Uint8Array(0)
  offset = 0
  /** Captured bytes. */
  length = 0
  /** Bytes on the wire: more than `length` if the capture cut the frame. */
  originalLength = 0
  /** Since 1970. */
  timestampNs = 0n
  /** Index into `interfaces`. */
  interface = 0
  interfaces: CaptureInterface[] = []
  /** Frames that are not Ethernet. */
  skipped = 0

  readonly #fd: number
  #buffer = Buffer.alloc(0x10000)
  /** Unread bytes are [#start, #end) of the buffer; #position is where in the file #start is. */
  #start = 0
  #end = 0
  #position = 0
  #littleEndian = true
  /** Time stamp units of each interface: nanoseconds = units × numerator / denominator + offset. */
  #times: { numerator: bigint; denominator: bigint; offsetNs: bigint }[] = []
  #snapBytes: number[] = []

  /** Throws what node:fs throws, and CaptureError for a file that is no capture. */
  constructor(path: string) {
    this.path = path
    this.#fd = openSync(path, 'r')
    try {
      const magic = this.#need(4, 'magic number')
      const big = this.#buffer.readUInt32BE(magic)
      const little = this.#buffer.readUInt32LE(magic)
      if (big === SECTION_HEADER_BLOCK) this.format = 'pcapng'
      else if (isPcap(little) || isPcap(big)) {
        this.format = 'pcap'
        this.#littleEndian = isPcap(little)
        this.#readPcapHeader()
      } else throw this.#error('it is neither pcap nor pcapng (compressed files have to be unpacked first)')
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  /** Goes to the next frame; false at the end of the file. Throws CaptureError. */
  next(): boolean {
    return this.format === 'pcap' ? this.#nextRecord() : this.#nextBlock()
  }

  close(): void {
    closeSync(this.#fd)
  }

  // ── pcap ──

  #readPcapHeader(): void {
    const at = this.#need(PCAP_HEADER_BYTES, 'file header')
    const nanoseconds = this.#u32(at) === PCAP_NANOSECONDS
    // The upper bits may say whether an FCS follows; frames with one do not occur on our ports.
    const linkType = this.#u32(at + 20) & 0xffff
    this.interfaces.push({ name: '', linkType })
    this.#times.push({ numerator: nanoseconds ? 1n : 1000n, denominator: 1n, offsetNs: 0n })
    if (linkType !== LINKTYPE_ETHERNET) throw this.#error(`its link type is ${linkType}, not Ethernet`)
    this.#consume(PCAP_HEADER_BYTES)
  }

  #nextRecord(): boolean {
    if (this.#atEnd()) return false
    const at = this.#need(PCAP_RECORD_BYTES, 'record header')
    const captured = this.#u32(at + 8)
    if (captured > MAXIMUM_BLOCK_BYTES) throw this.#error(`a record of ${captured} bytes`)
    const record = this.#need(PCAP_RECORD_BYTES + captured, 'record')
    const seconds = BigInt(this.#u32(record))
    this.timestampNs = seconds * 1000000000n + BigInt(this.#u32(record + 4)) * this.#times[0].numerator
    this.#show(0, record + PCAP_RECORD_BYTES, captured, this.#u32(record + 12))
    this.#consume(PCAP_RECORD_BYTES + captured)
    return true
  }

  // ── pcapng ──

  #nextBlock(): boolean {
    while (!this.#atEnd()) {
      let at = this.#need(12, 'block header')
      if (this.#buffer.readUInt32BE(at) === SECTION_HEADER_BLOCK) this.#readByteOrder(at)
      const type = this.#u32(at)
      const total = this.#u32(at + 4)
      if (total < 12 || (total & 3) !== 0 || total > MAXIMUM_BLOCK_BYTES)
        throw this.#error(`a block that gives its length as ${total} bytes`)
      at = this.#need(total, 'block')
      if (this.#u32(at + total - 4) !== total) throw this.#error('a block whose two lengths differ')
      const found = this.#readBlock(type, at + 8, total - 12)
      this.#consume(total)
      if (found) return true
    }
    return false
  }

  /** True if the block is a frame. `body` is where in the buffer its `length` bytes are. */
  #readBlock(type: number, body: number, length: number): boolean {
    switch (type) {
      case SECTION_HEADER_BLOCK:
        if (length < 16) throw this.#error('a section header that is too short')
        if (this.#u16(body + 4) !== 1)
          throw this.#error(`version ${this.#u16(body + 4)} of the format, which is not known`)
        this.interfaces = []
        this.#times = []
        this.#snapBytes = []
        return false
      case INTERFACE_DESCRIPTION_BLOCK:
        this.#readInterface(body, length)
        return false
      case ENHANCED_PACKET_BLOCK: {
        if (length < 20) throw this.#error('a packet block that is too short')
        const captured = this.#u32(body + 12)
        if (captured > length - 20)
          throw this.#error(`a packet of ${captured} bytes in a block with room for ${length - 20}`)
        const id = this.#u32(body)
        if (id >= this.interfaces.length)
          throw this.#error(`a packet of interface ${id}, which the file does not describe`)
        const { numerator, denominator, offsetNs } = this.#times[id]
        const units = (BigInt(this.#u32(body + 4)) << 32n) | BigInt(this.#u32(body + 8))
        this.timestampNs = (units * numerator) / denominator + offsetNs
        return this.#show(id, body + 20, captured, this.#u32(body + 16))
      }
      case SIMPLE_PACKET_BLOCK: {
        if (length < 4) throw this.#error('a packet block that is too short')
        if (this.interfaces.length === 0) throw this.#error('a packet before any interface')
        const original = this.#u32(body)
        const snap = this.#snapBytes[0] === 0 ? original : this.#snapBytes[0]
        return this.#show(0, body + 4, Math.min(original, snap, length - 4), original)
      }
      default:
        // §4: blocks that are not known are skipped.
        return false
    }
  }

  #readByteOrder(at: number): void {
    if (this.#buffer.readUInt32LE(at + 8) === BYTE_ORDER_MAGIC) this.#littleEndian = true
    else if (this.#buffer.readUInt32BE(at + 8) === BYTE_ORDER_MAGIC) this.#littleEndian = false
    else throw this.#error('a section whose byte order is not told')
  }

  #readInterface(body: number, length: number): void {
    if (length < 8) throw this.#error('an interface block that is too short')
    if (this.interfaces.length === MAXIMUM_INTERFACES) throw this.#error(`more than ${MAXIMUM_INTERFACES} interfaces`)
    const found: CaptureInterface = { name: '', linkType: this.#u16(body) }
    // §4.2: microseconds unless told otherwise.
    const time = { numerator: 1000n, denominator: 1n, offsetNs: 0n }
    for (let at = body + 8; at + 4 <= body + length; ) {
      const code = this.#u16(at)
      const size = this.#u16(at + 2)
      const value = at + 4
      if (code === OPTION_END) break
      if (value + size > body + length) throw this.#error('an interface option that goes beyond its block')
      if (code === IDB_NAME) found.name = this.#buffer.toString('utf8', value, value + size)
      if (code === IDB_TSRESOL && size >= 1) {
        const resolution = this.#buffer[value]
        const exponent = BigInt(resolution & 0x7f)
        time.numerator = 1000000000n
        time.denominator = (resolution & 0x80) === 0 ? 10n ** exponent : 2n ** exponent
      }
      if (code === IDB_TSOFFSET && size >= 8) {
        const seconds = this.#littleEndian ? this.#buffer.readBigInt64LE(value) : this.#buffer.readBigInt64BE(value)
        time.offsetNs = seconds * 1000000000n
      }
      at = value + ((size + 3) & ~3)
    }
    this.interfaces.push(found)
    this.#times.push(time)
    this.#snapBytes.push(this.#u32(body + 4))
  }

  // ── bytes ──

  #show(id: number, at: number, length: number, originalLength: number): boolean {
    if (this.interfaces[id].linkType !== LINKTYPE_ETHERNET) {
      this.skipped++
      return false
    }
    this.interface = id
    this.memory = this.#buffer
    this.offset = at
    this.length = length
    this.originalLength = originalLength
    return true
  }

  #u16(at: number): number {
    return this.#littleEndian ? this.#buffer.readUInt16LE(at) : this.#buffer.readUInt16BE(at)
  }

  #u32(at: number): number {
    return this.#littleEndian ? this.#buffer.readUInt32LE(at) : this.#buffer.readUInt32BE(at)
  }

  #atEnd(): boolean {
    return this.#start === this.#end && !this.#fill(1)
  }

  /** Where in the buffer the next `bytes` bytes are; throws if the file ends before. */
  #need(bytes: number, what: string): number {
    if (this.#end - this.#start < bytes && !this.#fill(bytes)) {
      throw this.#error(
        `it ends in the middle of a ${what}: ${bytes} bytes are needed and ${this.#end - this.#start} are there`,
      )
    }
    return this.#start
  }

  #fill(bytes: number): boolean {
    if (this.#start > 0) {
      this.#buffer.copyWithin(0, this.#start, this.#end)
      this.#end -= this.#start
      this.#start = 0
    }
    if (bytes > this.#buffer.length) {
      const larger = Buffer.alloc(Math.min(2 * bytes, MAXIMUM_BLOCK_BYTES + PCAP_RECORD_BYTES))
      this.#buffer.copy(larger, 0, 0, this.#end)
      this.#buffer = larger
    }
    while (this.#end < bytes) {
      const got = readSync(this.#fd, this.#buffer, this.#end, this.#buffer.length - this.#end, null)
      if (got === 0) return false
      this.#end += got
    }
    return true
  }

  #consume(bytes: number): void {
    this.#start += bytes
    this.#position += bytes
  }

  #error(what: string): CaptureError {
    return new CaptureError(`Capture ${this.path}, at byte ${this.#position}: ${what}.`)
  }
}

function isPcap(magic: number): boolean {
  return magic === PCAP_MICROSECONDS || magic === PCAP_NANOSECONDS
}
