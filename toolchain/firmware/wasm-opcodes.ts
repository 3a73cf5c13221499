/**
 * Names and immediates of WebAssembly's instructions, as far as firmware can hold them: the core of version 2 with vectors, bulk
 * memory, sign extension, saturating conversions, tail calls, and atomics.
 *
 * Source: WebAssembly core specification 2.0, "Binary Format: Instructions"; the threads and tail call proposals.
 */

/** What follows an opcode. */
export type Immediates =
  | 'none'
  | 'block'
  | 'label'
  | 'labels'
  | 'function'
  | 'call_indirect'
  | 'local'
  | 'global'
  | 'table'
  | 'table init'
  | 'table copy'
  | 'element'
  | 'memory'
  | 'memory init'
  | 'memory copy'
  | 'data'
  | 'memarg'
  | 'memarg lane'
  | 'lane'
  | 'lanes'
  | 'i32'
  | 'i64'
  | 'f32'
  | 'f64'
  | 'v128'
  | 'reference type'
  | 'value types'
  | 'zero'

export interface Opcode {
  readonly name: string
  readonly immediates: Immediates
  /** Bytes that a load or store touches; undefined for other instructions. */
  readonly accessBytes?: number
  readonly stores?: boolean
}

const CORE: [number, Opcode][] = []
const BULK: [number, Opcode][] = []
const VECTOR: [number, Opcode][] = []
const ATOMIC: [number, Opcode][] = []

/** Gives successive numbers from `first` to names, a `-` leaves one out. */
function define(
  table: [number, Opcode][],
  first: number,
  names: string,
  rest: Omit<Opcode, 'name'> = { immediates: 'none' },
): void {
  names.split(' ').forEach((name, index) => {
    if (name !== '-') table.push([first + index, { name, ...rest }])
  })
}

function defineAccess(
  table: [number, Opcode][],
  first: number,
  names: string,
  stores: boolean,
  immediates?: Immediates,
) {
  names.split(' ').forEach((name, index) => {
    table.push([first + index, { name, immediates: immediates ?? 'memarg', accessBytes: accessBytes(name), stores }])
  })
}

/** Bytes of an access by its name: `i64.load32_u` touches 4. */
function accessBytes(name: string): number {
  const part = /(?:load|store)(\d+)x(\d+)/.exec(name)
  if (part) return (Number(part[1]) * Number(part[2])) / 8
  const narrow = /(?:load|store|splat|zero|rmw|wait)(\d+)/.exec(name) ?? /load(\d+)_/.exec(name)
  if (narrow) return Number(narrow[1]) / 8
  return Number(/^.(\d+)/.exec(name)?.[1] ?? 0) / 8
}

define(CORE, 0x00, 'unreachable nop')
define(CORE, 0x02, 'block loop if', { immediates: 'block' })
define(CORE, 0x05, 'else')
define(CORE, 0x0b, 'end')
define(CORE, 0x0c, 'br br_if', { immediates: 'label' })
define(CORE, 0x0e, 'br_table', { immediates: 'labels' })
define(CORE, 0x0f, 'return')
define(CORE, 0x10, 'call', { immediates: 'function' })
define(CORE, 0x11, 'call_indirect', { immediates: 'call_indirect' })
define(CORE, 0x12, 'return_call', { immediates: 'function' })
define(CORE, 0x13, 'return_call_indirect', { immediates: 'call_indirect' })
define(CORE, 0x1a, 'drop select')
define(CORE, 0x1c, 'select', { immediates: 'value types' })
define(CORE, 0x20, 'local.get local.set local.tee', { immediates: 'local' })
define(CORE, 0x23, 'global.get global.set', { immediates: 'global' })
define(CORE, 0x25, 'table.get table.set', { immediates: 'table' })
defineAccess(
  CORE,
  0x28,
  'i32.load i64.load f32.load f64.load i32.load8_s i32.load8_u i32.load16_s i32.load16_u i64.load8_s i64.load8_u i64.load16_s i64.load16_u i64.load32_s i64.load32_u',
  false,
)
defineAccess(
  CORE,
  0x36,
  'i32.store i64.store f32.store f64.store i32.store8 i32.store16 i64.store8 i64.store16 i64.store32',
  true,
)
define(CORE, 0x3f, 'memory.size memory.grow', { immediates: 'memory' })
define(CORE, 0x41, 'i32.const', { immediates: 'i32' })
define(CORE, 0x42, 'i64.const', { immediates: 'i64' })
define(CORE, 0x43, 'f32.const', { immediates: 'f32' })
define(CORE, 0x44, 'f64.const', { immediates: 'f64' })
const COMPARE = 'eqz eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u'
const FLOAT_COMPARE = 'eq ne lt gt le ge'
const INTEGER = 'clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr'
const FLOAT = 'abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign'
define(CORE, 0x45, of('i32', COMPARE))
define(CORE, 0x50, of('i64', COMPARE))
define(CORE, 0x5b, of('f32', FLOAT_COMPARE))
define(CORE, 0x61, of('f64', FLOAT_COMPARE))
define(CORE, 0x67, of('i32', INTEGER))
define(CORE, 0x79, of('i64', INTEGER))
define(CORE, 0x8b, of('f32', FLOAT))
define(CORE, 0x99, of('f64', FLOAT))
define(CORE, 0xa7, of('i32', 'wrap_i64 trunc_f32_s trunc_f32_u trunc_f64_s trunc_f64_u'))
define(CORE, 0xac, of('i64', 'extend_i32_s extend_i32_u trunc_f32_s trunc_f32_u trunc_f64_s trunc_f64_u'))
define(CORE, 0xb2, of('f32', 'convert_i32_s convert_i32_u convert_i64_s convert_i64_u demote_f64'))
define(CORE, 0xb7, of('f64', 'convert_i32_s convert_i32_u convert_i64_s convert_i64_u promote_f32'))
define(CORE, 0xbc, 'i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64')
define(CORE, 0xc0, 'i32.extend8_s i32.extend16_s i64.extend8_s i64.extend16_s i64.extend32_s')
define(CORE, 0xd0, 'ref.null', { immediates: 'reference type' })
define(CORE, 0xd1, 'ref.is_null')
define(CORE, 0xd2, 'ref.func', { immediates: 'function' })

