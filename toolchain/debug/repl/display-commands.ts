/** `print` and what shows memory and values: also at every stop. */

import { errorMessage } from '../../errors.ts'
import { bitsOf, formatNumber, type NumberFormat, scalarOf } from '../front/values.ts'
import type { Value } from '../session/api.ts'
import { parseNumbers, type ReplCommand } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'
import { examine } from './examine.ts'
import { showValue } from './show.ts'

const NUMBER_FORMATS = 'xduotcaz'

/** `/x rest`: the format without its stroke, and the rest. */
export function splitFormat(args: string): { format: string; rest: string } {
  const match = /^\/(\w*)\s*(.*)$/s.exec(args)
  return match ? { format: match[1], rest: match[2] } : { format: '', rest: args }
}

export function evaluate(context: ReplContext, expression: string): Value {
  if (expression === '') throw new ReplError('say what: an expression, such as tcb[3].sndNxt')
  return context.session.evaluate(expression, context.thread, context.frame)
}

function print(context: ReplContext, args: string): void {
  const { format, rest } = splitFormat(args)
  showFormatted(context, evaluate(context, rest), format)
}

function showFormatted(context: ReplContext, value: Value, format: string): void {
  if (format === '') return showValue(context, value)
  if (format.length !== 1 || !NUMBER_FORMATS.includes(format))
    throw new ReplError(
      `'/${format}' is no format: x hexadecimal, d signed, u unsigned, o octal, t binary, c character, a address, z with zeros`,
    )
  const scalar = scalarOf(value)
  if (scalar === undefined) throw new ReplError(`${value.name} is a ${value.type}, and no number`)
  context.print(`${value.name} = ${formatNumber(scalar, format as NumberFormat, bitsOf(value))}`)
}

/** Shows what `display` was told to show; what cannot be evaluated here says so. */
export function showDisplays(context: ReplContext): void {
  for (const { number, expression, format } of context.displays) {
    const before = `${number}: `
    try {
      const value = evaluate(context, expression)
      const scalar = format === '' ? undefined : scalarOf(value)
      const text = scalar === undefined ? value.display : formatNumber(scalar, format as NumberFormat, bitsOf(value))
      context.print(`${before}${expression} = ${text}`)
    } catch (error) {
      context.print(context.paint('dim', `${before}${expression}: ${errorMessage(error)}`))
    }
  }
}

function addDisplay(context: ReplContext, args: string): void {
  if (args === '') return showDisplays(context)
  const { format, rest } = splitFormat(args)
  if (format !== '' && (format.length !== 1 || !NUMBER_FORMATS.includes(format)))
    throw new ReplError(`'/${format}' is no format of display`)
  evaluate(context, rest)
  const number = (context.displays.at(-1)?.number ?? 0) + 1
  context.displays.push({ number, expression: rest, format })
  showDisplays(context)
}

function removeDisplays(context: ReplContext, args: string): void {
  if (args === '') {
    context.displays.length = 0
    return
  }
  for (const number of parseNumbers(args)) {
    const index = context.displays.findIndex((display) => display.number === number)
    if (index < 0) throw new ReplError(`there is no display ${number}`)
    context.displays.splice(index, 1)
  }
}

function assign(context: ReplContext, args: string): void {
  const text = args.replace(/^var(?:iable)?\s+/, '')
  const match = /^(.*?[^=!<>])=(?!=)(.*)$/s.exec(text)
  if (match === null) throw new ReplError('write it as in set tcb[3].sndWnd = 0')
  const value = context.session.assign(match[1].trim(), match[2].trim(), context.thread, context.frame)
  context.print(`${match[1].trim()} = ${value.display}`)
}

export const DISPLAY_COMMANDS: readonly ReplCommand[] = [
  {
    names: ['print', 'p', 'inspect'],
    section: 'looking',
    usage: 'print[/F] EXPRESSION',
    summary: 'the value of an expression; F: x d u o t c a z, as in gdb',
    details: [
      'Expressions are written as in AssemblyScript, over locals, tables, registers and constants:',
      '  p tcb[3].sndNxt        p/x flags        p *seg        p tcb[3].state == TCP_ESTABLISHED',
    ],
    repeats: 'same',
    run: print,
  },
  {
    names: ['set'],
    section: 'looking',
    usage: 'set [var] PLACE = VALUE',
    summary: 'change memory or a register; locals cannot be changed, nor anything in the past',
    run: assign,
  },
  {
    names: ['x'],
    section: 'looking',
    usage: 'x[/NFU] [ADDRESS]',
    summary: 'memory: N units of U (b 1, h 2, w 4, g 8 bytes) in format F (x d u o t c a z, s string, i instructions)',
    details: [
      '  x/16xb 0x1000          x/4i $pc         x/8xw tcb[3]',
      'Without an address it goes on behind the last.',
    ],
    repeats: 'bare',
    run: (context, args) => {
      const { format, rest } = splitFormat(args)
      examine(context, format, rest)
    },
  },
  {
    names: ['display'],
    section: 'looking',
    usage: 'display[/F] [EXPRESSION]',
    summary: 'show an expression at every stop; without one, show them now',
    run: addDisplay,
  },
  {
    names: ['undisplay'],
    section: 'looking',
    usage: 'undisplay [N…]',
    summary: 'no longer show that; all of them without a number',
    run: removeDisplays,
    complete: () => [],
  },
]
