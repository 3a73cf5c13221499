/**
 * Where a farm keeps what outlives it and what reaches it while it runs: flash files and the control socket.
 *
 *   .inic/<farm>/          beside the farm file, or in the current folder where there is none
 *     <server>.flash       flash of each server
 *     flashed.json         which images `inic run` put there by itself
 *     control.sock         while the farm runs; mode 0600
 */
import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { errorCode } from './errors.ts'

const STATE_FOLDER = '.inic'
const CONTROL_SOCKET = 'control.sock'
/** Longest path of a Unix socket that every system takes (sun_path is 104 bytes on some), without its final zero. */
const MAXIMUM_SOCKET_PATH = 103

/** The folder that farms' own folders lie in: the one named, or INIC_STATE, or `.inic` in `directory`. */
export function stateBase(named: string | undefined, directory: string): string {
  return named || process.env.INIC_STATE || join(directory, STATE_FOLDER)
}

export class FarmState {
  readonly directory: string

  /** @param directory the farm's own folder below `.inic`; made when something is first written. */
  constructor(directory: string) {
    this.directory = resolve(directory)
  }

  /** State of the farm `name`, whose file is `file`; `base` stands for `.inic` where one was named. */
  static of(farm: { readonly name: string; readonly file: string | undefined }, base?: string): FarmState {
    const parent = stateBase(base, farm.file === undefined ? process.cwd() : dirname(farm.file))
    return new FarmState(join(parent, farm.name))
  }

  /** Name of the farm. */
  get name(): string {
    return basename(this.directory)
  }

  flashPath(server: string): string {
    return join(this.directory, `${server}.flash`)
  }

  get flashedPath(): string {
    return join(this.directory, 'flashed.json')
  }

  /** Path of the control socket: in the folder, or, where that path is too long for a socket, in one of the user's own. */
  get socketPath(): string {
    const path = join(this.directory, CONTROL_SOCKET)
    if (Buffer.byteLength(path) <= MAXIMUM_SOCKET_PATH) return path
    const digest = createHash('sha256').update(this.directory).digest('hex').slice(0, 16)
    return join(process.env.XDG_RUNTIME_DIR ?? join(tmpdir(), `inic-${userInfo().uid}`), `inic-${digest}.sock`)
  }

  /** Makes the folders, the socket's for the user alone. */
  make(): void {
    mkdirSync(this.directory, { recursive: true })
    mkdirSync(dirname(this.socketPath), { recursive: true, mode: 0o700 })
  }

  /** True while a farm answers at the control socket. */
  isRunning(): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.socketPath)
      socket.once('connect', () => {
        socket.destroy()
        resolve(true)
      })
      socket.once('error', (error) => {
        const code = errorCode(error)
        if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') resolve(false)
        else if (code === 'EACCES' || code === 'EPERM')
          resolve(true) // somebody else's, and not for us
        else reject(error)
      })
    })
  }
}
