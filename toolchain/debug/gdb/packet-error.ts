/** Numbers of E packets; LLDB shows the text. */
export const ERROR = { failed: 0x0e, running: 0x10, malformed: 0x16, unsupported: 0x26 } as const

/** A request that cannot be met; answered by an E packet. */
export class PacketError extends Error {
  readonly number: number

  constructor(number: number, message: string) {
    super(message)
    this.number = number
  }
}
