/**
 * What is said at the control socket of a running farm: one JSON value a line, a request and then its answer. After the
 * answer to `capture` the connection carries pcapng, and after the one to `debug` what a front end of the debugger says, until either
 * side closes it.
 */
import type { FlashReport } from '../image/flash-status.ts'
import type { Table } from '../inspect/table.ts'
import type { Measurement } from '../profile/meter.ts'

export interface ControlRequest {
  readonly id: number
  readonly method: string
  readonly params?: Readonly<Record<string, unknown>>
}

export type ControlAnswer =
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number
      readonly error: { readonly message: string; readonly hint?: string; readonly exitCode: number }
    }

/** Longest line that is read, bytes. */
export const MAXIMUM_LINE_BYTES = 64 * 1024
/** Bytes of memory that one `read` may ask for. */
export const MAXIMUM_READ_BYTES = 1024 * 1024

/** What `inspect` can be asked about. */
export const INSPECTIONS = ['tables', 'connections', 'queues', 'memory', 'routers'] as const
export type Inspection = (typeof INSPECTIONS)[number]

/** Front ends of the debugger that a connection can be handed to. */
export const FRONT_ENDS = ['repl', 'dap', 'gdb'] as const
export type FrontEnd = (typeof FRONT_ENDS)[number]

/** One server, or one router, as an inspection shows it. */
export interface ServerTables {
  readonly server: string
  readonly tables: readonly Table[]
  /** Why there is less than one might expect; undefined if nothing is missing. */
  readonly remark?: string
}

export interface BoardStatus {
  readonly name: string
  /** `off`, `running` or `stopped`. */
  readonly state: string
  readonly firmware: string | undefined
  readonly addresses: readonly string[]
  readonly applications: readonly string[]
}

export interface RouterStatus {
  readonly name: string
  readonly isp: string | undefined
  readonly addresses: readonly string[]
}

export interface FarmStatus {
  readonly name: string
  readonly pid: number
  readonly uptimeSeconds: number
  readonly servers: readonly BoardStatus[]
  readonly routers: readonly RouterStatus[]
  readonly networks: readonly string[]
  /** Names that `capture` takes besides those of networks. */
  readonly links: readonly string[]
  /** `127.0.0.1:8080`, and where it leads: `server1:80`. */
  readonly published: readonly { readonly address: string; readonly target: string }[]
}

/** How far the drain of a server has got. */
export interface DrainStatus {
  readonly server: string
  /** False once it has been taken back. */
  readonly draining: boolean
  /** The server that the connections go to, if one was named. */
  readonly to?: string
  /** Connections that have moved, and those that are left. */
  readonly moved: number
  readonly left: number
  /** `silent`: it is at work, or stuck, and does not answer. */
  readonly processes: readonly {
    readonly name: string
    readonly moved?: number
    readonly left?: number
    readonly silent?: boolean
  }[]
}

/** What one board executed while it was profiled. */
export interface ProfilePiece {
  readonly server: string
  /** The firmware, base64, and what it is. */
  readonly wasm: string
  readonly description: string
  /** Folders whose builds may know it. */
  readonly projects: readonly string[]
  readonly measurement: Measurement
}

/** How far the update of a server's firmware has got. */
export interface UpdateStatus {
  readonly server: string
  readonly stage: 'writing' | 'verifying' | 'restarting' | 'confirming' | 'done' | 'failed'
  /** How much of it is written and verified, 0 to 1. */
  readonly share: number
  /** Of the image that is written. */
  readonly version?: string
  /** Why it failed. */
  readonly error?: { readonly message: string; readonly hint?: string; readonly exitCode: number }
}

/** How an update in service would go, or how far it has got. */
export interface ServiceUpdateStatus {
  readonly server: string
  /** Of the image. */
  readonly version: string
  /** `none`: it cannot be done. */
  readonly way: 'in-place' | 'drain' | 'none'
  /** Why this way, or why none; with what to do about it. */
  readonly why: string
  readonly hint?: string
  readonly stage: 'draining' | 'writing' | 'taking over' | 'restarting' | 'done' | 'failed'
  /** How much of it is written and verified, 0 to 1. */
  readonly share: number
  /** Connections that hang on the INIC, while it is drained. */
  readonly left?: number
  /** Why it failed. */
  readonly error?: { readonly message: string; readonly hint?: string; readonly exitCode: number }
}

/** Methods with what they take and give. */
export interface ControlMethods {
  status: { params: Record<string, never>; result: FarmStatus }
  inspect: { params: { what: Inspection; server?: string; limit?: number }; result: readonly ServerTables[] }
  /** Bytes of INIC memory, base64. */
  read: { params: { server?: string; address: number; length: number }; result: { server: string; bytes: string } }
  /** Begins, and answers at once; `drainStatus` tells how it goes. Without `to` the INICs choose for each connection. */
  drain: { params: { server: string; to?: string }; result: DrainStatus }
  undrain: { params: { server: string }; result: DrainStatus }
  drainStatus: { params: { server: string }; result: DrainStatus }
  /** `image`: path of a file; without one what the secondary slot holds. Begins, and answers at once; `flashStatus` tells how it goes. */
  flash: {
    params: { server: string; image?: string; permanent?: boolean; boot?: boolean; confirm?: boolean }
    result: UpdateStatus
  }
  flashStatus: { params: { server: string }; result: UpdateStatus }
  flashReport: { params: { server: string }; result: FlashReport }
  flashConfirm: { params: { server: string }; result: { by: 'firmware' | 'outside' } }
  /** `check` says which way it would go. Otherwise begins, and answers at once; `serviceUpdateStatus` tells how it goes. */
  serviceUpdate: {
    params: { server: string; image: string; drain?: boolean; check?: boolean; timeoutMs?: number }
    result: ServiceUpdateStatus
  }
  serviceUpdateStatus: { params: { server: string }; result: ServiceUpdateStatus }
  /** `target`: a network or a link. */
  capture: { params: { target: string }; result: { readonly format: 'pcapng' } }
  /** After the answer: a `TraceLine` a line. */
  trace: { params: { server?: string }; result: { readonly format: 'json lines' } }
  /** Measures until the client says anything, then sends a `ProfilePiece` a line. `period`: with `sample`, instructions. */
  profile: {
    params: { server?: string; mode: 'count' | 'sample' | 'exact'; period?: number }
    result: { readonly format: 'json lines' }
  }
  /** Halts the farm; the connection then is that front end's. `colour` and `server` (selected at first) are for the REPL. */
  debug: {
    params: { frontend: FrontEnd; colour?: boolean; server?: string }
    result: { readonly frontend: FrontEnd }
  }
}
