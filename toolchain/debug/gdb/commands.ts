/**
 * The packets that are understood. A name is the beginning of a packet; the first that fits is taken.
 *
 * Sources: GDB manual, appendix "GDB Remote Serial Protocol"; LLDB, docs/resources/lldbgdbremote.md, with its WebAssembly packets.
 */
import { packageVersion } from '../../package-root.ts'
import type { SessionApi, Stop } from '../session/api.ts'
import { codeAddress, parseAddress, registerHex, type WasmAddress } from './address.ts'
import type { WatchAccess } from './breakpoints.ts'
import { OWN_THREAD, REST_OF_FARM } from './inferior.ts'
import { runMonitor } from './monitor.ts'
import { decodeHex, encodeHex, MAXIMUM_PACKET_BYTES } from './packet.ts'
import { ERROR, PacketError } from './packet-error.ts'
import type { Answer, GdbServer } from './server.ts'
import { encodeRest, PC_REGISTER, THREAD_IDS } from './stop-reply.ts'

interface Command {
  readonly name: string
  /** Nothing follows the name. */
  readonly exact?: boolean
  /** May be asked while the farm runs. */
  readonly whileRunning?: boolean
  /** `rest` is what follows the name, a character for each byte of `bytes`. */
  run(server: GdbServer, rest: string, bytes: Buffer): Answer | Promise<Answer>
}

const TRIPLE = encodeHex('wasm32-unknown-unknown-wasm')
const TARGET = `triple:${TRIPLE};endian:little;ptrsize:4;`
/** Most bytes of memory in one answer, which has two digits for each. */
const MAXIMUM_READ_BYTES = MAXIMUM_PACKET_BYTES / 2 - 16

const FEATURES = [
  `PacketSize=${MAXIMUM_PACKET_BYTES.toString(16)}`,
  'QStartNoAckMode+',
  'qXfer:libraries:read+',
  'binary-upload+',
  'ReverseContinue+',
  'ReverseStep+',
  'vContSupported+',
  'swbreak+',
  'hwbreak+',
]

const SESSION_COMMANDS: readonly Command[] = [
  { name: 'qSupported', whileRunning: true, run: () => FEATURES.join(';') },
  {
    name: 'QStartNoAckMode',
    exact: true,
    whileRunning: true,
    run(server) {
      server.stopAcknowledging()
      return 'OK'
    },
  },
  {
    name: 'QEnableErrorStrings',
    exact: true,
    whileRunning: true,
    run(server) {
      server.errorStrings = true
      return 'OK'
    },
  },
  { name: 'QListThreadsInStopReply', exact: true, whileRunning: true, run: () => 'OK' },
  { name: 'qHostInfo', exact: true, whileRunning: true, run: () => `${TARGET}watchpoint_exceptions_received:after;` },
  { name: 'qProcessInfo', exact: true, whileRunning: true, run: () => `pid:1;${TARGET}` },
  { name: 'qGDBServerVersion', exact: true, whileRunning: true, run: () => `name:inic;version:${packageVersion};` },
  { name: 'qAttached', whileRunning: true, run: () => '1' },
  { name: 'qWatchpointSupportInfo:', exact: true, whileRunning: true, run: () => 'num:64;' },
  { name: 'qRcmd,', run: (server, rest) => runMonitor(server, hexText(rest)) },
  { name: 'qXfer:libraries:read:', run: readLibraries },
  {
    name: 'D',
    whileRunning: true,
    run(server) {
      server.detach()
      return 'OK'
    },
  },
  // An INIC is not the debugger's to kill: it is let go, and the farm runs on.
  { name: 'k', exact: true, whileRunning: true, run: kill('X09') },
  { name: 'vKill', whileRunning: true, run: kill('OK') },
]

