/** What a debugger knows of a compiled firmware: the shapes that {@link Program} speaks in. */
import type { Layouts } from '../../firmware/layouts.ts'
import type { SourcePosition } from '../../firmware/symbols.ts'
import type { WasmModule } from '../../firmware/wasm-module.ts'

/** Offsets in firmware.wasm, `end` excluded. A pc is Wasmtime's ModulePC. */
export interface PcRange {
  readonly start: number
  readonly end: number
}

/** A source file that some code of the module comes from. */
export interface SourceFile {
  /** As asc names it, from the firmware project's folder: `firmware/tcp/input.ts`, `~lib/rt/common.ts`. */
  readonly name: string
  /** Absolute path, or undefined: a file of asc's library, or a program without a project folder. */
  readonly path: string | undefined
}

/** Where a breakpoint that was asked for belongs. */
export interface BreakpointPlace extends SourcePosition {
  /**
   * First pc of each stretch of code that comes from this line, with what is inlined into it, ascending: several for a line that was
   * inlined or compiled more than once. At the beginning of inlined code see `Program.entering`.
   */
  readonly pcs: readonly number[]
}

/** A function of the source, as it was declared. */
export interface Declaration {
  /** `tcpInput`, or `Class#method`. */
  readonly name: string
  /** As asc names it, without type arguments: `firmware/tcp/input/tcpInput`. */
  readonly path: string
  readonly file: string
  /** Lines and columns from 1; the end is behind the last character. */
  readonly line: number
  readonly column: number
  readonly endLine: number
  readonly endColumn: number
}

/** A function of the module. */
export interface FunctionSymbol {
  /** In the function index space, imports first. */
  readonly index: number
  /** As the name section has it: `firmware/tcp/input/tcpInput`, with type arguments; else `function 12`. */
  readonly path: string
  /** Last part of the path: `tcpInput`, `Class#method`. */
  readonly name: string
  /** Instructions, local declarations left out; the last is the function's own `end`. */
  readonly range: PcRange
  /** First pc that comes from a source line of the function itself, else `range.start`. Function breakpoints go here. */
  readonly entry: number
  /** Undefined for what the compiler made up, or if the build recorded none. */
  readonly declaration: Declaration | undefined
  /** wasm value types: `i32`. */
  readonly parameters: readonly string[]
  /** wasm value types, parameters first. */
  readonly locals: readonly string[]
}

export type InstructionKind =
  | 'call'
  | 'call_indirect'
  | 'return'
  /** The `end` that closes the function: the other way to return. */
  | 'end of function'
  /** block, loop, if, else, end, br, br_if, br_table. */
  | 'control'
  | 'load'
  | 'store'
  /** memory.copy, memory.fill, memory.init. */
  | 'bulk memory'
  | 'unreachable'
  | 'other'

export interface Instruction {
  readonly pc: number
  /** Encoded length. */
  readonly bytes: number
  /** WAT: `call $firmware/tcp/tcb/tcbAt`, `i32.load offset=36`. */
  readonly text: string
  readonly kind: InstructionKind
}

/** A parameter or local variable that has a value at some pc. */
export interface Variable {
  readonly name: string
  /** As AssemblyScript writes it: `u32`, `bool`, a class's name; a wasm value type if that is all that is known. */
  readonly type: string
  readonly parameter: boolean
  /** Index of the wasm local that holds it. */
  readonly local: number
}

/** One entry of a backtrace by source functions: several may stand for one wasm frame. */
export interface SourceFrame {
  /** Of the source function, or the wasm function's own. */
  readonly name: string
  readonly declaration: Declaration | undefined
  /** Where execution stands in it: at the instruction, or at the call that is under way. */
  readonly source: SourcePosition | undefined
  /** True if the optimizer put this function into the next one. */
  readonly inline: boolean
}

