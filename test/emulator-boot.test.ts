import test from 'ava'
import * as B from '../abi/boot.ts'
import { BOOT_BASE, BOOT_BYTES } from '../abi/memory.ts'
import { MAC_PORTS } from '../abi/registers.ts'
import { BootError, type BootSettings, type PeerSettings, writeBootInformation } from '../emulator/boot.ts'

const SEED = new Uint8Array(32)

/** The boot information that `settings` make. */
function bootView(settings: BootSettings): DataView {
  const memory = new Uint8Array(BOOT_BASE + BOOT_BYTES)
  writeBootInformation(memory, settings, SEED)
  return new DataView(memory.buffer, BOOT_BASE)
}

function peer(changes: Partial<PeerSettings> = {}): PeerSettings {
  return { mac: Uint8Array.of(2, 0, 0, 0, 1, 5), index: 1, addresses: [0xc0000202], ...changes }
}

const FIELDS: [name: string, settings: BootSettings, offset: number, value: number][] = [
  ['serverIndex', { serverIndex: 31 }, B.BOOT_SERVER_INDEX, 31],
  ['placement', { placement: B.PLACEMENT_ROUND_ROBIN }, B.BOOT_PLACEMENT, B.PLACEMENT_ROUND_ROBIN],
  ['weights.cpu', { weights: { cpu: 50 } }, B.BOOT_WEIGHT_CPU, 51],
  ['weights.memory 0', { weights: { memory: 0 } }, B.BOOT_WEIGHT_MEMORY, 1],
  ['weights.bandwidth absent', { weights: { cpu: 1 } }, B.BOOT_WEIGHT_BANDWIDTH, 0],
  ['weights.connections', { weights: { connections: 1000 } }, B.BOOT_WEIGHT_CONNECTIONS, 1001],
  ['localLimit', { localLimit: 800 }, B.BOOT_LOCAL_LIMIT, 801],
  ['localLimit 0', { localLimit: 0 }, B.BOOT_LOCAL_LIMIT, 1],
  ['loadLimit absent', {}, B.BOOT_LOAD_LIMIT, 0],
  ['loadLimit', { loadLimit: 1001 }, B.BOOT_LOAD_LIMIT, 1002],
  ['stateIntervalMs', { stateIntervalMs: 100 }, B.BOOT_STATE_INTERVAL_MS, 100],
  ['leaseMs', { leaseMs: 1000 }, B.BOOT_LEASE_MS, 1000],
  ['forwardEntries', { forwardEntries: 5000 }, B.BOOT_FORWARD_ENTRIES, 5000],
  ['no peers', {}, B.BOOT_PEER_COUNT, 0],
  ['reply', { interfaces: [{}, { reply: 0 }] }, B.BOOT_INTERFACES + B.BOOT_INTERFACE_BYTES + B.BOOT_INTERFACE_REPLY, 1],
  ['no reply', { interfaces: [{}] }, B.BOOT_INTERFACES + B.BOOT_INTERFACE_REPLY, 0],
]
for (const [name, settings, offset, value] of FIELDS) {
  test(`${name} stands where the firmware looks for it`, (t) => {
    t.is(bootView(settings).getUint32(offset, true), value)
  })
}

test('peers stand where the firmware looks for them', (t) => {
  const second = peer({ mac: Uint8Array.of(0xfe, 1, 2, 3, 4, 5), index: 7, addresses: [0, 0xc6336407, 0xffffffff] })
  const view = bootView({ peers: [peer(), second] })
  t.is(view.getUint32(B.BOOT_PEER_COUNT, true), 2)
  const block = Array.from({ length: B.BOOT_PEER_BYTES / 4 }, (_, n) =>
    view.getUint32(B.BOOT_PEERS + B.BOOT_PEER_BYTES + n * 4, true),
  )
  t.deepEqual(block, [0xfe01, 0x02030405, 7, 0, 0xc6336407, 0xffffffff, 0, 0])
})

const many = (count: number) =>
  Array.from({ length: count }, (_, n) => peer({ mac: Uint8Array.of(2, 0, 0, 0, 0, n), index: n + 1 }))

test('as many peers as the field holds', (t) => {
  t.is(bootView({ peers: many(B.MAXIMUM_PEERS) }).getUint32(B.BOOT_PEER_COUNT, true), B.MAXIMUM_PEERS)
})

const REFUSED: Record<string, { settings: BootSettings; message: RegExp }> = {
  'a place beyond the farm': { settings: { serverIndex: 32 }, message: /serverIndex is 32: it goes from 0 to 31/ },
  'a policy that there is not': { settings: { placement: 5 }, message: /placement is 5/ },
  'a weight of 1001 %': { settings: { weights: { memory: 1001 } }, message: /weights\.memory is 1001/ },
  'a negative weight': { settings: { weights: { cpu: -1 } }, message: /weights\.cpu is -1/ },
  'a limit in per cent with a fraction': { settings: { loadLimit: 95.5 }, message: /loadLimit is 95\.5/ },
  'a limit that is too high': { settings: { localLimit: 1002 }, message: /localLimit is 1002/ },
  'a negative lease': { settings: { leaseMs: -1 }, message: /leaseMs is -1/ },
  'a reply by a port that there is not': {
    settings: { interfaces: [{ reply: MAC_PORTS }] },
    message: /interfaces\[0\]\.reply is 3: a card has ports 0 to 2/,
  },
  'too many peers': { settings: { peers: many(32) }, message: /32 peers are set, and a card knows 31/ },
  'a short MAC address': {
    settings: { peers: [peer({ mac: Uint8Array.of(2, 0, 0) })] },
    message: /peers\[0\]\.mac is 020000: .* 6 bytes/,
  },
  "a group's MAC address": {
    settings: { peers: [peer({ mac: Uint8Array.of(3, 0, 0, 0, 0, 1) })] },
    message: /peers\[0\]\.mac is 030000000001/,
  },
  'the MAC address of nobody': { settings: { peers: [peer({ mac: new Uint8Array(6) })] }, message: /mac is 0+:/ },
  'one MAC address twice': { settings: { peers: [peer(), peer({ index: 2 })] }, message: /peers\[0\] and peers\[1\]/ },
  "this server's own place": {
    settings: { serverIndex: 1, peers: [peer()] },
    message: /peers\[0\]\.index is 1, and so is that of this server/,
  },
  'one place twice': {
    settings: { peers: [peer(), peer({ mac: Uint8Array.of(2, 0, 0, 0, 0, 9) })] },
    message: /peers\[1\]\.index is 1, and so is that of peers\[0\]/,
  },
  'more addresses than ports': {
    settings: { peers: [peer({ addresses: [1, 2, 3, 4] })] },
    message: /4 addresses are set for peers\[0\]/,
  },
  'a peer without an address': { settings: { peers: [peer({ addresses: [0, 0] })] }, message: /peers\[0\]\.addresses/ },
  'an address of 33 bits': {
    settings: { peers: [peer({ addresses: [2 ** 32] })] },
    message: /peers\[0\]\.addresses\[0\] is 4294967296/,
  },
}
for (const [name, { settings, message }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, (t) => {
    t.throws(() => bootView(settings), { instanceOf: BootError, message })
  })
}
