/** Records between host and card (abi/messages.ts), for tests. */
import * as M from '../../abi/messages.ts'
import { QUEUE_EVENT, QUEUES_PER_SET } from '../../abi/rings.ts'

export interface EventRecord {
  kind: 'event'
  queue: number
  bytes: Uint8Array
  type: number
  status: number
  socket: number
  cookie: number
  sequence: number
  localAddress: number
  remoteAddress: number
  localPort: number
  remotePort: number
  value: number
  value2: number
}

export interface ReceiveRecord {
  kind: 'receive'
  queue: number
  bytes: Uint8Array
  type: number
  flags: number
  socket: number
  sequence: number
  payload: Uint8Array
  remoteAddress: number
  localAddress: number
  remotePort: number
}

export type CardRecord = EventRecord | ReceiveRecord

export interface CommandFields {
  op: number
  flags?: number
  socket?: number
  a?: number
  b?: number
  /** u32 fields from byte 16 on. */
  fields?: number[]
  payload?: Uint8Array
}

/** A host-to-card record (abi/messages.ts). */
export function command(fields: CommandFields): Uint8Array {
  const words = fields.fields ?? []
  const record = new Uint8Array(M.COMMAND_HEADER_BYTES + words.length * 4 + (fields.payload?.length ?? 0))
  const view = new DataView(record.buffer)
  view.setUint16(M.COMMAND_OP, fields.op, true)
  view.setUint16(M.COMMAND_FLAGS, fields.flags ?? 0, true)
  view.setUint32(M.COMMAND_SOCKET, fields.socket ?? 0, true)
  view.setUint32(M.COMMAND_A, fields.a ?? 0, true)
  view.setUint32(M.COMMAND_B, fields.b ?? 0, true)
  for (const [i, word] of words.entries()) view.setUint32(M.COMMAND_HEADER_BYTES + i * 4, word, true)
  if (fields.payload) record.set(fields.payload, M.COMMAND_HEADER_BYTES + words.length * 4)
  return record
}

/** Decodes what the card put on an RX or event queue. @param queue index over all sets */
export function decodeRecord(queue: number, bytes: Uint8Array): CardRecord {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const word = (offset: number) => view.getUint32(offset, true)
  const half = (offset: number) => view.getUint16(offset, true)
  if (queue % QUEUES_PER_SET === QUEUE_EVENT) {
    return {
      kind: 'event',
      queue,
      bytes,
      type: half(M.EVENT_TYPE),
      status: half(M.EVENT_STATUS),
      socket: word(M.EVENT_SOCKET),
      cookie: word(M.EVENT_COOKIE),
      sequence: word(M.EVENT_SEQUENCE),
      localAddress: word(M.EVENT_LOCAL_ADDRESS),
      remoteAddress: word(M.EVENT_REMOTE_ADDRESS),
      localPort: half(M.EVENT_LOCAL_PORT),
      remotePort: half(M.EVENT_REMOTE_PORT),
      value: word(M.EVENT_VALUE),
      value2: word(M.EVENT_VALUE2),
    }
  }
  const datagram = half(M.RX_TYPE) === M.RX_DATAGRAM
  return {
    kind: 'receive',
    queue,
    bytes,
    type: half(M.RX_TYPE),
    flags: half(M.RX_FLAGS),
    socket: word(M.RX_SOCKET),
    sequence: word(M.RX_SEQUENCE),
    payload: bytes.subarray(datagram ? M.RX_DATAGRAM_HEADER_BYTES : M.RX_HEADER_BYTES),
    remoteAddress: datagram ? word(M.RX_DATAGRAM_REMOTE_ADDRESS) : 0,
    localAddress: datagram ? word(M.RX_DATAGRAM_LOCAL_ADDRESS) : 0,
    remotePort: datagram ? half(M.RX_DATAGRAM_REMOTE_PORT) : 0,
  }
}
