/**
 * The bus between a main-board process and the INIC, as the process sees it: its RAM, the register window of its queue
 * set (abi/virtio.ts), and one interrupt line. The emulator implements it; the driver uses it and nothing else.
 */
export interface Bus {
  /** Main-board RAM of this process; a SharedArrayBuffer where the process runs in a worker. */
  readonly ram: Uint8Array
  /** Stores a 32-bit register. Throws RangeError for an offset that is no register. */
  write(register: number, value: number): void
  /** Loads a 32-bit register. Throws RangeError for an offset that is no register. */
  read(register: number): number
  /** The handler runs between two slices of the card, never inside one; one line for the whole queue set. */
  onInterrupt(handler: () => void): void
}

/** Time of the board that a process runs on; the only clock that host code may read. */
export interface HostClock {
  /** Nanoseconds since the farm was switched on. */
  now(): number
  /** Runs `callback` after `delayNs`; returns a handle for `clear`. */
  schedule(delayNs: number, callback: () => void): number
  clear(handle: number): void
}
