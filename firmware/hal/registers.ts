import { REGISTER_BASE } from '../../abi/memory.ts'

/** Loads a register. @param register offset, abi/registers.ts */
export function readRegister(register: u32): u32 {
  return load<u32>(REGISTER_BASE + register)
}

/** Stores a register. @param register offset, abi/registers.ts */
export function writeRegister(register: u32, value: u32): void {
  store<u32>(REGISTER_BASE + register, value)
}
