import {
  BOARD_STATE_BANDWIDTH_AVAILABLE,
  BOARD_STATE_BANDWIDTH_TOTAL,
  BOARD_STATE_BYTES,
  BOARD_STATE_CONNECTIONS,
  BOARD_STATE_CPU,
  BOARD_STATE_MEMORY_AVAILABLE,
  BOARD_STATE_MEMORY_TOTAL,
  OP_BOARD_STATE,
  OP_DRAIN,
  OP_PROCESS_STATE,
  PROCESS_STATE_BYTES,
  PROCESS_STATE_CPU,
  PROCESS_STATE_MEMORY,
} from '../../abi/messages.ts'

/** State of a main board, for the Server State table. */
export interface BoardState {
  /** Utilization of its processor, 0..1000. */
  readonly cpuPermille: number
  readonly memoryAvailableKib: number
  /** 0 = not known. */
  readonly memoryTotalKib: number
  readonly bandwidthAvailableKbit: number
  /** 0 = not known. */
  readonly bandwidthTotalKbit: number
  /** Instead of the connections that the card counts. */
  readonly connections?: number
}

/** One row of the Application Information table. */
export interface ProcessState {
  readonly processId: number
  readonly memoryKib: number
  readonly cpuPermille: number
}

/** Fills `command` with OP_BOARD_STATE and returns its length, bytes. */
export function boardStateCommand(command: Uint32Array, state: BoardState): number {
  command.fill(0, 0, BOARD_STATE_BYTES / 4)
  command[0] = OP_BOARD_STATE
  command[BOARD_STATE_CPU / 4] = state.cpuPermille
  command[BOARD_STATE_MEMORY_AVAILABLE / 4] = state.memoryAvailableKib
  command[BOARD_STATE_MEMORY_TOTAL / 4] = state.memoryTotalKib
  command[BOARD_STATE_BANDWIDTH_AVAILABLE / 4] = state.bandwidthAvailableKbit
  command[BOARD_STATE_BANDWIDTH_TOTAL / 4] = state.bandwidthTotalKbit
  command[BOARD_STATE_CONNECTIONS / 4] = state.connections === undefined ? 0 : state.connections + 1
  return BOARD_STATE_BYTES
}

/** Fills `command` with OP_PROCESS_STATE and returns its length, bytes. */
export function processStateCommand(command: Uint32Array, { processId, memoryKib, cpuPermille }: ProcessState): number {
  command.fill(0, 0, PROCESS_STATE_BYTES / 4)
  command[0] = OP_PROCESS_STATE
  command[2] = processId
  command[PROCESS_STATE_MEMORY / 4] = memoryKib
  command[PROCESS_STATE_CPU / 4] = cpuPermille
  return PROCESS_STATE_BYTES
}

/** Fills `command` with OP_DRAIN and returns its length, bytes. */
export function drainCommand(command: Uint32Array, on: boolean): number {
  command.fill(0, 0, 4)
  command[0] = OP_DRAIN
  command[2] = on ? 1 : 0
  return 16
}
