/** Functions of the expression language. */
import { IP, MAC } from './meanings.ts'
import type { Evaluation, Node, ScalarNode } from './nodes.ts'
import { binaryNode, conditionalNode, converted, scalarOf } from './operators.ts'
import { BOOL, I32, U16, U32, U64 } from './type-model.ts'
import { ExpressionError } from './types.ts'

export interface ExpressionFunction {
  readonly parameters: readonly string[]
  readonly description: string
  /** @throws ExpressionError for arguments of the wrong kind */
  bind(given: readonly Node[], column: number): Node
}

function numbers(
  description: string,
  parameters: readonly string[],
  bind: (given: readonly ScalarNode[], column: number) => Node,
): ExpressionFunction {
  return { description, parameters, bind: (given, column) => bind(given.map(scalarOf), column) }
}

/** Compares sequence numbers: `difference` is that of the two, signed (RFC 9293 §3.4). */
function sequence(description: string, test: (difference: number) => boolean): ExpressionFunction {
  return numbers(description, ['a', 'b'], ([a, b], column) => {
    const [left, right] = [converted(a, U32), converted(b, U32)]
    const get = (run: Evaluation) => test(((left(run) as number) - (right(run) as number)) | 0)
    return { form: 'scalar', type: BOOL, get, column }
  })
}

export const FUNCTIONS: ReadonlyMap<string, ExpressionFunction> = new Map<string, ExpressionFunction>([
  [
    'ip',
    numbers('a number as IPv4 address', ['value'], ([value], column) => ({
      form: 'scalar',
      type: U32,
      meaning: IP,
      get: converted(value, U32),
      column,
    })),
  ],
  [
    'mac',
    numbers('the MAC address that stands at an address', ['address'], ([address], column) => {
      const at = converted(address, U32)
      return {
        form: 'scalar',
        type: U64,
        meaning: MAC,
        get: (run) => {
          const bytes = run.memory.read(Number(at(run)), 6)
          if (bytes === undefined) throw new ExpressionError('6 bytes there are not within INIC memory', column)
          return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n)
        },
        column,
      }
    }),
  ],
  [
    'frame',
    numbers('an Ethernet frame in INIC memory', ['address', 'length'], ([address, length], column) => {
      const [at, bytes] = [converted(address, U32), converted(length, U32)]
      return {
        form: 'frame',
        what: 'a frame',
        place: (run) => ({ address: Number(at(run)), bytes: Number(bytes(run)) }),
        field: '',
        column,
      }
    }),
  ],
  ['seqLt', sequence('a is before b in sequence space', (difference) => difference < 0)],
  ['seqLeq', sequence('a is before b in sequence space, or b', (difference) => difference <= 0)],
  ['seqGt', sequence('a is behind b in sequence space', (difference) => difference > 0)],
  ['seqGeq', sequence('a is behind b in sequence space, or b', (difference) => difference >= 0)],
  [
    'inWindow',
    numbers('a sequence number lies in a window', ['sequence', 'start', 'size'], ([number, start, size], column) => {
      const [at, from, bytes] = [converted(number, U32), converted(start, U32), converted(size, U32)]
      const get = (run: Evaluation) => (Number(at(run)) - Number(from(run))) >>> 0 < Number(bytes(run))
      return { form: 'scalar', type: BOOL, get, column }
    }),
  ],
  [
    'min',
    numbers('the smaller', ['a', 'b'], ([a, b], column) =>
      conditionalNode(binaryNode('<', a, b, column), a, b, column),
    ),
  ],
  [
    'max',
    numbers('the larger', ['a', 'b'], ([a, b], column) => conditionalNode(binaryNode('>', a, b, column), a, b, column)),
  ],
  [
    'ntohs',
    numbers('16 bits with their bytes exchanged', ['value'], ([value], column) => {
      const get = converted(value, U16)
      return {
        form: 'scalar',
        type: U16,
        get: (run) => {
          const bits = get(run) as number
          return ((bits << 8) | (bits >>> 8)) & 0xffff
        },
        column,
      }
    }),
  ],
  [
    'ntohl',
    numbers('32 bits with their bytes in reverse', ['value'], ([value], column) => {
      const get = converted(value, U32)
      return {
        form: 'scalar',
        type: U32,
        get: (run) => {
          const bits = get(run) as number
          const swapped = ((bits & 0xff) << 24) | ((bits & 0xff00) << 8) | ((bits >>> 8) & 0xff00) | (bits >>> 24)
          return swapped >>> 0
        },
        column,
      }
    }),
  ],
  [
    'len',
    {
      parameters: ['table'],
      description: 'rows of a table',
      bind: ([node], column) => {
        if (node.form === 'table') return { form: 'scalar', type: U32, get: (run) => node.extent(run).count, column }
        if (node.form === 'rows') return { form: 'scalar', type: U32, get: (run) => node.place(run).count, column }
        throw new ExpressionError('len takes a table', column)
      },
    },
  ],
  [
    'signed',
    numbers('32 bits as a signed number', ['value'], ([value], column) => ({
      form: 'scalar',
      type: I32,
      get: converted(value, I32),
      column,
    })),
  ],
])
