/** The constants at the head of ipos.lua: Lua cannot read abi/, so they are written into it. */
import * as ipos from '../../abi/ipos.ts'
import * as messages from '../../abi/messages.ts'
import * as tcp from '../../abi/tcp.ts'

/** What ipOS packets have as values and what is declared elsewhere. */
const VALUES = /^(TCP|FIRST_SPEAKER|SOCKET_OPTION)_/

const TABLE = /^local ABI = \{\n[^}]*\n\}$/m

/** @param script of ipos.lua; returned with its constants as they stand in abi/ */
export function withConstants(script: string): string {
  if (!TABLE.test(script)) throw new Error('ipos.lua has no table of constants')
  const lines = [
    ...Object.entries(ipos),
    ...[tcp, messages].flatMap((module) => Object.entries(module).filter(([name]) => VALUES.test(name))),
  ].map(([name, value]) => `  ${name} = ${value},`)
  return script.replace(TABLE, `local ABI = {\n${lines.join('\n')}\n}`)
}
