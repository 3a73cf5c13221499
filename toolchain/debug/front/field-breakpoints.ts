/**
 * Breakpoints on things of this field, as a person writes them: in the REPL behind the word, in an editor as the condition of the
 * filter of that name.
 *
 *   frame tcp.flags.syn && ip.dst == 192.0.2.1 in on server1
 *   state SYN-RECEIVED -> ESTABLISHED
 *   row tcb insert
 *   console listening
 *   irq MAC0
 */
import type { BreakpointSpec } from '../session/api.ts'

export type FieldKind = 'frame' | 'tcp-state' | 'row' | 'console' | 'interrupt'

/** @throws Error that says how it is written */
export function parseFieldBreakpoint(kind: FieldKind, text: string): BreakpointSpec {
  const rest = text.trim()
  switch (kind) {
    case 'frame':
      return parseFrame(rest)
    case 'tcp-state':
      return parseState(rest)
    case 'row':
      return parseRow(rest)
    case 'console':
      if (rest === '') throw new Error('say which text: console TEXT, or console /pattern/')
      return { kind, text: rest }
    case 'interrupt':
      return rest === '' ? { kind } : { kind, line: rest }
  }
}

function parseFrame(text: string): BreakpointSpec {
  let filter = text
  let port: string | undefined
  let direction: 'in' | 'out' | undefined
  const place = /\s+on\s+(\S+)$/.exec(filter)
  if (place) {
    filter = filter.slice(0, place.index)
    port = place[1]
  }
  const way = /(?:^|\s+)(in|out)$/.exec(filter)
  if (way) {
    filter = filter.slice(0, way.index)
    direction = way[1] as 'in' | 'out'
  }
  if (filter === '')
    throw new Error('say which frames: frame FILTER [in|out] [on PORT], as in frame tcp.flags.syn in on server1')
  return { kind: 'frame', filter, ...(port !== undefined && { port }), ...(direction !== undefined && { direction }) }
}

function parseState(text: string): BreakpointSpec {
  if (text === '') return { kind: 'tcp-state' }
  const match = /^(\S*)\s*(?:->|→)\s*(\S*)$/.exec(text)
  const [from, to] = match ? [match[1], match[2]] : ['', text]
  if (/\s/.test(to)) throw new Error('write the states as in SYN-RECEIVED -> ESTABLISHED')
  const known = (name: string) => (/^(any|\*)?$/i.test(name) ? undefined : name.toUpperCase())
  const [before, after] = [known(from), known(to)]
  return {
    kind: 'tcp-state',
    ...(before !== undefined && { from: before }),
    ...(after !== undefined && { to: after }),
  }
}

function parseRow(text: string): BreakpointSpec {
  const [table, event, ...more] = text.split(/\s+/)
  if (table === '' || more.length > 0 || (event !== undefined && event !== 'insert' && event !== 'remove'))
    throw new Error('write it as in row tcb insert; the second word is insert, remove or nothing')
  return { kind: 'row', table, ...(event !== undefined && { event }) }
}
