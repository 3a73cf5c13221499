/** A Linux TAP interface: a link whose other end is the kernel's own network stack. */

import { getSystemErrorName } from 'node:util'
import { loadAddon, type NativeTap } from './addon.ts'

export interface TapOptions {
  /** Called when there are frames to read, and again only after a `read` has returned 0. */
  readonly onReadable: () => void
  /** Largest payload of a frame in bytes, without the Ethernet header. Left as it is by default. */
  readonly mtuBytes?: number
  /** Address for the kernel's end, such as `192.0.2.1/24`. None by default. */
  readonly address?: string
  /** Brings the interface up or down. Left as it is by default. */
  readonly up?: boolean
}

/** An open TAP interface. It keeps the process alive until closed. */
export interface Tap {
  readonly name: string
  readonly mtuBytes: number

  /**
   * Reads the next frame, from its Ethernet header on and without checksum, into `frame` at `offset`. What does not fit
   * is cut off: there should be room for `mtuBytes` + 18. Returns its length; 0 when there is none.
   */
  read(frame: Uint8Array, offset: number): number

  /**
   * Writes a frame of `length` bytes. Returns false when it was lost: the kernel's queue is full, or the interface is
   * down.
   */
  write(frame: Uint8Array, offset: number, length: number): boolean

  /** Lets go of the interface; one that `openTap` created is gone. Safe to call twice. */
  close(): void
}

/**
 * Opens a TAP interface, or creates it for as long as it is open. Non-blocking, without packet information header.
 *
 * Throws an Error with `code`: EPERM (needs root or CAP_NET_ADMIN), EBUSY (open elsewhere), ERR_CPU_ADDON_MISSING, ...
 */
export function openTap(name: string, options: TapOptions): Tap {
  const { TapDevice } = loadAddon()
  if (!TapDevice) throw Object.assign(new Error('TAP interfaces are a thing of Linux'), { code: 'ENOTSUP' })
  const { onReadable, mtuBytes, address, up } = options
  const native = new TapDevice(
    name,
    {
      ...(mtuBytes !== undefined && { mtu: mtuBytes }),
      ...(address !== undefined && { address }),
      ...(up !== undefined && { up }),
    },
    // A call may be under way when the interface is closed.
    () => tap.closed || onReadable(),
  )
  const tap = new NativeTapLink(native)
  return tap
}

class NativeTapLink implements Tap {
  readonly name: string
  readonly mtuBytes: number
  closed = false
  readonly #native: NativeTap
  readonly #read: (frame: Uint8Array, offset: number) => number
  readonly #write: (frame: Uint8Array, offset: number, length: number) => number

  constructor(native: NativeTap) {
    this.#native = native
    this.name = native.name()
    this.mtuBytes = native.mtu()
    this.#read = native.readFunction()
    this.#write = native.writeFunction()
  }

  read(frame: Uint8Array, offset: number): number {
    const length = this.#read(frame, offset)
    if (length < 0) this.#fail('read', -length)
    return length
  }

  write(frame: Uint8Array, offset: number, length: number): boolean {
    const result = this.#write(frame, offset, length)
    // EIO is what the kernel says while the interface is down.
    if (result < 0 && -result !== EIO) this.#fail('write', -result)
    return result > 0
  }

  close(): void {
    this.closed = true
    this.#native.close()
  }

  #fail(syscall: string, errno: number): never {
    const code = getSystemErrorName(-errno)
    throw Object.assign(new Error(`${syscall} ${code} ${this.name}`), { code, errno: -errno, syscall })
  }
}

/** `errno.h` of Linux. */
const EIO = 5
