/**
 * Ed25519 keys as imgtool keeps them: a PEM file with PKCS#8 for a pair, with SubjectPublicKeyInfo for a public key alone. In an image a key
 * is named by the SHA-256 of its SubjectPublicKeyInfo in DER (RFC 8410 §4).
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto'
import { encodeHex } from './hex.ts'
import { ImageError } from './image-error.ts'

/** Bytes of an Ed25519 public key (RFC 8032 §5.1.5), and of a signature. */
export const PUBLIC_KEY_BYTES = 32
export const SIGNATURE_BYTES = 64

/** What stands before the 32 bytes of the key in every Ed25519 SubjectPublicKeyInfo. */
const SPKI_PREFIX = Buffer.from('302a300506032b6570032100', 'hex')

export class PublicKey {
  readonly #key: KeyObject
  /** SubjectPublicKeyInfo. */
  readonly der: Uint8Array
  /** SHA-256 of `der`: what the key hash TLV holds. */
  readonly hash: Uint8Array

  constructor(key: KeyObject) {
    this.#key = key
    this.der = new Uint8Array(key.export({ type: 'spki', format: 'der' }))
    this.hash = new Uint8Array(createHash('sha256').update(this.der).digest())
  }

  /** Of the 32 bytes of `raw`. @throws ImageError KEY */
  static of(raw: Uint8Array): PublicKey {
    return new PublicKey(parse(() => createPublicKey({ key: spki(raw), format: 'der', type: 'spki' })))
  }

  /** The key itself, 32 bytes. */
  get raw(): Uint8Array {
    return this.der.subarray(SPKI_PREFIX.length)
  }

  get pem(): string {
    return String(this.#key.export({ type: 'spki', format: 'pem' }))
  }

  /** The first digits of the hash, for people. */
  get name(): string {
    return encodeHex(this.hash).slice(0, 16)
  }

  equals(other: PublicKey): boolean {
    return Buffer.compare(this.der, other.der) === 0
  }

  /** True if `signature` is this key's, of `digest`. */
  verifies(digest: Uint8Array, signature: Uint8Array): boolean {
    return signature.length === SIGNATURE_BYTES && verify(null, digest, this.#key, signature)
  }
}

export class KeyPair {
  readonly #key: KeyObject
  readonly publicKey: PublicKey

  constructor(key: KeyObject) {
    this.#key = key
    this.publicKey = new PublicKey(createPublicKey(key))
  }

  static generate(): KeyPair {
    return new KeyPair(generateKeyPairSync('ed25519').privateKey)
  }

  /** PKCS#8, without a password. */
  get pem(): string {
    return String(this.#key.export({ type: 'pkcs8', format: 'pem' }))
  }

  /** imgtool and MCUboot sign the digest of an image with Ed25519 as RFC 8032 §5.1 has it: the digest is the message. */
  sign(digest: Uint8Array): Uint8Array {
    return new Uint8Array(sign(null, digest, this.#key))
  }
}

/** The key pair in a PEM file. @throws ImageError KEY */
export function parseKeyPair(pem: string): KeyPair {
  if (!isPrivate(pem)) {
    throw new ImageError(
      'KEY',
      /PUBLIC KEY/.test(pem) ? 'a public key alone: it cannot sign' : 'no private key in PEM (PKCS#8)',
    )
  }
  if (/ENCRYPTED/.test(pem)) {
    throw new ImageError('KEY', 'protected by a password; remove it: openssl pkey -in KEY -out PLAIN-KEY')
  }
  return new KeyPair(parse(() => createPrivateKey(pem)))
}

/** The public key in a PEM file, which may hold the private one too. @throws ImageError KEY */
export function parsePublicKey(pem: string): PublicKey {
  if (isPrivate(pem)) return parseKeyPair(pem).publicKey
  if (!/-----BEGIN PUBLIC KEY-----/.test(pem)) throw new ImageError('KEY', 'no key in PEM')
  return new PublicKey(parse(() => createPublicKey(pem)))
}

function isPrivate(pem: string): boolean {
  return /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)
}

function parse(read: () => KeyObject): KeyObject {
  let key: KeyObject
  try {
    key = read()
  } catch (error) {
    throw new ImageError('KEY', `no key that can be read (${error instanceof Error ? error.message : error})`)
  }
  if (key.asymmetricKeyType !== 'ed25519')
    throw new ImageError('KEY', `a key of type ${key.asymmetricKeyType}; boards know ed25519 alone`)
  return key
}

function spki(raw: Uint8Array): Buffer {
  if (raw.length !== PUBLIC_KEY_BYTES)
    throw new ImageError('KEY', `a public key of ${raw.length} bytes; an Ed25519 key has ${PUBLIC_KEY_BYTES}`)
  return Buffer.concat([SPKI_PREFIX, raw])
}
