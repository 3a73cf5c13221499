/** Locals of optimized code against those of the debug build: the same inputs, stopped at every line of TCP. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { parseSourceSymbols } from '../toolchain/firmware/source-symbols.ts'
import { debugCard, firmwareFile, ipos } from './support/debugged-card.ts'
import { TcpNet } from './support/tcp-script.ts'
import { established } from './support/tcp-states.ts'

const FILES = ['input', 'rcv', 'ack', 'output', 'handshake', 'tcb', 'timer', 'congestion', 'close', 'reset', 'table']

/** Values that each variable was seen to have, by `function:line name` and by `function name`. */
interface Seen {
  readonly atLine: ReadonlyMap<string, ReadonlySet<string>>
  readonly inFunction: ReadonlyMap<string, ReadonlySet<string>>
}

/** A conversation with much of what TCP can do: data in and out of order, a repetition, the end. */
function converse(net: TcpNet): void {
  const c = established(net)
  c.send({ flags: 'PA', payload: 'GET / HTTP/1.1\r\n\r\n' })
  c.send({ flags: 'PA', payload: 'later', seq: 200 })
  net.lenient = true
  net.wait(500)
  c.send({ flags: 'A', payload: 'x' })
  c.send({ flags: 'FA' })
  net.wait(2000)
}

async function observe(target: 'debug' | 'release'): Promise<Seen> {
  const program = await ipos(target)
  const net = new TcpNet({ firmware: firmwareFile(target) })
  const pcs = FILES.flatMap((name) => {
    const file = `tcp/${name}.ts`
    return program.breakpointLines(file).flatMap((line) => program.breakpointsAt(file, line)?.pcs ?? [])
  })
  const atLine = new Map<string, Set<string>>()
  const inFunction = new Map<string, Set<string>>()
  const note = (map: Map<string, Set<string>>, key: string, value: string) => {
    map.set(key, (map.get(key) ?? new Set()).add(value))
  }
  const cpu = debugCard(net.card, program, new Set(pcs), ({ frames }) => {
    for (const [level, { pc, locals }] of frames.entries()) {
      const caller = level > 0
      for (const [inline, { declaration, source }] of program.frames(pc, { caller }).entries()) {
        for (const { name, local } of program.variables(pc, { caller, inline })) {
          const value = String(locals[local].value)
          note(atLine, `${declaration?.path}:${source?.line} ${name}`, value)
          note(inFunction, `${declaration?.path} ${name}`, value)
        }
      }
    }
  })
  try {
    converse(net)
  } finally {
    cpu.dispose()
  }
  return { atLine, inFunction }
}

/** `function name` of the variables that the source assigns again: the optimizer may do so some instructions earlier or later. */
function reassigned(): Set<string> {
  const file = join(dirname(firmwareFile('release')), 'firmware.symbols.json')
  const { declarations } = parseSourceSymbols(readFileSync(file, 'utf8'))
  return new Set(
    declarations.flatMap(({ path, variables }) =>
      variables.filter((variable) => variable.reassigned).map(({ name }) => `${path} ${name}`),
    ),
  )
}

test('no variable of optimized code shows a value that the debug build does not have there', async (t) => {
  const debug = await observe('debug')
  const release = await observe('release')
  const changing = reassigned()
  let compared = 0
  for (const [key, values] of release.atLine) {
    const name = key.replace(/:\S+/, '')
    const there = changing.has(name) ? debug.inFunction.get(name) : debug.atLine.get(key)
    // A line that the optimizer lets begin where the debug build stops at none.
    if (there === undefined) continue
    compared++
    const wrong = [...values].filter((value) => !there.has(value))
    t.deepEqual(wrong, [], `${key}: the debug build has ${[...there].slice(0, 5).join(', ')}`)
  }
  t.true(compared > 1000, `${compared} variables on lines`)
  // Most of what the debug build knows is known in optimized code as well.
  t.true(release.inFunction.size > debug.inFunction.size / 2, `${release.inFunction.size} of ${debug.inFunction.size}`)
})
