/** Packets for tests: builders, parser, printer and patterns of inic/testing, and what compares frames in ava. */
export * from '../../toolchain/testing/frames/index.ts'
export * from './expect.ts'
