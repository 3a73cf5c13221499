/** A card whose firmware runs under the debugger: it stops at breakpoints, where a test looks at frames, locals and memory. */

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type DebugCpu, type DebugFrame, WasmtimeCpu } from '../../emulator/cpu/index.ts'
import { createProgram, type Program } from '../../toolchain/debug/symbols/index.ts'
import { type EvaluationContext, type MemoryAccess, memoryOf, type Scope } from '../../toolchain/debug/values/index.ts'
import type { BuildTarget } from '../../toolchain/firmware/artifacts.ts'
import { buildFirmware } from '../../toolchain/firmware/build.ts'
import { packageRoot } from '../../toolchain/package-root.ts'
import type { BareCard } from './bare-card.ts'

const programs = new Map<BuildTarget, Promise<Program>>()

/** Program information of ipOS, built first. */
export function ipos(target: BuildTarget): Promise<Program> {
  let program = programs.get(target)
  if (program === undefined) {
    program = build(target)
    programs.set(target, program)
  }
  return program
}

async function build(target: BuildTarget): Promise<Program> {
  const { artifacts } = await buildFirmware({ directory: packageRoot, target })
  const { wasm, ...texts } = artifacts
  const [sourceMap, layouts, symbols] = await Promise.all(
    [texts.sourceMap, texts.layouts, texts.symbols].map((file) => readFile(file, 'utf8')),
  )
  return createProgram({ wasm: await readFile(wasm), sourceMap, layouts, symbols, directory: packageRoot })
}

/** INIC memory that may be written. */
export function inicMemory(buffer: ArrayBufferLike): MemoryAccess {
  const bytes = new Uint8Array(buffer)
  return memoryOf(bytes, (address, data) => bytes.set(data, address))
}

export function firmwareFile(target: BuildTarget): string {
  return join(packageRoot, 'build', target, 'firmware.wasm')
}

export interface Stop {
  readonly pc: number
  /** Innermost first. */
  readonly frames: readonly DebugFrame[]
  /** For values: INIC memory, and the locals of one of the frames. */
  context(frame?: number): EvaluationContext
  scope(frame?: number, inline?: number): Scope
}

/** Runs the card's polls from now on under the debugger, with breakpoints at `pcs`. */
export function debugCard(
  card: BareCard,
  program: Program,
  pcs: Iterable<number>,
  onStop: (stop: Stop) => void,
): DebugCpu {
  const cpu = new WasmtimeCpu({ module: program.wasm, memoryBytes: card.memory.length }).debugTwin()
  for (const pc of pcs) cpu.addBreakpoint(pc)
  const memory = new Uint8Array(cpu.memory)
  card.replaceCpu((irqs) => {
    memory.set(card.memory)
    let outcome = cpu.poll(irqs)
    while (outcome.state === 'stopped') {
      const frames = cpu.frames()
      onStop({
        pc: frames[0].pc,
        frames,
        context: (frame = 0) => ({ memory: inicMemory(cpu.memory), frame: { locals: () => frames[frame].locals } }),
        scope: (frame = 0, inline = 0) => ({ pc: frames[frame].pc, caller: frame > 0, inline }),
      })
      outcome = cpu.resume()
    }
    card.memory.set(memory)
    if (outcome.state === 'fault') throw new Error(outcome.fault.message)
    return outcome.result
  })
  return cpu
}
