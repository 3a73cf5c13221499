import type { Artifacts } from '../../firmware/artifacts.ts'
import type { Program, ProgramInput } from './types.ts'

/** Reads what one build target left. @throws CommandError if the module is not there or is none. */
export declare function loadProgram(files: Artifacts, directory?: string): Promise<Program>

/** @throws WasmFormatError for bytes that are no module; Error for layouts or symbols of another format. */
export declare function createProgram(input: ProgramInput): Program
