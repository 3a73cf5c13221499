import { MAXIMUM_STATE_BYTES } from '../abi/messages.ts'
import { nodeError } from './errors.ts'

/** First byte of a state: what the rest is. A state of no bytes is none: the connection is as good as a new one. */
const NOTHING = 0
const BYTES = 1
const JSON_TEXT = 2

/** The state that an application hands over, as bytes. Throws TypeError for what JSON does not carry, RangeError if it is too large. */
export function encodeState(state: unknown): Uint8Array {
  if (state === undefined) return Uint8Array.of(NOTHING)
  if (state instanceof Uint8Array) return tagged(BYTES, state)
  const text = JSON.stringify(state)
  if (text === undefined) {
    throw nodeError(
      TypeError,
      'ERR_INVALID_ARG_TYPE',
      `The "state" argument must be a Uint8Array or something that JSON can carry. Received type ${typeof state}`,
    )
  }
  return tagged(JSON_TEXT, Buffer.from(text))
}

/** What `encodeState` was given. Throws SyntaxError if `bytes` are not of its making. */
export function decodeState(bytes: Buffer): unknown {
  const rest = bytes.subarray(1)
  switch (bytes[0]) {
    case NOTHING:
      return undefined
    case BYTES:
      return rest
    case JSON_TEXT:
      return JSON.parse(rest.toString())
  }
  throw new SyntaxError(`State of unknown kind ${bytes[0]}`)
}

function tagged(tag: number, content: Uint8Array): Uint8Array {
  if (content.length >= MAXIMUM_STATE_BYTES) {
    throw nodeError(
      RangeError,
      'ERR_OUT_OF_RANGE',
      `The state of a connection may take ${MAXIMUM_STATE_BYTES - 1} bytes. Received ${content.length}`,
    )
  }
  const bytes = new Uint8Array(1 + content.length)
  bytes[0] = tag
  bytes.set(content, 1)
  return bytes
}
