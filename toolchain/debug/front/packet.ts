/** The frame that a farm stopped for, as values: its headers with their fields, then its bytes. */
import type { Stop, Value } from '../session/api.ts'
import { decodeFrame, type FrameField } from '../values/index.ts'

type StoppedFrame = NonNullable<Stop['frame']>

const BYTES_PER_LINE = 16

export function packetValues({ bytes }: StoppedFrame): readonly Value[] {
  return [...decodeFrame(bytes).layers.map((layer) => fieldValue(layer, '')), bytesValue(bytes)]
}

/** Fields are shown without the name of their header, which stands above them. */
function fieldValue(field: FrameField, header: string): Value {
  const name = header !== '' && field.name.startsWith(`${header}.`) ? field.name.slice(header.length + 1) : field.name
  const children = () => field.children.map((child) => fieldValue(child, field.name))
  return plain(name, field.label, field.display, field.scalar, children, field.children.length > 0)
}

function bytesValue(bytes: Uint8Array): Value {
  const lines = () =>
    hexDump(bytes).map((line) => plain(line.slice(0, 4), 'u8[]', line.slice(6), undefined, () => [], false))
  return plain('bytes', `u8[${bytes.length}]`, `${bytes.length} bytes`, undefined, lines, true)
}

/** A value that is not in INIC memory any more. */
function plain(
  name: string,
  type: string,
  display: string,
  scalar: Value['scalar'],
  children: () => readonly Value[],
  expandable: boolean,
): Value {
  const nowhere = { address: undefined, bytes: undefined, path: undefined, indexed: 0 }
  return { name, type, display, scalar, ...nowhere, expandable, children }
}

/** `0010  00 28 12 34 …  .(.4`, sixteen bytes a line. */
function hexDump(bytes: Uint8Array): string[] {
  const lines: string[] = []
  for (let at = 0; at < bytes.length; at += BYTES_PER_LINE) {
    const part = bytes.subarray(at, at + BYTES_PER_LINE)
    const cells = [...part].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
    const text = [...part].map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('')
    lines.push(`${at.toString(16).padStart(4, '0')}  ${cells.padEnd(BYTES_PER_LINE * 3 - 1)}  ${text}`)
  }
  return lines
}