const THREAD_COMMANDS: readonly Command[] = [
  { name: '?', exact: true, run: (server) => server.stopReply() },
  { name: 'qC', exact: true, run: () => `QC${OWN_THREAD}` },
  { name: 'qfThreadInfo', exact: true, run: () => `m${THREAD_IDS}` },
  { name: 'qsThreadInfo', exact: true, run: () => 'l' },
  {
    name: 'qThreadStopInfo',
    run: (server, rest) => (checkThread(rest) === 'rest' ? encodeRest() : server.stopReply()),
  },
  {
    name: 'qThreadExtraInfo,',
    run: (server, rest) => encodeHex(checkThread(rest) === 'rest' ? REST_OF_FARM.name : server.inferior.thread.name),
  },
  {
    name: 'T',
    run(_, rest) {
      checkThread(rest)
      return 'OK'
    },
  },
  {
    name: 'H',
    run(_, rest) {
      checkThread(rest.slice(1))
      return 'OK'
    },
  },
]

const REGISTER =
  'bitsize:64;offset:0;encoding:uint;format:hex;set:General Purpose Registers;gcc:16;dwarf:16;generic:pc;'

const STATE_COMMANDS: readonly Command[] = [
  {
    name: 'qRegisterInfo',
    run: (_, rest) => (hexNumber(rest) === PC_REGISTER ? `name:pc;alt-name:pc;${REGISTER}` : 'E45'),
  },
  { name: 'g', exact: true, run: (server) => registerHex(server.inferior.pc()) },
  {
    name: 'p',
    run(server, rest) {
      if (hexNumber(rest.split(';')[0]) !== PC_REGISTER) throw malformed('there is no such register')
      return registerHex(server.inferior.pc())
    },
  },
  { name: 'G', run: refuseRegister },
  { name: 'P', run: refuseRegister },
  { name: 'm', run: (server, rest) => encodeHex(readMemory(server, rest)) },
  { name: 'x', run: (server, rest) => Buffer.concat([Buffer.from('b'), readMemory(server, rest)]) },
  {
    name: 'M',
    run(server, rest) {
      const colon = rest.indexOf(':')
      const data = colon < 0 ? undefined : decodeHex(rest.slice(colon + 1))
      return writeMemory(server, rest.slice(0, Math.max(colon, 0)), data)
    },
  },
  {
    name: 'X',
    run(server, rest, bytes) {
      const colon = rest.indexOf(':')
      return writeMemory(server, rest.slice(0, Math.max(colon, 0)), colon < 0 ? undefined : bytes.subarray(colon + 1))
    },
  },
  {
    name: 'qWasmCallStack:',
    run(server, rest) {
      if (checkThread(rest) === 'rest') return registerHex(REST_OF_FARM.pc)
      return server.inferior.callStack().map(registerHex).join('')
    },
  },
  { name: 'qWasmLocal:', run: (server, rest) => machineValue(server, rest, 'locals') },
  { name: 'qWasmStackValue:', run: (server, rest) => machineValue(server, rest, 'stack') },
  {
    name: 'qWasmGlobal:',
    run(server, rest) {
      const [, index] = decimals(rest)
      const value = server.inferior.global(index)
      if (value === undefined) throw new PacketError(ERROR.unsupported, `global ${index} is no constant of 32 bits`)
      return value
    },
  },
]

const BREAKPOINT_COMMANDS: readonly Command[] = [
  { name: 'Z', run: (server, rest) => setBreakpoint(server, rest, true) },
  { name: 'z', run: (server, rest) => setBreakpoint(server, rest, false) },
]

const RUN_COMMANDS: readonly Command[] = [
  { name: 'vCont?', exact: true, run: () => 'vCont;c;C;s;S' },
  { name: 'vCont;', run: vCont },
  { name: 'c', run: (server, rest) => resume(server, rest, 'continue') },
  { name: 's', run: (server, rest) => resume(server, rest, 'step') },
  { name: 'C', run: (server, rest) => resume(server, rest.slice(2), 'continue') },
  { name: 'S', run: (server, rest) => resume(server, rest.slice(2), 'step') },
  { name: 'bc', exact: true, run: (server) => resume(server, '', 'reverse continue') },
  { name: 'bs', exact: true, run: (server) => resume(server, '', 'reverse step') },
]

