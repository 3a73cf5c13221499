/** The roots of what is in INIC memory, sorted by what they are: registers of the card, tables, the firmware's State. */
import { REGISTER_BASE, REGISTER_PAGE_BYTES } from '../../../abi/memory.ts'
import type { SessionApi, Value } from '../session/api.ts'

const STATE = 'state'

export function registersOf(session: SessionApi, thread: number): readonly Value[] {
  return session.globals(thread).filter(isRegister)
}

/** The firmware's one State; undefined before it has made one. */
export function stateOf(session: SessionApi, thread: number): Value | undefined {
  return session.globals(thread).find((value) => value.name === STATE && !isRegister(value))
}

export function tablesOf(session: SessionApi, thread: number): readonly Value[] {
  return session.globals(thread).filter((value) => value.name !== STATE && !isRegister(value))
}

function isRegister({ address }: Value): boolean {
  return address !== undefined && address >= REGISTER_BASE && address < REGISTER_BASE + REGISTER_PAGE_BYTES
}