define(
  BULK,
  0,
  'i32.trunc_sat_f32_s i32.trunc_sat_f32_u i32.trunc_sat_f64_s i32.trunc_sat_f64_u i64.trunc_sat_f32_s i64.trunc_sat_f32_u i64.trunc_sat_f64_s i64.trunc_sat_f64_u',
)
define(BULK, 8, 'memory.init', { immediates: 'memory init' })
define(BULK, 9, 'data.drop', { immediates: 'data' })
define(BULK, 10, 'memory.copy', { immediates: 'memory copy' })
define(BULK, 11, 'memory.fill', { immediates: 'memory' })
define(BULK, 12, 'table.init', { immediates: 'table init' })
define(BULK, 13, 'elem.drop', { immediates: 'element' })
define(BULK, 14, 'table.copy', { immediates: 'table copy' })
define(BULK, 15, 'table.grow table.size table.fill', { immediates: 'table' })

defineAccess(
  VECTOR,
  0,
  'v128.load v128.load8x8_s v128.load8x8_u v128.load16x4_s v128.load16x4_u v128.load32x2_s v128.load32x2_u v128.load8_splat v128.load16_splat v128.load32_splat v128.load64_splat',
  false,
)
defineAccess(VECTOR, 11, 'v128.store', true)
define(VECTOR, 12, 'v128.const', { immediates: 'v128' })
define(VECTOR, 13, 'i8x16.shuffle', { immediates: 'lanes' })
define(VECTOR, 14, 'i8x16.swizzle i8x16.splat i16x8.splat i32x4.splat i64x2.splat f32x4.splat f64x2.splat')
define(
  VECTOR,
  21,
  'i8x16.extract_lane_s i8x16.extract_lane_u i8x16.replace_lane i16x8.extract_lane_s i16x8.extract_lane_u i16x8.replace_lane i32x4.extract_lane i32x4.replace_lane i64x2.extract_lane i64x2.replace_lane f32x4.extract_lane f32x4.replace_lane f64x2.extract_lane f64x2.replace_lane',
  { immediates: 'lane' },
)
const VECTOR_COMPARE = 'eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u'
define(VECTOR, 35, of('i8x16', VECTOR_COMPARE))
define(VECTOR, 45, of('i16x8', VECTOR_COMPARE))
define(VECTOR, 55, of('i32x4', VECTOR_COMPARE))
define(VECTOR, 65, of('f32x4', FLOAT_COMPARE))
define(VECTOR, 71, of('f64x2', FLOAT_COMPARE))
define(VECTOR, 77, of('v128', 'not and andnot or xor bitselect any_true'))
defineAccess(VECTOR, 84, 'v128.load8_lane v128.load16_lane v128.load32_lane v128.load64_lane', false, 'memarg lane')
defineAccess(VECTOR, 88, 'v128.store8_lane v128.store16_lane v128.store32_lane v128.store64_lane', true, 'memarg lane')
defineAccess(VECTOR, 92, 'v128.load32_zero v128.load64_zero', false)
define(VECTOR, 94, 'f32x4.demote_f64x2_zero f64x2.promote_low_f32x4')
define(
  VECTOR,
  96,
  'i8x16.abs i8x16.neg i8x16.popcnt i8x16.all_true i8x16.bitmask i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest i8x16.shl i8x16.shr_s i8x16.shr_u i8x16.add i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s i8x16.sub_sat_u f64x2.ceil f64x2.floor i8x16.min_s i8x16.min_u i8x16.max_s i8x16.max_u f64x2.trunc i8x16.avgr_u i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u',
)
define(
  VECTOR,
  128,
  'i16x8.abs i16x8.neg i16x8.q15mulr_sat_s i16x8.all_true i16x8.bitmask i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u i16x8.extend_high_i8x16_u i16x8.shl i16x8.shr_s i16x8.shr_u i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s i16x8.sub_sat_u f64x2.nearest i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u - i16x8.avgr_u i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u i16x8.extmul_high_i8x16_u',
)
define(
  VECTOR,
  160,
  'i32x4.abs i32x4.neg - i32x4.all_true i32x4.bitmask - - i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u i32x4.extend_high_i16x8_u i32x4.shl i32x4.shr_s i32x4.shr_u i32x4.add - - i32x4.sub - - - i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s - i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u i32x4.extmul_high_i16x8_u',
)
define(
  VECTOR,
  192,
  'i64x2.abs i64x2.neg - i64x2.all_true i64x2.bitmask - - i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s i64x2.extend_low_i32x4_u i64x2.extend_high_i32x4_u i64x2.shl i64x2.shr_s i64x2.shr_u i64x2.add - - i64x2.sub - - - i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u i64x2.extmul_high_i32x4_u',
)
define(
  VECTOR,
  224,
  'f32x4.abs f32x4.neg - f32x4.sqrt f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin f32x4.pmax',
)
define(
  VECTOR,
  236,
  'f64x2.abs f64x2.neg - f64x2.sqrt f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin f64x2.pmax',
)
define(
  VECTOR,
  248,
  'i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s f32x4.convert_i32x4_u i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u',
)

