/**
 * The module that LLDB reads: with DWARF behind it, and with the branches that it overlooks made visible.
 *
 * To step over a line fast, LLDB disassembles it and runs to its next branch. To LLVM's disassembler `if`, `else` and the `end` of a function are
 * none, so that LLDB would run past its line there and not come back. They are served as branches of the same length; only LLDB's
 * `disassemble` shows the difference.
 */
import { readIfPresentSync } from '../../files.ts'
import { artifacts } from '../../firmware/artifacts.ts'
import { belongsTo } from '../../firmware/dwarf.ts'
import { decodeFunction } from '../../firmware/wasm-instructions.ts'
import { readWasmModule } from '../../firmware/wasm-module.ts'

const BR_IF = 0x0d
const RETURN = 0x0f

/** What `inic build` made of this very module with DWARF behind it, from the first of these projects that has it. */
export function findDebugModule(wasm: Uint8Array, projects: readonly string[]): Uint8Array | undefined {
  for (const directory of projects) {
    for (const target of ['release', 'debug'] as const) {
      const found = readIfPresentSync(artifacts(directory, target).debugWasm)
      if (found !== undefined && belongsTo(found, wasm)) return found
    }
  }
  return undefined
}

/** A copy with branches in place of what LLDB takes for none. @throws WasmFormatError */
export function withVisibleBranches(wasm: Uint8Array): Uint8Array {
  const served = Uint8Array.from(wasm)
  for (const range of readWasmModule(wasm).code) {
    const { instructions } = decodeFunction(wasm, range)
    for (const { pc, opcode } of instructions) {
      if (opcode.name === 'if') served[pc] = BR_IF
      else if (opcode.name === 'else') served[pc] = RETURN
    }
    served[range.end - 1] = RETURN
  }
  return served
}
