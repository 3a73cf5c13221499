/** Why bytes are not an image that may boot; one code per rule of the format. */
export type ImageErrorCode =
  | 'ERASED' // nothing but erased flash
  | 'TRUNCATED' // ends before what its lengths announce
  | 'MAGIC' // does not begin with an image header
  | 'HEADER' // a header field out of range
  | 'TLV_MAGIC' // no TLV area where one must be
  | 'TLV_SIZE' // a TLV or an area with an impossible length
  | 'HASH_MISSING' // no SHA-256 TLV
  | 'HASH_WRONG' // the SHA-256 TLV and the bytes disagree
  | 'VERSION' // a version that does not fit the header's fields

/** Thrown by everything in toolchain/image that reads or builds images. */
export class ImageError extends Error {
  override readonly name = 'ImageError'
  readonly code: ImageErrorCode

  constructor(code: ImageErrorCode, message: string) {
    super(message)
    this.code = code
  }
}
