/**
 * Packets for tests, written apart from the firmware's own code on purpose. build.ts fills in lengths and checksums unless a field says
 * otherwise; parse.ts checks what the builders would have filled in and lists what is wrong; print.ts gives one line a packet;
 * pattern.ts compares. Addresses are strings: '192.0.2.1', '02:00:00:00:00:01'.
 */
export * from './build.ts'
export * from './ipos.ts'
export * from './parse.ts'
export * from './pattern.ts'
export * from './print.ts'
