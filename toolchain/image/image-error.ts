/** Why bytes are not an image that may boot; one code per rule. */
export type ImageErrorCode =
  | 'ERASED' // nothing but erased flash
  | 'TRUNCATED' // ends before what its lengths announce
  | 'MAGIC' // does not begin with an image header
  | 'HEADER' // a header field out of range
  | 'FLAGS' // a flag of the header that no board can do justice to
  | 'TLV_MAGIC' // no TLV area where one must be
  | 'TLV_SIZE' // a TLV or an area with an impossible length
  | 'HASH_MISSING' // no SHA-256 TLV
  | 'HASH_WRONG' // the SHA-256 TLV and the bytes disagree
  | 'UNSIGNED' // no signature by the key that is trusted
  | 'SIGNATURE_WRONG' // a signature by that key, but not of these bytes
  | 'COUNTER' // a security counter below the one that is stored, or one that cannot be read
  | 'DEPENDENCY' // needs an image that a board does not have
  | 'TOO_LARGE' // does not fit into its slot
  | 'VERSION' // a version that does not fit the header's fields
  | 'KEY' // a file that holds no Ed25519 key

/** Thrown by everything in toolchain/image that reads or builds images. */
export class ImageError extends Error {
  override readonly name = 'ImageError'
  readonly code: ImageErrorCode

  constructor(code: ImageErrorCode, message: string) {
    super(message)
    this.code = code
  }
}
