/** What `inic inspect` asks of a running farm, answered from its boards' memories. */
import { BOOT_BASE, REGISTER_BASE, REGISTER_PAGE_BYTES } from '../../abi/memory.ts'
import type { Board } from '../../emulator/board.ts'
import type { Router } from '../../emulator/router/router.ts'
import { suggest } from '../config/issues.ts'
import {
  type ControlMethods,
  INSPECTIONS,
  type Inspection,
  MAXIMUM_READ_BYTES,
  type ServerTables,
} from '../control/protocol.ts'
import { usageError } from '../errors.ts'
import type { SymbolFinder } from '../image/boot-loader.ts'
import { readConnections } from '../inspect/connections.ts'
import { InicMemoryReader } from '../inspect/inic-memory.ts'
import { readCounters, readPools } from '../inspect/memory.ts'
import { readInterrupts, readPorts, readQueues } from '../inspect/queues.ts'
import { readRouter } from '../inspect/routers.ts'
import { DEFAULT_ROW_LIMIT, type Table } from '../inspect/table.ts'
import { readTables } from '../inspect/tables.ts'

type BoardInspection = Exclude<Inspection, 'routers'>
type Params = Readonly<Record<string, unknown>>

export class Inspector {
  readonly #servers: ReadonlyMap<string, Board>
  readonly #boards: ReadonlyMap<string, Board>
  readonly #routers: ReadonlyMap<string, Router>
  readonly #findSymbols: SymbolFinder

  /**
   * @param servers boards that are shown when none is named
   * @param boards all that can be named: gateways too
   */
  constructor(
    servers: ReadonlyMap<string, Board>,
    boards: ReadonlyMap<string, Board>,
    routers: ReadonlyMap<string, Router>,
    findSymbols: SymbolFinder,
  ) {
    this.#servers = servers
    this.#boards = boards
    this.#routers = routers
    this.#findSymbols = findSymbols
  }

  /** Tables of one server or router, or of all. */
  inspect(params: Params): ControlMethods['inspect']['result'] {
    const what = INSPECTIONS.find((item) => item === params.what)
    if (what === undefined)
      throw usageError(`'${String(params.what)}' cannot be inspected`, `there are: ${INSPECTIONS.join(', ')}`)
    const limit = params.limit === undefined ? DEFAULT_ROW_LIMIT : Number(params.limit)
    if (!Number.isInteger(limit) || limit < 0) throw usageError(`${String(params.limit)} is no number of rows`)
    if (what === 'routers') return this.#inspectRouters(params.server, limit)
    return this.#select(params.server).map((board) => this.#inspectBoard(board, what, limit))
  }

  /** Bytes of one server's INIC memory. */
  read(params: Params): ControlMethods['read']['result'] {
    const [board] = this.#select(params.server)
    const memory = memoryOf(board)
    const [address, length] = [Number(params.address), Number(params.length)]
    if (!Number.isInteger(address) || !Number.isInteger(length) || length < 1 || length > MAXIMUM_READ_BYTES) {
      throw usageError('no address and length', `give an address, and a length of 1 to ${MAXIMUM_READ_BYTES} bytes`)
    }
    // The pages below are guards, not memory: touching them would end this very process.
    const inRegisters = address >= REGISTER_BASE && address + length <= REGISTER_BASE + REGISTER_PAGE_BYTES
    const inMemory = address >= BOOT_BASE && address + length <= memory.byteLength
    if (!inRegisters && !inMemory) {
      const hex = (value: number) => `0x${value.toString(16)}`
      const registers = `registers at ${hex(REGISTER_BASE)} to ${hex(REGISTER_BASE + REGISTER_PAGE_BYTES)}`
      throw usageError(
        `nothing can be read at ${hex(address)} to ${hex(address + length)} of ${board.name}`,
        `it has ${registers}, and memory at ${hex(BOOT_BASE)} to ${hex(memory.byteLength)}`,
      )
    }
    const bytes = Buffer.from(memory.buffer, memory.byteOffset + address, length)
    return { server: board.name, bytes: bytes.toString('base64') }
  }

  /** Opens a board's memory for reading; undefined before its first power-on. */
  reader(board: Board): InicMemoryReader | undefined {
    if (board.memory === null) return undefined
    const symbols = board.image === null ? undefined : this.#findSymbols(board.image.wasm)
    return new InicMemoryReader(viewOf(board.memory.bytes), symbols?.layouts)
  }

  #inspectRouters(name: unknown, limit: number): ServerTables[] {
    const known = [...this.#routers.keys()]
    if (name !== undefined && !this.#routers.has(String(name))) {
      const hint =
        known.length > 0 ? `it has: ${known.join(', ')}` : 'describe routers in the farm file: docs/farm-file.md'
      throw usageError(`the farm has no router '${String(name)}'`, suggest(String(name), known) ?? hint)
    }
    const routers = [...this.#routers.values()].filter((router) => name === undefined || router.name === name)
    return routers.map((router) => ({ server: router.name, tables: readRouter(router, limit) }))
  }

  #inspectBoard(board: Board, what: BoardInspection, limit: number): ServerTables {
    const reader = this.reader(board)
    if (reader === undefined) return { server: board.name, tables: [], remark: 'it has not been switched on' }
    const tables = collect(what, reader, board, limit)
    return { server: board.name, tables, ...(!reader.knowsRows && { remark: explainMissing(reader) }) }
  }

  #select(name: unknown): Board[] {
    if (name === undefined) return [...this.#servers.values()]
    const board = this.#boards.get(String(name))
    if (board !== undefined) return [board]
    const known = [...this.#boards.keys()]
    throw usageError(
      `the farm has no server '${String(name)}'`,
      suggest(String(name), known) ?? `it has: ${known.join(', ')}`,
    )
  }
}

function collect(what: BoardInspection, reader: InicMemoryReader, board: Board, limit: number): Table[] {
  switch (what) {
    case 'tables':
      return readTables(reader, limit)
    case 'connections':
      return [readConnections(reader, limit)]
    case 'queues':
      return [readQueues(memoryOf(board)), readInterrupts(board.statistics().interrupts), readPorts(memoryOf(board))]
    case 'memory':
      return [readPools(reader), readCounters(reader)]
  }
}

function explainMissing(reader: InicMemoryReader): string {
  if (reader.entries.length === 0) return 'its firmware keeps no directory of tables (firmware/mem/directory.ts)'
  return 'its firmware was not built here, or was built anew since: what its tables hold is not known'
}

function memoryOf(board: Board): DataView {
  if (board.memory === null) throw usageError(`${board.name} has not been switched on`)
  return viewOf(board.memory.bytes)
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
