/**
 * Program information: from a firmware.wasm and what the build put beside it to lines, functions, instructions and
 * variables. Pure: no CPU, no memory. One {@link Program} serves every INIC that runs the same module.
 *
 *     const program = createProgram({ wasm, sourceMap, layouts, symbols, directory })
 *     program.breakpointsAt('tcp/input.ts', 90)    // → { file, line, column, pcs }
 *     program.frames(pc)                           // → innermost first; inlined functions as frames of their own
 *     program.variables(pc)                        // → parameters and locals that have a value there
 *
 * The pc of a frame that has called another is a return address: give `{ caller: true }` there.
 */
export { createProgram } from './program.ts'
export type {
  BreakpointPlace,
  Declaration,
  FramePc,
  FunctionSymbol,
  InlinePc,
  Instruction,
  InstructionKind,
  PcRange,
  Program,
  ProgramInput,
  SourceFile,
  SourceFrame,
  SourcePosition,
  Variable,
} from './types.ts'
