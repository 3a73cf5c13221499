import { MAXIMUM_PEERS } from '../../abi/boot.ts'
import {
  IPOS_TCP,
  IPOS_UDP,
  SERVICE_BYTES,
  SERVICE_FIRST_SPEAKER,
  SERVICE_FLAG_TAKES_OVER,
  SERVICE_FLAGS,
  SERVICE_PORT,
  SERVICE_PROTOCOL,
  STATE_MAXIMUM_SERVICES,
} from '../../abi/ipos.ts'
import { DIRECTORY_SERVICES } from '../../abi/memory.ts'
import { FIRST_SPEAKER_AUTO, FIRST_SPEAKER_SERVER } from '../../abi/messages.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { listenerAt, listenerOfPort, listenerTakesOver, MAXIMUM_LISTENERS } from '../socket/listener.ts'
import { UDP_ENDPOINTS, udpService } from '../socket/udp.ts'
import { state } from '../state.ts'
import { iposLoad16, iposStore16 } from '../wire/ipos.ts'
import { inFarm, SELF, serverAt, takesNew } from './server.ts'
import { stateNews } from './state.ts'

/**
 * Who serves which port, as state messages say it. Each server's list is kept as it came, and every entry of it is a bit in a row
 * that the farm shares. In a full table an entry that has no row yet is left out: nothing is placed on that server for that
 * port, the server's `servicesMissing` tells, and it is tried again with each of its messages.
 */
@unmanaged
export class Service {
  port: u16
  /** IPOS_TCP or IPOS_UDP */
  protocol: u8
  /** Round-robin: place in the farm of the server that was chosen last. */
  turn: u8
  /** Next row of the same bucket, or next free one. */
  next: u32
  // A bit for each row of the Server State table.
  /** It serves the port; 0 = this row is free. */
  servers: u32
  /** SERVICE_FLAG_TAKES_OVER */
  takesOver: u32
  /** FIRST_SPEAKER_*: its low and its high bit. */
  speakerLow: u32
  speakerHigh: u32
}

/** Stride of the table, bytes. */
const SERVICE_ROW_BYTES: u32 = 32
const ROWS: u32 = 1024
const BUCKETS: u32 = 1024
const LIST_BYTES: u32 = STATE_MAXIMUM_SERVICES * SERVICE_BYTES

/** Carves the tables; nothing of them is needed without peers. */
export function serviceInitialize(): void {
  if (offsetof<Service>() > SERVICE_ROW_BYTES) panic(PANIC_POOL, offsetof<Service>())
  if (!inFarm()) return
  const st = state()
  st.serviceBase = carve((ROWS + 1) * SERVICE_ROW_BYTES)
  st.serviceBuckets = carve(BUCKETS * 4)
  // One list a server, and one in the making.
  st.serviceLists = carve((st.serverCount + 1) * LIST_BYTES)
  for (let i: u32 = 1; i < ROWS; i++) serviceAt(i).next = i + 1
  st.serviceFree = 1
  directoryAdd(DIRECTORY_SERVICES, st.serviceBase, SERVICE_ROW_BYTES, ROWS + 1)
}

function serviceAt(index: u32): Service {
  return changetype<Service>(state().serviceBase + index * SERVICE_ROW_BYTES)
}

function indexOf(service: Service): u32 {
  return (<u32>changetype<usize>(service) - state().serviceBase) / SERVICE_ROW_BYTES
}

function bucketOf(port: u32, protocol: u32): u32 {
  return state().serviceBuckets + ((port ^ (protocol << 9)) & (BUCKETS - 1)) * 4
}

/** Where the list of server `row` stands: SERVICE entries as they go over the wire, `Server.services` of them. */
export function serviceList(row: u32): u32 {
  return state().serviceLists + row * LIST_BYTES
}

// ── asking ──

/** The row of a port, or null if nobody in the farm serves it. */
export function serviceFind(port: u32, protocol: u32): Service | null {
  if (!inFarm()) return null
  let index = load<u32>(bucketOf(port, protocol))
  while (index) {
    const service = serviceAt(index)
    if (<u32>service.port == port && <u32>service.protocol == protocol) return service
    index = service.next
  }
  return null
}

/** True if server `row` has said that it serves the port. */
export function serves(row: u32, port: u32, protocol: u32): bool {
  const service = serviceFind(port, protocol)
  return service != null && ((service.servers >>> row) & 1) != 0
}

/** True if an application on server `row` takes connections of that port that another one hands over. */
export function takesOver(row: u32, port: u32, protocol: u32): bool {
  const service = serviceFind(port, protocol)
  return service != null && ((service.takesOver >>> row) & 1) != 0
}

/** SERVICE_FLAG_* and first speaker of a peer that serves the port and takes new work, or -1 if there is none. */
export function serviceElsewhere(port: u32, protocol: u32): i32 {
  const service = serviceFind(port, protocol)
  if (service == null) return -1
  for (let peers = service.servers & ~(1 << SELF); peers != 0; peers &= peers - 1) {
    const row = ctz(peers)
    if (takesNew(row)) return flagsOf(service, row)
  }
  return -1
}