export const COMMANDS: readonly Command[] = [
  ...SESSION_COMMANDS,
  ...THREAD_COMMANDS,
  ...STATE_COMMANDS,
  ...BREAKPOINT_COMMANDS,
  ...RUN_COMMANDS,
]

// ── memory and modules ──

function readMemory(server: GdbServer, rest: string): Uint8Array {
  const [place, bytes] = range(rest)
  const read = server.inferior.read(place, Math.min(bytes, MAXIMUM_READ_BYTES))
  // Nothing asked for is always there: LLDB tries packets that way.
  if (read === undefined && bytes > 0) throw new PacketError(ERROR.failed, 'nothing is at that address')
  return read ?? new Uint8Array()
}

function writeMemory(server: GdbServer, where: string, data: Uint8Array | undefined): Answer {
  const [place, bytes] = range(where)
  if (data === undefined || data.length !== bytes) throw malformed(`${bytes} bytes are announced, and not there`)
  if (bytes > 0) server.inferior.write(place, data)
  return 'OK'
}

function machineValue(server: GdbServer, rest: string, kind: 'locals' | 'stack'): Answer {
  const [frame, index] = decimals(rest)
  const value = server.inferior.machineValue(kind, frame, index)
  if (value === undefined) throw new PacketError(ERROR.failed, `frame ${frame} has no number ${index} of its ${kind}`)
  return value
}

/** The list of modules, a window of it. Their names are no paths: LLDB would read such a file instead of what is served. */
function readLibraries(server: GdbServer, rest: string): Answer {
  const match = /^[^:]*:([0-9a-f]{1,8}),([0-9a-f]{1,8})$/i.exec(rest)
  if (match === null) throw malformed('ANNEX:OFFSET,LENGTH is expected')
  const [offset, length] = match.slice(1).map((digits) => Number.parseInt(digits, 16))
  const libraries = server.inferior.modules.map((_, index) => {
    const name = index === 0 ? 'firmware.wasm' : `firmware-${index + 1}.wasm`
    return `<library name="${name}"><section address="${codeAddress(index, 0)}"/></library>`
  })
  const list = Buffer.from(`<library-list>${libraries.join('')}</library-list>`)
  const window = list.subarray(offset, offset + length)
  return Buffer.concat([Buffer.from(offset + window.length < list.length ? 'm' : 'l'), window])
}

// ── breakpoints ──

const WATCHES: Readonly<Record<string, WatchAccess>> = { 2: 'write', 3: 'read', 4: 'access' }

function setBreakpoint({ breakpoints }: GdbServer, rest: string, set: boolean): Answer {
  const match = /^([0-9]),([0-9a-f]+),([0-9a-f]{1,8})(?:;.*)?$/i.exec(rest)
  const place = match === null ? undefined : parseAddress(match[2])
  if (match === null || place === undefined) throw malformed('KIND,ADDRESS,LENGTH is expected')
  const access = WATCHES[match[1]]
  const bytes = Number.parseInt(match[3], 16)
  if (access !== undefined) {
    if (set) breakpoints.watch(place, bytes, access)
    else breakpoints.unwatch(place, bytes, access)
  } else if (match[1] === '0' || match[1] === '1') {
    if (set) breakpoints.add(place)
    else breakpoints.remove(place)
  } else return ''
  return 'OK'
}

// ── running ──

type Resume = 'continue' | 'step' | 'step over' | 'reverse continue' | 'reverse step'

/** `rest` is an address to go on at, which the engine cannot. */
function resume(server: GdbServer, rest: string, how: Resume): Answer {
  if (rest !== '') throw new PacketError(ERROR.unsupported, 'the pc cannot be set')
  const { session, inferior } = server
  const thread = inferior.thread.id
  server.resume(() => {
    const wasOutside = inferior.enterSlice()
    switch (how) {
      case 'continue':
        return server.breakpoints.awaitsSliceEnd ? finishSlice(server) : session.continue()
      case 'step':
        return wasOutside ? here(session) : session.step(thread, 'instruction')
      case 'step over':
        return wasOutside ? here(session) : session.step(thread, 'instruction-over')
      case 'reverse continue':
        return session.reverseContinue()
      case 'reverse step':
        return session.stepBack(thread, 'instruction')
    }
  })
  return undefined
}