define(ATOMIC, 0, 'memory.atomic.notify', { immediates: 'memarg' })
define(ATOMIC, 3, 'atomic.fence', { immediates: 'zero' })
define(ATOMIC, 1, 'memory.atomic.wait32', { immediates: 'memarg', accessBytes: 4, stores: false })
define(ATOMIC, 2, 'memory.atomic.wait64', { immediates: 'memarg', accessBytes: 8, stores: false })
const ATOMIC_WIDTHS = ['i32.', 'i64.', 'i32.8', 'i32.16', 'i64.8', 'i64.16', 'i64.32']
for (const [index, width] of ATOMIC_WIDTHS.entries()) {
  const [type, narrow] = width.split('.')
  const bytes = Number(narrow || type.slice(1)) / 8
  const unsigned = narrow ? '_u' : ''
  const memory = { immediates: 'memarg', accessBytes: bytes } as const
  define(ATOMIC, 0x10 + index, `${type}.atomic.load${narrow}${unsigned}`, { ...memory, stores: false })
  define(ATOMIC, 0x17 + index, `${type}.atomic.store${narrow}`, { ...memory, stores: true })
  for (const [row, operation] of ['add', 'sub', 'and', 'or', 'xor', 'xchg', 'cmpxchg'].entries()) {
    const name = `${type}.atomic.rmw${narrow}.${operation}${unsigned}`
    define(ATOMIC, 0x1e + row * 7 + index, name, { ...memory, stores: true })
  }
}

function of(type: string, names: string): string {
  return names
    .split(' ')
    .map((name) => `${type}.${name}`)
    .join(' ')
}

/** Opcodes of one byte. */
export const CORE_OPCODES: ReadonlyMap<number, Opcode> = new Map(CORE)
/** Opcodes after a prefix byte. */
export const PREFIXED_OPCODES: ReadonlyMap<number, ReadonlyMap<number, Opcode>> = new Map([
  [0xfc, new Map(BULK)],
  [0xfd, new Map(VECTOR)],
  [0xfe, new Map(ATOMIC)],
])
