/**
 * Recordings as files: sections, each with a checksum.
 *
 *      0          8         12        16
 *      ├─"INICREC\n"┼─VERSION─┼─0───────┤
 *      ├─TYPE─┼─LENGTH─┼─CRC32─┼─0─┼─ payload, padded to 8 ─┤ …
 *
 * LIFE: a board's power-on: length of a JSON text, the text, length of the module, the module, then its memory as pages that are not
 * zero: count, and for each its number and 4096 bytes. CHUNK: entries of log.ts. END: slices recorded. All numbers little-endian.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { CARVE_BASE } from '../../abi/memory.ts'
import { Checkpoints } from './checkpoints.ts'
import { SliceLog } from './log.ts'
import { type Life, Recorder } from './recorder.ts'
import type { Recording } from './recording.ts'

const MAGIC = 'INICREC\n'
const VERSION = 1
const FILE_HEADER_BYTES = 16
const SECTION_HEADER_BYTES = 16
const SECTION_LIFE = 1
const SECTION_CHUNK = 2
const SECTION_END = 3
const PAGE_BYTES = 4096
const MAXIMUM_MEMORY_BYTES = 1 << 30
/** Of all power-ons in a file together. */
const MAXIMUM_TOTAL_BYTES = 64 * 2 ** 30

/** What stands beside a life in the file, for the debugger: texts of the build. */
export type LifeNotes = Readonly<Record<string, string>>

/** A file that cannot be read as a recording. */
export class RecordingError extends Error {
  override readonly name = 'RecordingError'
}

/** Writes what a farm's boards are given into a file, as it happens. */
export class RecordingFile {
  readonly recorder: Recorder
  readonly #fd: number
  readonly #notes: (module: Uint8Array) => LifeNotes
  #closed = false

