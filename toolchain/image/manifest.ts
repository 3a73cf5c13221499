/** What an image says of itself in its TLVs, and whether a board may boot it for that. */
import type { Image } from './image.ts'
import { ImageError } from './image-error.ts'
import type { KeyPair, PublicKey } from './keys.ts'
import { TLV_DEPENDENCY, TLV_ED25519, TLV_KEY_HASH, TLV_PUBLIC_KEY, TLV_SECURITY_COUNTER, type Tlv } from './tlv.ts'
import { formatVersion, type ImageVersion } from './version.ts'

const COUNTER_BYTES = 4
const DEPENDENCY_BYTES = 12
/** The only image that a board has. */
export const BOARD_IMAGE = 0

// MCUboot's struct image_header, ih_flags.
export const FLAG_ENCRYPTED_AES128 = 0x4
export const FLAG_ENCRYPTED_AES256 = 0x8
export const FLAG_NON_BOOTABLE = 0x10
export const FLAG_RAM_LOAD = 0x20
const FLAG_COMPRESSED = 0xe00

const REFUSED_FLAGS: readonly [number, string][] = [
  [FLAG_ENCRYPTED_AES128 | FLAG_ENCRYPTED_AES256, 'encrypted'],
  [FLAG_NON_BOOTABLE, 'marked as not bootable'],
  [FLAG_COMPRESSED, 'compressed'],
]

/** Another image, by its number, that must be there in this version or a newer one. */
export interface Dependency {
  readonly image: number
  readonly version: ImageVersion
}

/** What a board demands of an image. */
export interface ImagePolicy {
  /** Must have signed it; undefined: SHA-256 is enough. */
  readonly key: PublicKey | undefined
  /** The least security counter. */
  readonly securityCounter: number
}

/** The security counter TLV (u32); 0 for an image without one. @throws ImageError COUNTER */
export function securityCounterOf(image: Image): number {
  const found = image.protectedTlvs.filter(({ type }) => type === TLV_SECURITY_COUNTER)
  if (found.length === 0) return 0
  const [{ value }] = found
  if (found.length > 1 || value.length !== COUNTER_BYTES) {
    throw new ImageError(
      'COUNTER',
      found.length > 1
        ? `${found.length} security counters; an image has one at most`
        : `a security counter of ${value.length} bytes; it has ${COUNTER_BYTES}`,
    )
  }
  return view(value).getUint32(0, true)
}

/** The dependency TLVs. @throws ImageError DEPENDENCY */
export function dependenciesOf(image: Image): Dependency[] {
  return image.protectedTlvs
    .filter(({ type }) => type === TLV_DEPENDENCY)
    .map(({ value }) => {
      if (value.length !== DEPENDENCY_BYTES) {
        throw new ImageError('DEPENDENCY', `a dependency of ${value.length} bytes; it has ${DEPENDENCY_BYTES}`)
      }
      const fields = view(value)
      const version = {
        major: fields.getUint8(4),
        minor: fields.getUint8(5),
        revision: fields.getUint16(6, true),
        build: fields.getUint32(8, true),
      }
      return { image: fields.getUint8(0), version }
    })
}

export function securityCounterTlv(counter: number): Tlv {
  if (!Number.isInteger(counter) || counter < 0 || counter > 0xffffffff)
    throw new ImageError('COUNTER', `a security counter of ${counter}; it goes from 0 to 4294967295`)
  const value = new Uint8Array(COUNTER_BYTES)
  view(value).setUint32(0, counter, true)
  return { type: TLV_SECURITY_COUNTER, value }
}

export function dependencyTlv({ image, version }: Dependency): Tlv {
  if (!Number.isInteger(image) || image < 0 || image > 0xff)
    throw new ImageError('DEPENDENCY', `a dependency on image ${image}; images are numbered from 0 to 255`)
  const value = new Uint8Array(DEPENDENCY_BYTES)
  const fields = view(value)
  fields.setUint8(0, image)
  fields.setUint8(4, version.major)
  fields.setUint8(5, version.minor)
  fields.setUint16(6, version.revision, true)
  fields.setUint32(8, version.build, true)
  return { type: TLV_DEPENDENCY, value }
}

/** The TLVs by which `key` vouches for an image with this digest. */
export function signatureTlvs(key: KeyPair, digest: Uint8Array, publicKeyFormat: 'hash' | 'full' = 'hash'): Tlv[] {
  const { hash, der } = key.publicKey
  return [
    publicKeyFormat === 'full' ? { type: TLV_PUBLIC_KEY, value: der } : { type: TLV_KEY_HASH, value: hash },
    { type: TLV_ED25519, value: key.sign(digest) },
  ]
}

/** True if an image carries a signature of any kind of ours. */
export function isSigned(image: Image): boolean {
  return image.tlvs.some(({ type }) => type === TLV_ED25519)
}

/**
 * Checks the signature as MCUboot does: a TLV that names the key goes before the signature by it; there may be others, by other keys.
 *
 * @throws ImageError UNSIGNED or SIGNATURE_WRONG
 */
export function checkSignature(image: Image, key: PublicKey): void {
  let named = false
  let wrong = false
  for (const { type, value } of image.tlvs) {
    if (type === TLV_KEY_HASH) named = Buffer.compare(value, key.hash) === 0
    else if (type === TLV_PUBLIC_KEY) named = Buffer.compare(value, key.der) === 0
    else if (type === TLV_ED25519 && named) {
      if (key.verifies(image.digest, value)) return
      wrong = true
    }
  }
  if (wrong)
    throw new ImageError('SIGNATURE_WRONG', `wrong signature: it is not one of key ${key.name} over this image`)
  const found = isSigned(image) ? 'it is signed by another key' : 'it is not signed'
  throw new ImageError('UNSIGNED', `not signed by key ${key.name}, which the board trusts: ${found}`)
}

/** Whether a board may boot an image whose hash was found right. @throws ImageError */
export function checkPolicy(image: Image, policy: ImagePolicy): void {
  for (const [flags, what] of REFUSED_FLAGS) {
    if ((image.flags & flags) !== 0) throw new ImageError('FLAGS', `${what} (flags 0x${image.flags.toString(16)})`)
  }
  if (policy.key !== undefined) checkSignature(image, policy.key)
  const counter = securityCounterOf(image)
  if (counter < policy.securityCounter) {
    throw new ImageError(
      'COUNTER',
      `security counter ${counter}: the board has confirmed ${policy.securityCounter}, and goes back to nothing older`,
    )
  }
  for (const dependency of dependenciesOf(image)) {
    // Of this image itself there is no other version than the one at hand.
    if (dependency.image === BOARD_IMAGE) continue
    throw new ImageError(
      'DEPENDENCY',
      `depends on image ${dependency.image}, version ${formatVersion(dependency.version)}; a board has image 0 alone`,
    )
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
