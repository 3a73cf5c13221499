/**
 * The boot area of a flash, which the boot loader alone writes.
 *
 *   0       ┌────────────────┐
 *           │ vault          │ the board's security counter and the key that it trusts
 *   8 KiB   ├────────────────┤
 *           │ boot log       │ what was decided at each boot, and why
 *   64 KiB  └────────────────┘
 */
import { ERASE_BLOCK_BYTES } from '../../emulator/devices/flash.ts'
import type { Region } from './flash-access.ts'
import { PUBLIC_KEY_BYTES, PublicKey } from './keys.ts'
import { RECORD_CONTENTS_BYTES, RecordRing } from './records.ts'
import type { SwapType } from './trailer.ts'
import type { ImageVersion } from './version.ts'

const VAULT_BLOCKS = 2
const VAULT_MAGIC = 0x544c5556 // "VULT"
const LOG_MAGIC = 0x474f4c42 // "BLOG"

const VAULT_COUNTER = 0 // u32
const VAULT_HAS_KEY = 4 // u32
const VAULT_KEY = 8 // 32 bytes
const VAULT_BYTES = VAULT_KEY + PUBLIC_KEY_BYTES

const LOG_KIND = 0 // u8
const LOG_SWAP = 1 // u8 index into SWAPS
const LOG_RESUMED = 2 // u8
const LOG_TEXT_BYTES = 3 // u8
const LOG_SWAP_BYTES = 4 // u32
const LOG_COUNTER = 8 // u32
const LOG_VERSION = 12 // u8, u8, u16, u32
const LOG_DIGEST = 20 // 8 bytes
const LOG_TEXT = 28
const LOG_MAXIMUM_TEXT = RECORD_CONTENTS_BYTES - LOG_TEXT

const SWAPS: readonly (SwapType | 'none')[] = ['none', 'test', 'permanent', 'revert']
const KINDS = ['swap', 'boot', 'refused', 'panic'] as const

/** What a board knows that no image may change. */
export interface Vault {
  /** No image with a lower one boots. */
  readonly securityCounter: number
  /** Images must be signed by it; undefined: SHA-256 is enough. */
  readonly key: PublicKey | undefined
}

export interface BootLogEntry {
  readonly number: number
  /** swap: one begins. boot: an image was booted. refused: an update was not taken. panic: nothing boots. */
  readonly kind: (typeof KINDS)[number]
  readonly swap: SwapType | 'none'
  /** The swap had been interrupted. */
  readonly resumed: boolean
  readonly swapBytes: number
  /** The board's, at the end of the boot. */
  readonly securityCounter: number
  /** Of the image that it is about; undefined if there is none. */
  readonly version: ImageVersion | undefined
  /** First bytes of the image's SHA-256. */
  readonly digest: Uint8Array
  /** Why. */
  readonly text: string
}

export type NewLogEntry = Partial<Omit<BootLogEntry, 'number' | 'kind'>> & Pick<BootLogEntry, 'kind'>

export class BootArea {
  readonly #vault: RecordRing
  readonly #log: RecordRing

  constructor(region: Region) {
    this.#vault = new RecordRing(region, VAULT_MAGIC, 0, VAULT_BLOCKS)
    this.#log = new RecordRing(region, LOG_MAGIC, VAULT_BLOCKS, region.bytes / ERASE_BLOCK_BYTES - VAULT_BLOCKS)
  }

  readVault(): Vault {
    const contents = this.#vault.read().at(-1)?.contents
    if (contents === undefined) return { securityCounter: 0, key: undefined }
    const raw = new Uint8Array(contents.buffer, contents.byteOffset + VAULT_KEY, PUBLIC_KEY_BYTES)
    return {
      securityCounter: contents.getUint32(VAULT_COUNTER, true),
      key: contents.getUint32(VAULT_HAS_KEY, true) === 0 ? undefined : PublicKey.of(raw),
    }
  }

  /** Twice, so that one flipped bit does not bring back what was before. */
  writeVault({ securityCounter, key }: Vault): void {
    const bytes = new Uint8Array(VAULT_BYTES)
    const view = new DataView(bytes.buffer)
    view.setUint32(VAULT_COUNTER, securityCounter, true)
    view.setUint32(VAULT_HAS_KEY, key === undefined ? 0 : 1, true)
    if (key !== undefined) bytes.set(key.raw, VAULT_KEY)
    this.#vault.append(bytes)
    this.#vault.append(bytes)
  }

  /** The boot log, oldest first. */
  readLog(): BootLogEntry[] {
    return this.#log.read().map(({ number, contents }) => decodeEntry(number, contents))
  }

  log(entry: NewLogEntry): void {
    this.#log.append(encodeEntry(entry))
  }
}

function encodeEntry(entry: NewLogEntry): Uint8Array {
  const bytes = new Uint8Array(RECORD_CONTENTS_BYTES)
  const view = new DataView(bytes.buffer)
  const { version } = entry
  view.setUint8(LOG_KIND, KINDS.indexOf(entry.kind))
  view.setUint8(LOG_SWAP, SWAPS.indexOf(entry.swap ?? 'none'))
  view.setUint8(LOG_RESUMED, entry.resumed === true ? 1 : 0)
  view.setUint32(LOG_SWAP_BYTES, entry.swapBytes ?? 0, true)
  view.setUint32(LOG_COUNTER, entry.securityCounter ?? 0, true)
  if (version !== undefined) {
    view.setUint8(LOG_VERSION, version.major)
    view.setUint8(LOG_VERSION + 1, version.minor)
    view.setUint16(LOG_VERSION + 2, version.revision, true)
    view.setUint32(LOG_VERSION + 4, version.build, true)
    bytes.set((entry.digest ?? new Uint8Array(8)).subarray(0, 8), LOG_DIGEST)
  }
  const { written } = new TextEncoder().encodeInto(entry.text ?? '', bytes.subarray(LOG_TEXT))
  view.setUint8(LOG_TEXT_BYTES, written)
  return bytes
}

function decodeEntry(number: number, contents: DataView): BootLogEntry {
  const at = (offset: number, bytes: number) => new Uint8Array(contents.buffer, contents.byteOffset + offset, bytes)
  const digest = at(LOG_DIGEST, 8)
  return {
    number,
    kind: KINDS[contents.getUint8(LOG_KIND)] ?? 'panic',
    swap: SWAPS[contents.getUint8(LOG_SWAP)] ?? 'none',
    resumed: contents.getUint8(LOG_RESUMED) === 1,
    swapBytes: contents.getUint32(LOG_SWAP_BYTES, true),
    securityCounter: contents.getUint32(LOG_COUNTER, true),
    version: digest.every((byte) => byte === 0)
      ? undefined
      : {
          major: contents.getUint8(LOG_VERSION),
          minor: contents.getUint8(LOG_VERSION + 1),
          revision: contents.getUint16(LOG_VERSION + 2, true),
          build: contents.getUint32(LOG_VERSION + 4, true),
        },
    digest,
    text: new TextDecoder().decode(at(LOG_TEXT, Math.min(contents.getUint8(LOG_TEXT_BYTES), LOG_MAXIMUM_TEXT))),
  }
}
