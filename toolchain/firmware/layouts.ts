/**
 * Class layouts of a firmware: what the inspector and the debugger read INIC memory by. `inic build` writes them to
 * build/<target>/firmware.layouts.json.
 */

export interface FieldLayout {
  readonly name: string
  /** As AssemblyScript writes it: `u32`, `bool`, or a class's name. */
  readonly type: string
  /** Bytes from the start of the object. */
  readonly offset: number
  readonly bytes: number
}

export interface ClassLayout {
  /** Short name, with type arguments if it has any. */
  readonly name: string
  /** File that declares it, from the firmware's own folder: `firmware/tcp/tcb`. */
  readonly source: string
  readonly bytes: number
  /** By offset; a subclass begins with its base's fields. */
  readonly fields: readonly FieldLayout[]
}

export interface Layouts {
  /** Version of this file's form. */
  readonly format: 2
  readonly classes: readonly ClassLayout[]
  /** Numbers that the source gives a name: states, flag bits, sizes; 32-bit ones signed. */
  readonly constants: Readonly<Record<string, number>>
}

export const LAYOUTS_FORMAT = 2

export type FieldValue = number | bigint | boolean

/** The class of this short name, or undefined. */
export function findClass(layouts: Layouts, name: string): ClassLayout | undefined {
  return layouts.classes.find((layout) => layout.name === name)
}

/** Reads one field of the object at `address`. A field that holds another object gives its address. */
export function readField(memory: DataView, address: number, field: FieldLayout): FieldValue {
  const at = address + field.offset
  switch (field.type) {
    case 'bool':
      return memory.getUint8(at) !== 0
    case 'i8':
      return memory.getInt8(at)
    case 'i16':
      return memory.getInt16(at, true)
    case 'i32':
    case 'isize':
      return memory.getInt32(at, true)
    case 'i64':
      return memory.getBigInt64(at, true)
    case 'f32':
      return memory.getFloat32(at, true)
    case 'f64':
      return memory.getFloat64(at, true)
  }
  switch (field.bytes) {
    case 1:
      return memory.getUint8(at)
    case 2:
      return memory.getUint16(at, true)
    case 8:
      return memory.getBigUint64(at, true)
    default:
      return memory.getUint32(at, true)
  }
}

/** Parses the contents of a layouts file. @throws Error if it is of another form. */
export function parseLayouts(text: string): Layouts {
  const layouts = JSON.parse(text) as Layouts
  if (layouts.format !== LAYOUTS_FORMAT || !Array.isArray(layouts.classes)) {
    throw new Error(`class layouts of format ${String(layouts.format)}; this toolchain reads format ${LAYOUTS_FORMAT}`)
  }
  return layouts
}