  /** @param notes what to keep with a module. Throws what opening the file throws. */
  constructor(path: string, notes: (module: Uint8Array) => LifeNotes = () => ({})) {
    this.#notes = notes
    this.#fd = openSync(path, 'w', 0o600)
    const header = Buffer.alloc(FILE_HEADER_BYTES)
    header.write(MAGIC, 'latin1')
    header.writeUInt32LE(VERSION, 8)
    writeSync(this.#fd, header)
    this.recorder = new Recorder({
      log: new SliceLog((chunk) => this.#section(SECTION_CHUNK, chunk)),
      keepsCheckpoints: false,
      onLife: (life, memory) => this.#section(SECTION_LIFE, encodeLife(life, memory, this.#notes(life.module))),
    })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.recorder.log.flush()
    const end = Buffer.alloc(8)
    end.writeUInt32LE(this.recorder.slice)
    this.#section(SECTION_END, end)
    closeSync(this.#fd)
  }

  #section(type: number, payload: Uint8Array): void {
    const header = Buffer.alloc(SECTION_HEADER_BYTES)
    header.writeUInt32LE(type, 0)
    header.writeUInt32LE(payload.length, 4)
    header.writeUInt32LE(crc32(payload), 8)
    writeSync(this.#fd, header)
    writeSync(this.#fd, payload)
    if (payload.length % 8 !== 0) writeSync(this.#fd, Buffer.alloc(8 - (payload.length % 8)))
  }
}

/** A recording that was read; `remark` says what is odd about it. */
export interface ReadRecording extends Recording {
  readonly notes: ReadonlyMap<Life, LifeNotes>
  readonly remark: string | undefined
}

/** Reads a recording. One that breaks off, as of a farm that was killed, is read as far as it goes. @throws RecordingError */
export function readRecording(path: string): ReadRecording {
  const bytes = readFileSync(path)
  if (bytes.length < FILE_HEADER_BYTES || bytes.toString('latin1', 0, 8) !== MAGIC)
    throw new RecordingError('this is no recording: it does not begin with INICREC')
  const version = bytes.readUInt32LE(8)
  if (version !== VERSION)
    throw new RecordingError(`a recording of version ${version}; this toolchain reads version ${VERSION}`)
  const log = new SliceLog()
  const lives: Life[] = []
  const notes = new Map<Life, LifeNotes>()
  let slice: number | undefined
  let remark: string | undefined
  for (let at = FILE_HEADER_BYTES; at < bytes.length && slice === undefined; ) {
    const length = at + SECTION_HEADER_BYTES <= bytes.length ? bytes.readUInt32LE(at + 4) : Number.POSITIVE_INFINITY
    const start = at + SECTION_HEADER_BYTES
    if (start + length > bytes.length) {
      remark = `the recording breaks off at byte ${at}`
      break
    }
    const payload = bytes.subarray(start, start + length)
    if (crc32(payload) !== bytes.readUInt32LE(at + 8))
      throw new RecordingError(`the section at byte ${at} is damaged: its checksum is wrong`)
    try {
      switch (bytes.readUInt32LE(at)) {
        case SECTION_LIFE: {
          const [life, texts] = decodeLife(payload, lives.length)
          lives.push(life)
          if (lives.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0) > MAXIMUM_TOTAL_BYTES)
            throw new RangeError('its boards have more memory than can be replayed')
          notes.set(life, texts)
          break
        }
        case SECTION_CHUNK:
          log.append(payload)
          break
        case SECTION_END:
          slice = payload.readUInt32LE(0)
          break
        default:
          throw new RangeError(`type ${bytes.readUInt32LE(at)} is not known`)
      }
    } catch (error) {
      throw new RecordingError(`the section at byte ${at}: ${(error as Error).message}`, { cause: error })
    }
    at = start + ((length + 7) & ~7)
  }
  if (lives.length === 0) throw new RecordingError('the recording has no board in it')
  return { log, lives, notes, oldestSlice: 0, slice: log.checkAgainst(lives), remark }
}

function encodeLife(life: Life, memory: Uint8Array, notes: LifeNotes): Uint8Array {
  const { board, module, memoryBytes, fuelPerSlice, firstSlice } = life
  const text = Buffer.from(JSON.stringify({ board, memoryBytes, fuelPerSlice, firstSlice, notes }))
  const pages: Buffer[] = []
  for (let page = 0; page * PAGE_BYTES < memory.length; page++) {
    const contents = Buffer.from(memory.buffer, memory.byteOffset + page * PAGE_BYTES, PAGE_BYTES)
    if (contents.every((byte) => byte === 0)) continue
    pages.push(word(page), contents)
  }
  return Buffer.concat([word(text.length), text, word(module.length), module, word(pages.length / 2), ...pages])
}

function decodeLife(payload: Buffer, id: number): [Life, LifeNotes] {
  let at = 0
  const take = (bytes: number): Buffer => {
    if (bytes > payload.length - at) throw new RangeError(`it ends at byte ${payload.length} of ${at + bytes}`)
    at += bytes
    return payload.subarray(at - bytes, at)
  }
  const number = () => take(4).readUInt32LE(0)
  const text = JSON.parse(take(number()).toString()) as Record<string, unknown>
  const { board, memoryBytes, fuelPerSlice, firstSlice, notes } = text
  const isMemory =
    Number.isInteger(memoryBytes) &&
    (memoryBytes as number) > CARVE_BASE &&
    (memoryBytes as number) <= MAXIMUM_MEMORY_BYTES &&
    (memoryBytes as number) % 65536 === 0
  if (
    typeof board !== 'string' ||
    !isMemory ||
    !Number.isSafeInteger(fuelPerSlice) ||
    !Number.isSafeInteger(firstSlice)
  )
    throw new RangeError('it does not describe a board')
  if (typeof notes !== 'object' || notes === null || Object.values(notes).some((note) => typeof note !== 'string'))
    throw new RangeError('its notes are no texts')
  const module = new Uint8Array(take(number()))
  const checkpoints = new Checkpoints(memoryBytes as number)
  const memory = new Uint8Array(memoryBytes as number)
  const used: number[] = []
  for (let pages = number(); pages > 0; pages--) {
    const page = number()
    if ((page + 1) * PAGE_BYTES > memory.length) throw new RangeError(`page ${page} is outside its memory`)
    memory.set(take(PAGE_BYTES), page * PAGE_BYTES)
    used.push(page, page + 1)
  }
  checkpoints.take(firstSlice as number, memory, Uint32Array.from(used))
  const life: Life = {
    ...{ id, board, module, memoryBytes: memory.length, checkpoints },
    ...{ fuelPerSlice: fuelPerSlice as number, firstSlice: firstSlice as number },
  }
  return [life, notes as LifeNotes]
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
