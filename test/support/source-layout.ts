/** Layouts of State and Counters from the firmware's source: tests of a card without an emulator do without a build's layouts. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../../toolchain/package-root.ts'

const layouts = new Map<string, Map<string, { offset: number; bytes: number }>>()

/** Where the classes stand, with what they extend. */
const CLASS_SOURCES: Readonly<Record<string, string>> = {
  Hal: 'firmware/hal/state.ts',
  HalCounters: 'firmware/hal/state.ts',
  State: 'firmware/state.ts',
  Counters: 'firmware/state.ts',
}

/** Offsets of an @unmanaged class of plain numbers, read from its source: its base's fields, then its own, naturally aligned. */
export function sourceLayout(className: string): Map<string, { offset: number; bytes: number }> {
  let layout = layouts.get(className)
  if (layout) return layout
  const source = readFileSync(join(packageRoot, CLASS_SOURCES[className]!), 'utf8')
  const [, base, body = ''] = new RegExp(`class ${className}(?: extends (\\w+))? \\{([^}]*)\\}`).exec(source) ?? []
  layout = base === undefined ? new Map() : new Map(sourceLayout(base))
  let end = Math.max(0, ...Array.from(layout.values(), ({ offset, bytes }) => offset + bytes))
  for (const [, name, bits] of body.matchAll(/^\s*(\w+): [iu](8|16|32|64);?/gm)) {
    const bytes = Number(bits) / 8
    const offset = (end + bytes - 1) & -bytes
    layout.set(name!, { offset, bytes })
    end = offset + bytes
  }
  layouts.set(className, layout)
  return layout
}
