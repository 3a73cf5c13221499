/** How the REPL shows stops, source lines and values. */

import type { SourcePosition } from '../../firmware/symbols.ts'
import type { Stop, TimelinePosition, Value } from '../session/api.ts'
import type { ReplContext } from './context.ts'

/** Children of a value that are shown at most. */
const MAXIMUM_CHILDREN = 200

/** `Breakpoint 2, tcpInput at firmware/tcp/input.ts:90`, and the line. */
export function showStop(context: ReplContext, stop: Stop): void {
  const numbers = stop.breakpoints.flatMap((id) => context.book.byEngineId(id)?.number ?? [])
  const hit = numbers.length > 0 ? `Breakpoint ${numbers.join(', ')}, ` : ''
  const plain = stop.reason === 'breakpoint' || stop.reason === 'step'
  if (!plain || hit !== '') context.print(context.paint('bold', `${hit}${stop.text}`))
  showChange(context, stop)
  showPlace(context, { position: stop.position })
}

function showChange(context: ReplContext, { change }: Stop): void {
  if (change === undefined) return
  context.print(`  ${change.expression} at 0x${change.address.toString(16)}`)
  context.print(`  old: ${change.before.display}`)
  context.print(`  new: ${change.after.display}`)
}

/** Where the selected frame stands, with its source line. */
export function showPlace(context: ReplContext, options: { position?: TimelinePosition } = {}): void {
  const frame = context.selectedFrame()
  const name = context.paint('cyan', context.threadName(context.thread))
  const past = options.position?.live === false ? context.paint('dim', `  (past, slice ${options.position.slice})`) : ''
  if (frame === undefined) {
    context.print(`${name}  between two slices${past}`)
    return
  }
  const pc = frame.source === undefined ? ` pc 0x${frame.pc.toString(16)}` : ''
  context.print(`${name}  ${context.paint('yellow', frame.functionName)} at ${context.place(frame)}${pc}${past}`)
  if (frame.source !== undefined) showLine(context, frame.source)
}

function showLine(context: ReplContext, { file, line }: SourcePosition): void {
  const text = context.files.lines(file)?.[line - 1]
  if (text !== undefined) context.print(numbered(context, line, text))
}

export function numbered(context: ReplContext, line: number, text: string, mark = ''): string {
  return `${mark}${context.paint('dim', String(line).padEnd(7))} ${text}`.trimEnd()
}

/** A value with what is in it, `depth` levels deep. */
export function showValue(context: ReplContext, value: Value, options: { name?: string; depth?: number } = {}): void {
  const { name = value.name, depth = 1 } = options
  showTree(context, value, name, depth, '')
}

function showTree(context: ReplContext, value: Value, name: string, depth: number, indent: string): void {
  const head = name === '' ? '' : `${name} = `
  if (depth === 0 || !value.expandable) {
    context.print(`${indent}${head}${value.display}`)
    return
  }
  context.print(`${indent}${head}${value.display}${value.indexed > 0 ? ' [' : ' {'}`)
  const children = value.children(0, MAXIMUM_CHILDREN + 1)
  for (const child of children.slice(0, MAXIMUM_CHILDREN))
    showTree(context, child, child.name, depth - 1, `${indent}  `)
  const rest = Math.max(value.indexed, children.length) - MAXIMUM_CHILDREN
  if (rest > 0) context.print(`${indent}  … ${rest} more`)
  context.print(`${indent}${value.indexed > 0 ? ']' : '}'}`)
}

/** `slice 1234, 0.531204000 s`. */
export function formatPosition(position: TimelinePosition): string {
  const time = `${(position.timeNs / 1e9).toFixed(9)} s`
  return `slice ${position.slice}, ${time}${position.live ? '' : ' (past)'}`
}