export interface ProgramInput {
  readonly wasm: Uint8Array
  /** Text of asc's source map. Without it there are no lines. */
  readonly sourceMap?: string | undefined
  /** Text of firmware.layouts.json. Without it there are no classes and constants. */
  readonly layouts?: string | undefined
  /** Text of firmware.symbols.json. Without it there are no declarations, inlined frames and types of locals. */
  readonly symbols?: string | undefined
  /** Project folder: what source names count from. */
  readonly directory?: string | undefined
}

export type { SourcePosition, WasmModule }

/** How a frame's pc is meant. */
export interface FramePc {
  /** The pc is a return address, as in every frame that has called another: what counts is the call before it. */
  readonly caller?: boolean | undefined
}

/** A source function among those that stand at a pc. */
export interface InlinePc extends FramePc {
  /** Which of `frames(pc)`, 0 = innermost. */
  readonly inline?: number | undefined
}

/** A compiled firmware with what its build tells. Immutable; everything is found on first use and kept. */
export interface Program {
  readonly module: WasmModule
  readonly wasm: Uint8Array
  readonly layouts: Layouts | undefined
  /** Numbers that the source gives a name. 32-bit ones are signed, as the layouts file has them. */
  readonly constants: ReadonlyMap<string, number>

  // ── lines ──

  /** Files that some code comes from, by name. */
  readonly files: readonly SourceFile[]
  /**
   * The files meant by an editor's absolute path, by `firmware/tcp/input.ts`, or by the end of a name at a folder's boundary,
   * `tcp/input.ts`. More than one if the name does not tell them apart, none if there is no such file.
   */
  findFiles(name: string): readonly SourceFile[]
  /**
   * Source of the instruction at `pc`. What the compiler added without a source counts to what stands before it in the function,
   * else behind. Undefined outside of functions, or without a source map.
   */
  positionAt(pc: number, how?: FramePc): SourcePosition | undefined
  /**
   * Where a breakpoint on a line belongs: on that line, or the next one that has code. Undefined if no line of the file from there
   * on has. @param file as for `findFiles`; a name that means several files is looked up in all, and the first with code taken.
   * @param column only code from that column on, from 1
   */
  breakpointsAt(file: string, line: number, column?: number): BreakpointPlace | undefined
  /** Lines of a file that a breakpoint can be on, ascending. */
  breakpointLines(file: string): readonly number[]
  /** True for the first instruction of a stretch of code that comes from one line. */
  isLineStart(pc: number): boolean

  // ── functions and instructions ──

  /** All that have code, ascending by pc. */
  readonly functions: readonly FunctionSymbol[]
  functionAt(pc: number): FunctionSymbol | undefined
  /**
   * Functions called that: `tcpInput`, `Class#method`, `Class.method`, a whole path or its end at a `/`, type arguments or not, or a
   * glob (`tcp*`, `firmware/tcp/**`). Empty if there is none.
   */
  findFunctions(name: string): readonly FunctionSymbol[]
  /**
   * Pcs for a function breakpoint: entries of the functions found, and the first pc of each place where the optimizer put one
   * inline. Ascending.
   */
  functionBreakpoints(name: string): readonly number[]
  /** The instruction that begins at `pc`. */
  instructionAt(pc: number): Instruction | undefined
  /** Instructions that begin in a range, over functions; bytes between bodies are left out. */
  instructions(start: number, end: number): readonly Instruction[]

  // ── frames ──

  /**
   * Source functions that stand for the wasm frame at `pc`, innermost first; the last is the wasm function itself. Empty outside
   * of functions.
   */
  frames(pc: number, how?: FramePc): readonly SourceFrame[]
  /**
   * How many of `frames(pc)`, from the innermost, begin at this very instruction: inlined functions that execution is about to
   * enter. At a breakpoint on the line that calls them, and after stepping over to it, they are not shown; stepping in shows one more.
   */
  entering(pc: number): number
  /** Parameters and locals with a known place at `pc`, parameters first. A variable whose place is not certain is left out. */
  variables(pc: number, how?: InlinePc): readonly Variable[]
}
