/** Requests of the Debug Adapter Protocol, wrong in every way, and nearly right. */
import fc from 'fast-check'

const COMMANDS =
  `initialize setBreakpoints setFunctionBreakpoints setInstructionBreakpoints dataBreakpointInfo setDataBreakpoints
  setExceptionBreakpoints threads stackTrace scopes variables setVariable setExpression evaluate completions continue next stepIn
  stepOut stepBack reverseContinue pause disassemble readMemory writeMemory modules loadedSources source exceptionInfo
  breakpointLocations cancel configurationDone attach launch`.split(/\s+/)

const address = fc.constantFrom(
  '0x100000010',
  '0x100011000',
  '0x10',
  '0xffffffffffff',
  '0x1000000ff',
  '9'.repeat(30),
  'tcb',
)
const expression = fc.constantFrom(
  ...[
    'tcb[1].state',
    'tcb[99999999].sndNxt',
    'tcb[*].state',
    'u32[0x1000]',
    'u8[0xffffffff]',
    'state',
    '1/0',
    '1 % 0',
    '$1',
  ],
  ...[
    'segment',
    '((((',
    '`bt',
    '`info tables',
    '`x/8xb 0x1000',
    '`p tcb[1]',
    '`b',
    '`goto 0',
    '`disas',
    '-',
    'a'.repeat(5000),
  ],
  ...['tcb[1].sndWnd = 7', 'TIMER', 'ip(1)', 'mac(0xffffffff)', '"text"', '0x', '1e999', 'tcb[-1]', 'state.'],
)
const breakpoint = fc.record(
  {
    line: fc.oneof(fc.integer({ min: 0, max: 200 }), fc.constantFrom(0, -1, 1e9)),
    column: fc.nat(200),
    name: fc.constantFrom('tcpInput', 'tcp*', '', '**', 'a/b#c'),
    instructionReference: address,
    dataId: fc.constantFrom('1 tcb[*].state', '1 u8[0x20000]', '9 x', '* (', ''),
    accessType: fc.constantFrom('read', 'write', 'readWrite', 'x'),
    condition: expression,
    hitCondition: fc.constantFrom('5', '% 0', '>= 3', 'x'),
    logMessage: fc.constantFrom('{tcb[1].state}', '{', '{(}'),
  },
  { requiredKeys: [] },
)
const filterOption = fc.record({
  filterId: fc.constantFrom('frame', 'tcp-state', 'row', 'console', 'interrupt', 'trap', 'x'),
  condition: fc.constantFrom('tcp.flags.syn', 'tcp.', 'tcb insert', 'CLOSED -> LISTEN', '/(/', 'MAC0', 'x y z', ''),
})

/** Values that fit the arguments of these names, or nearly do. */
const FITTING: Record<string, fc.Arbitrary<unknown>> = {
  threadId: fc.constantFrom(1, 1, 1, 2, 0, 99),
  frameId: fc.nat(12),
  variablesReference: fc.nat(12),
  source: fc.record({ path: fc.constantFrom('firmware/tcp/input.ts', 'tcp/input.ts', '/x.ts', '') }),
  breakpoints: fc.array(breakpoint, { maxLength: 3 }),
  filters: fc.subarray(['trap', 'bus-fault', 'watchdog', 'frame', 'x']),
  filterOptions: fc.array(filterOption, { maxLength: 3 }),
  expression,
  value: expression,
  name: fc.oneof(expression, address),
  text: expression,
  column: fc.nat(20),
  context: fc.constantFrom('watch', 'hover', 'repl', 'variables'),
  memoryReference: address,
  offset: fc.oneof(fc.integer({ min: -100, max: 100 }), fc.constantFrom(-(2 ** 32), 2 ** 32)),
  count: fc.nat(200),
  data: fc.constantFrom('', 'AAAA', 'A', '%'),
  instructionOffset: fc.integer({ min: -50, max: 50 }),
  instructionCount: fc.nat(100),
  startFrame: fc.nat(4),
  levels: fc.nat(4),
  start: fc.nat(1000),
  filter: fc.constantFrom('indexed', 'named'),
  line: fc.nat(300),
  endLine: fc.nat(300),
  granularity: fc.constantFrom('line', 'instruction', 'statement'),
  bytes: fc.constantFrom(1, 4, 8, 3),
  asAddress: fc.boolean(),
  format: fc.record({ hex: fc.boolean() }),
}
const NAMES = Object.keys(FITTING)

const anyValue = fc.oneof(
  fc.integer(),
  fc.double(),
  fc.string(),
  fc.boolean(),
  fc.constantFrom([], {}, [{}], ['trap'], null, 1e300),
)

/** A command with arguments of any kind. */
export const anyRequest = fc.record({
  type: fc.oneof({ weight: 9, arbitrary: fc.constant('request') }, fc.string()),
  seq: fc.oneof({ weight: 9, arbitrary: fc.nat() }, fc.anything()),
  command: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...COMMANDS) }, fc.string()),
  arguments: fc.oneof(fc.dictionary(fc.constantFrom(...NAMES), anyValue, { maxKeys: 6 }), fc.anything()),
})

/** Commands that begin and end, in any order. */
export const lifeCycleRequest = fc.record({
  type: fc.constant('request'),
  seq: fc.nat(),
  command: fc.constantFrom(
    ...[
      'initialize',
      'launch',
      'attach',
      'configurationDone',
      'restart',
      'terminate',
      'disconnect',
      'cancel',
      'continue',
      'pause',
    ],
  ),
  arguments: fc.record({
    stopOnEntry: fc.boolean(),
    noDebug: fc.boolean(),
    requestId: fc.nat(3),
    threadId: fc.constant(1),
  }),
})

/** A command with all the arguments that there are, of the right kinds but for a few. */
export const nearlyRightRequest = fc.record({
  type: fc.constant('request'),
  seq: fc.nat(),
  command: fc.constantFrom(...COMMANDS.filter((command) => command !== 'launch')),
  arguments: fc
    .tuple(fc.record(FITTING), fc.dictionary(fc.constantFrom(...NAMES), anyValue, { maxKeys: 1 }))
    .map(([fitting, wrong]) => ({ ...fitting, ...wrong })),
})
