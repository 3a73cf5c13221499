/**
 * Framing of the GDB remote serial protocol: `$data#checksum`, acknowledgements, the interrupt byte.
 *
 * Source: GDB manual, appendix "GDB Remote Serial Protocol", "Overview".
 */

/** What the peer sent. */
export type Incoming =
  | { readonly kind: 'packet'; readonly data: Buffer }
  | { readonly kind: 'ack' }
  /** It wants the last answer again. */
  | { readonly kind: 'nack' }
  | { readonly kind: 'interrupt' }
  /** Bytes that are no packet; what is wrong with them. */
  | { readonly kind: 'malformed'; readonly message: string }

/** Longest packet that is taken, bytes between `$` and `#`. */
export const MAXIMUM_PACKET_BYTES = 0x20000

const INTERRUPT = 0x03
const HASH = 0x23
const DOLLAR = 0x24
const STAR = 0x2a
const PLUS = 0x2b
const MINUS = 0x2d
const ESCAPE = 0x7d
const ESCAPE_MASK = 0x20

/** Cuts a stream of bytes into what it means. Holds one packet at most. */
export class PacketReader {
  #state: 'idle' | 'data' | 'too long' | 'checksum' | 'second digit' = 'idle'
  #data: number[] = []
  #escaped = false
  #sum = 0
  #digit = 0
  #tooLong = false

  feed(bytes: Uint8Array): Incoming[] {
    const meant: Incoming[] = []
    for (const byte of bytes) {
      const incoming = this.#byte(byte)
      if (incoming !== undefined) meant.push(incoming)
    }
    return meant
  }

  #byte(byte: number): Incoming | undefined {
    switch (this.#state) {
      case 'idle':
        return this.#outside(byte)
      case 'data':
        if (byte === HASH) return this.#enter('checksum')
        this.#sum = (this.#sum + byte) & 0xff
        if (this.#data.length >= MAXIMUM_PACKET_BYTES) return this.#enter('too long')
        if (this.#escaped) {
          this.#data.push(byte ^ ESCAPE_MASK)
          this.#escaped = false
        } else if (byte === ESCAPE) this.#escaped = true
        else this.#data.push(byte)
        return
      case 'too long':
        this.#tooLong = true
        if (byte === HASH) return this.#enter('checksum')
        return
      case 'checksum':
        this.#digit = byte
        return this.#enter('second digit')
      default:
        return this.#finish(byte)
    }
  }

  #enter(state: 'checksum' | 'second digit' | 'too long'): undefined {
    this.#state = state
  }

  /** Between packets everything else is passed over. */
  #outside(byte: number): Incoming | undefined {
    if (byte === PLUS) return { kind: 'ack' }
    if (byte === MINUS) return { kind: 'nack' }
    if (byte === INTERRUPT) return { kind: 'interrupt' }
    if (byte === DOLLAR) {
      this.#state = 'data'
      this.#data = []
      this.#escaped = false
      this.#sum = 0
      this.#tooLong = false
    }
    return undefined
  }

  #finish(byte: number): Incoming {
    this.#state = 'idle'
    const data = Buffer.from(this.#data)
    this.#data = []
    if (this.#tooLong) {
      return { kind: 'malformed', message: `a packet of more than ${MAXIMUM_PACKET_BYTES} bytes` }
    }
    const digits = String.fromCharCode(this.#digit, byte)
    const given = /^[0-9a-f]{2}$/i.test(digits) ? Number.parseInt(digits, 16) : -1
    if (given !== this.#sum) {
      return { kind: 'malformed', message: `a packet of checksum ${hexByte(this.#sum)} that claims ${digits}` }
    }
    return { kind: 'packet', data }
  }
}

/** `$data#checksum`; bytes that have a meaning of their own are escaped. */
export function encodePacket(data: Uint8Array | string): Buffer {
  const plain = typeof data === 'string' ? Buffer.from(data) : data
  const packet = Buffer.allocUnsafe(plain.length * 2 + 4)
  let at = 0
  let sum = 0
  packet[at++] = DOLLAR
  for (const byte of plain) {
    const special = byte === DOLLAR || byte === HASH || byte === STAR || byte === ESCAPE
    if (special) {
      packet[at++] = ESCAPE
      sum += ESCAPE
    }
    const written = special ? byte ^ ESCAPE_MASK : byte
    packet[at++] = written
    sum += written
  }
  packet[at++] = HASH
  at += packet.write(hexByte(sum & 0xff), at, 'latin1')
  return packet.subarray(0, at)
}

export function hexByte(value: number): string {
  return value.toString(16).padStart(2, '0')
}

export function encodeHex(data: Uint8Array | string): string {
  return Buffer.from(data as Uint8Array).toString('hex')
}

/** Bytes of pairs of hex digits, or undefined for what is none. */
export function decodeHex(text: string): Buffer | undefined {
  return text.length % 2 === 0 && /^[0-9a-f]*$/i.test(text) ? Buffer.from(text, 'hex') : undefined
}