function flagsOf(service: Service, row: u32): u32 {
  const speaker = ((service.speakerLow >>> row) & 1) | (((service.speakerHigh >>> row) & 1) << 1)
  return speaker | ((service.takesOver >>> row) & 1 ? SERVICE_FLAG_TAKES_OVER : 0)
}

// ── lists ──

/** Server `row` serves these ports and no others. @param entries SERVICE entries @param count at most STATE_MAXIMUM_SERVICES */
export function servicesReplace(row: u32, entries: u32, count: u32): void {
  const server = serverAt(row)
  const bytes = count * SERVICE_BYTES
  const same = <u32>server.services == count && memory.compare(serviceList(row), entries, bytes) == 0
  if (same && server.servicesMissing == 0) return
  servicesForget(row)
  memory.copy(serviceList(row), entries, bytes)
  server.services = <u16>count
  for (let entry = entries; entry < entries + bytes; entry += SERVICE_BYTES)
    if (!enter(row, entry)) server.servicesMissing++
}

/** Server `row` serves nothing. */
export function servicesForget(row: u32): void {
  const server = serverAt(row)
  const list = serviceList(row)
  const end = list + <u32>server.services * SERVICE_BYTES
  for (let entry = list; entry < end; entry += SERVICE_BYTES) strike(row, entry)
  server.services = 0
  server.servicesMissing = 0
}

/** Adds an entry of server `row`. False if the table is full. */
function enter(row: u32, entry: u32): bool {
  const port = iposLoad16(entry, SERVICE_PORT)
  const protocol: u32 = load<u8>(entry + SERVICE_PROTOCOL)
  const flags: u32 = load<u8>(entry + SERVICE_FLAGS)
  let service = serviceFind(port, protocol)
  if (service == null) {
    const st = state()
    const index = st.serviceFree
    if (!index) return false
    service = serviceAt(index)
    st.serviceFree = service.next
    service.port = <u16>port
    service.protocol = <u8>protocol
    service.turn = <u8>MAXIMUM_PEERS
    const bucket = bucketOf(port, protocol)
    service.next = load<u32>(bucket)
    store<u32>(bucket, index)
  }
  const bit: u32 = 1 << row
  const told = flags & SERVICE_FIRST_SPEAKER
  const speaker = told > <u32>FIRST_SPEAKER_SERVER ? FIRST_SPEAKER_AUTO : told
  service.servers |= bit
  if (flags & SERVICE_FLAG_TAKES_OVER) service.takesOver |= bit
  if (speaker & 1) service.speakerLow |= bit
  if (speaker & 2) service.speakerHigh |= bit
  return true
}

/** Takes an entry of server `row` back, if it is there. */
function strike(row: u32, entry: u32): void {
  const service = serviceFind(iposLoad16(entry, SERVICE_PORT), load<u8>(entry + SERVICE_PROTOCOL))
  if (service == null) return
  const others = ~(1 << row)
  service.servers &= others
  service.takesOver &= others
  service.speakerLow &= others
  service.speakerHigh &= others
  if (service.servers) return
  const st = state()
  const index = indexOf(service)
  let link = bucketOf(service.port, service.protocol)
  while (load<u32>(link) != index) link = serviceLink(load<u32>(link))
  store<u32>(link, service.next)
  service.next = st.serviceFree
  st.serviceFree = index
}

function serviceLink(index: u32): u32 {
  return <u32>changetype<usize>(serviceAt(index)) + <u32>offsetof<Service>('next')
}

// ── our own ──

/** A listening socket or a UDP endpoint has come, gone or changed. */
export function servicesChanged(): void {
  state().servicesChanged = 1
  stateNews()
}

/**
 * Makes our own list anew if something has changed: each TCP port that is listened on, each UDP port that a process has chosen, those on
 * 127/8 alone not. Beyond STATE_MAXIMUM_SERVICES the rest is not told.
 */
export function servicesUpdate(): void {
  const st = state()
  if (!st.servicesChanged) return
  st.servicesChanged = 0
  const list = serviceList(st.serverCount)
  let count: u32 = 0
  let missing: u32 = 0
  for (let i: u32 = 1; i <= MAXIMUM_LISTENERS; i++) {
    const listener = listenerAt(i)
    // Listeners on several addresses of one port are one service.
    if (!listener.inUse || listenerOfPort(listener.port) != listener) continue
    const flags = listener.firstSpeaker | (listenerTakesOver(listener.port) ? SERVICE_FLAG_TAKES_OVER : 0)
    if (append(list, count, listener.port, IPOS_TCP, flags)) count++
    else missing++
  }
  for (let row: u32 = 1; row <= UDP_ENDPOINTS; row++) {
    const port = udpService(row)
    if (!port) continue
    if (append(list, count, port, IPOS_UDP, 0)) count++
    else missing++
  }
  servicesReplace(SELF, list, count)
  serverAt(SELF).servicesMissing += <u16>missing
}

/** False if the list is full. */
function append(list: u32, count: u32, port: u32, protocol: u32, flags: u32): bool {
  if (count == <u32>STATE_MAXIMUM_SERVICES) return false
  const entry = list + count * SERVICE_BYTES
  iposStore16(entry, SERVICE_PORT, port)
  store<u8>(entry + SERVICE_PROTOCOL, <u8>protocol)
  store<u8>(entry + SERVICE_FLAGS, <u8>flags)
  return true
}