/** Out of all functions. */
async function finishSlice({ session, inferior }: GdbServer): Promise<Stop> {
  for (;;) {
    const depth = inferior.frames.length
    const stop = await session.step(inferior.thread.id, 'out')
    if (stop.reason !== 'step') return stop
    if (depth > 1) continue
    inferior.leaveSlice()
    return stop
  }
}

async function here({ stop }: SessionApi): Promise<Stop> {
  if (stop === null) throw new PacketError(ERROR.failed, 'the farm stands nowhere')
  return { ...stop, reason: 'step', breakpoints: [] }
}

/** Actions in their order; a thread does the first that is for it. */
function vCont(server: GdbServer, rest: string): Answer {
  let own: string | undefined
  let others: string | undefined
  for (const text of rest.split(';')) {
    const action = /^([cs]|[CS][0-9a-f]{2})(?::(.+))?$/i.exec(text)
    if (action === null) throw malformed(`${text} is no action`)
    const kind = action[1][0].toLowerCase()
    const whose = action[2] === undefined ? 'all' : whoseThread(action[2])
    if (whose === 'all' || whose === 'own') own ??= kind
    if (whose === 'all' || whose === 'rest') others ??= kind
  }
  // The farm runs as a whole: whoever lets the rest of it run lets it run.
  if (own === undefined && others === undefined) throw malformed('no action is for a thread that there is')
  // There is nothing to step in it.
  if (own === undefined && others === 's') return encodeRest('trace')
  if (own !== 's') return resume(server, '', 'continue')
  return resume(server, '', others === undefined ? 'step' : 'step over')
}

function kill(answer: string): Command['run'] {
  return (server) => {
    server.detach()
    return answer
  }
}

// ── arguments ──

function malformed(message: string): PacketError {
  return new PacketError(ERROR.malformed, message)
}

function refuseRegister(): never {
  throw new PacketError(ERROR.unsupported, 'registers and locals of WebAssembly cannot be written')
}

function hexText(hex: string): string {
  const bytes = decodeHex(hex)
  if (bytes === undefined) throw malformed('pairs of hex digits are expected')
  return bytes.toString()
}

function hexNumber(text: string): number {
  if (!/^[0-9a-f]{1,8}$/i.test(text)) throw malformed('a number is expected')
  return Number.parseInt(text, 16)
}

/** `ADDRESS,LENGTH`, both in hex. */
function range(text: string): [WasmAddress, number] {
  const [address, length, ...more] = text.split(',')
  const place = parseAddress(address)
  if (place === undefined || length === undefined || more.length > 0) throw malformed('ADDRESS,LENGTH is expected')
  return [place, hexNumber(length)]
}

/** `FRAME;INDEX`, both decimal. */
function decimals(text: string): [number, number] {
  const match = /^(\d{1,9});(\d{1,9})$/.exec(text)
  if (match === null) throw malformed('FRAME;INDEX is expected')
  return [Number(match[1]), Number(match[2])]
}

/** 0 is any thread, -1 are all; `p1.` may stand in front, which is the process. */
function whoseThread(text: string): 'own' | 'rest' | 'all' | 'nobody' {
  const match = /^(?:p[0-9a-f]+\.)?(-1|[0-9a-f]{1,8})$/i.exec(text)
  if (match === null) throw malformed(`${text} is no thread`)
  const [, digits] = match
  if (digits === '-1') return 'all'
  const id = Number.parseInt(digits, 16)
  if (id === 0 || id === OWN_THREAD) return 'own'
  return id === REST_OF_FARM.id ? 'rest' : 'nobody'
}

function checkThread(text: string): 'own' | 'rest' {
  const whose = whoseThread(text)
  if (whose === 'nobody') throw new PacketError(ERROR.failed, `there is no thread ${text}`)
  return whose === 'rest' ? 'rest' : 'own'
}
