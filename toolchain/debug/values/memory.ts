import type { MemoryAccess } from './types.ts'

/** INIC memory that lies in this process. */
export declare function memoryOf(memory: ArrayBuffer): MemoryAccess
