-- ipOS (FIG. 11, abi/ipos.ts) for Wireshark and tshark. How to use it: docs/wireshark.md.
--
-- Wireshark has an "ipos" of its own, Redback's; so this protocol is called ipOS on the screen and "inic" in filters.

-- Written by `npm run wireshark` from abi/, with what has those numbers as values. test/wireshark.test.ts compares.
local ABI = {
  APPLICATION_BYTES = 26,
  APPLICATION_DATA = 28,
  APPLICATION_OFFSET = 22,
  BLOCK_ACK_DELAY = 137,
  BLOCK_BACKOFF = 124,
  BLOCK_CUBIC_WMAX = 104,
  BLOCK_CWND = 96,
  BLOCK_ENTRY = 8,
  BLOCK_FLAGS = 2,
  BLOCK_FLAG_FIN_QUEUED = 4,
  BLOCK_FLAG_FIN_RECEIVED = 32,
  BLOCK_FLAG_FIN_SEEN = 16,
  BLOCK_FLAG_FIN_SENT = 8,
  BLOCK_FLAG_HANDED_OVER = 128,
  BLOCK_FLAG_LOSS = 64,
  BLOCK_FLAG_OUT_OF_ORDER = 256,
  BLOCK_FLAG_RECOVERY = 512,
  BLOCK_FLAG_SACK = 1,
  BLOCK_FLAG_TIMESTAMPS = 2,
  BLOCK_IRS = 44,
  BLOCK_ISS = 12,
  BLOCK_KEEP_ALIVE_IDLE = 116,
  BLOCK_KEEP_ALIVE_LEFT = 112,
  BLOCK_KEEP_ALIVE_PROBES = 125,
  BLOCK_LAST_ACK_SENT = 80,
  BLOCK_MOVES = 4,
  BLOCK_MSS = 64,
  BLOCK_PERSIST_LEFT = 108,
  BLOCK_RCV_ADVERTISED = 56,
  BLOCK_RCV_FIN = 60,
  BLOCK_RCV_NXT = 48,
  BLOCK_RCV_READ = 52,
  BLOCK_RCV_SCALE = 67,
  BLOCK_RECEIVER = 132,
  BLOCK_REORDER_STEPS = 136,
  BLOCK_RESERVED = 138,
  BLOCK_RTO = 92,
  BLOCK_RTTVAR = 88,
  BLOCK_SND_END = 24,
  BLOCK_SND_MAX = 20,
  BLOCK_SND_SCALE = 66,
  BLOCK_SND_UNA = 16,
  BLOCK_SND_WL1 = 36,
  BLOCK_SND_WL2 = 40,
  BLOCK_SND_WND = 28,
  BLOCK_SND_WND_MAXIMUM = 32,
  BLOCK_SOCKET_OPTIONS = 126,
  BLOCK_SRTT = 84,
  BLOCK_SSTHRESH = 100,
  BLOCK_STALLED_AGE = 120,
  BLOCK_STATE = 1,
  BLOCK_STATE_BYTES = 128,
  BLOCK_TS_CLOCK = 76,
  BLOCK_TS_RECENT = 68,
  BLOCK_TS_RECENT_AGE = 72,
  BLOCK_VERSION = 0,
  BLOCK_VERSION_VALUE = 1,
  COMMITTED_BYTES = 40,
  COMMITTED_FLAGS = 38,
  COMMITTED_FLAG_COMPLETE = 1,
  COMMITTED_FLAG_GAP = 2,
  COMMITTED_OUT_OF_ORDER = 34,
  COMMITTED_QUEUED = 26,
  COMMITTED_RECEIVED = 22,
  COMMITTED_STATE_BYTES = 30,
  COMMIT_BYTES = 38,
  COMMIT_OUT_OF_ORDER = 34,
  COMMIT_RECEIVE_END = 22,
  COMMIT_SEND_END = 26,
  COMMIT_STATE_BYTES = 30,
  HEARD_ADDRESS = 0,
  HEARD_BYTES = 12,
  HEARD_INCARNATION = 4,
  HEARD_SEQUENCE = 8,
  IPOS_ACKNOWLEDGE = 3,
  IPOS_APPLICATION = 135,
  IPOS_BLOCK = 22,
  IPOS_BLOCK_BYTES = 140,
  IPOS_CANCEL = 134,
  IPOS_CHECKSUM = 14,
  IPOS_COMMIT = 129,
  IPOS_COMMITTED = 130,
  IPOS_CONNECT = 1,
  IPOS_CONNECTION_BYTES = 22,
  IPOS_CONNECT_TCP_BYTES = 162,
  IPOS_CONNECT_UDP_BYTES = 22,
  IPOS_DATA = 2,
  IPOS_DESTINATION_ADDRESS = 6,
  IPOS_DESTINATION_PORT = 10,
  IPOS_ETHERTYPE = 7,
  IPOS_HEADER_BYTES = 16,
  IPOS_MOVED = 136,
  IPOS_MOVED_HEARD = 137,
  IPOS_PROTOCOL = 13,
  IPOS_REFUSE = 131,
  IPOS_RELEASE = 132,
  IPOS_RELEASED = 133,
  IPOS_SERVER_ADDRESS = 16,
  IPOS_SERVER_PORT = 20,
  IPOS_SOURCE_ADDRESS = 0,
  IPOS_SOURCE_PORT = 4,
  IPOS_STATE = 128,
  IPOS_TCP = 1,
  IPOS_TYPE = 12,
  IPOS_UDP = 2,
  MOVED_ADDRESS = 26,
  MOVED_BYTES = 32,
  MOVED_HEARD_BYTES = 26,
  MOVED_HEARD_MOVES = 22,
  MOVED_MOVES = 22,
  MOVED_THREAD = 30,
  REFUSE_BLOCK = 5,
  REFUSE_BYTES = 24,
  REFUSE_DRAINING = 6,
  REFUSE_NO_LEASE = 7,
  REFUSE_NO_LISTENER = 2,
  REFUSE_NO_MEMORY = 3,
  REFUSE_REASON = 22,
  REFUSE_THREAD_TAKEN = 1,
  REFUSE_WINDOW = 4,
  RELEASE_ENDED = 1,
  RELEASE_FLOOR = 24,
  RELEASE_PACKET = 30,
  RELEASE_PACKET_BYTES = 28,
  RELEASE_REASON = 22,
  RELEASE_UNKNOWN = 2,
  SERVICE_BYTES = 4,
  SERVICE_FIRST_SPEAKER = 3,
  SERVICE_FLAGS = 3,
  SERVICE_FLAG_TAKES_OVER = 4,
  SERVICE_PORT = 0,
  SERVICE_PROTOCOL = 2,
  STATE_BANDWIDTH_AVAILABLE = 44,
  STATE_BANDWIDTH_TOTAL = 48,
  STATE_CONNECTIONS = 28,
  STATE_CONNECTIONS_MAXIMUM = 32,
  STATE_CPU = 26,
  STATE_FLAGS = 24,
  STATE_FLAG_DRAINING = 1,
  STATE_HEARD = 60,
  STATE_HEARD_COUNT = 52,
  STATE_INCARNATION = 16,
  STATE_LEASE = 56,
  STATE_MAXIMUM_SERVICES = 256,
  STATE_MEMORY_AVAILABLE = 36,
  STATE_MEMORY_TOTAL = 40,
  STATE_SEQUENCE = 20,
  STATE_SERVICE_COUNT = 54,
  TCP_CLOSED = 0,
  TCP_CLOSE_WAIT = 6,
  TCP_CLOSING = 7,
  TCP_ESTABLISHED = 3,
  TCP_FIN_WAIT_1 = 4,
  TCP_FIN_WAIT_2 = 5,
  TCP_LAST_ACK = 8,
  TCP_SYN_RECEIVED = 2,
  TCP_SYN_SENT = 1,
  TCP_TIME_WAIT = 9,
  FIRST_SPEAKER_AUTO = 0,
  FIRST_SPEAKER_CLIENT = 1,
  FIRST_SPEAKER_SERVER = 2,
  SOCKET_OPTION_KEEP_ALIVE = 2,
  SOCKET_OPTION_NO_DELAY = 1,
  SOCKET_OPTION_TAKES_OVER = 4,
}

local ETHERNET_BYTES = 14
local FIRST_ETHERTYPE = 0x0600 -- below, IEEE 802.3 reads a length
local TWO_TO_32 = 4294967296

local ipos = Proto('inic', 'ipOS')

-- ── fields ──────────────────────────────────────────────────────────────────────────────────────────────────────────

local registered = {}
local function register(field)
  registered[#registered + 1] = field
  return field
end

local function number(range)
  return range:uint()
end

-- What can be read of a frame: bytes, constructor of the field, value.
local KINDS = {
  u8 = { bytes = 1, new = ProtoField.uint8, read = number },
  u16 = { bytes = 2, new = ProtoField.uint16, read = number },
  u32 = { bytes = 4, new = ProtoField.uint32, read = number },
  f32 = {
    bytes = 4,
    new = function(filter, label)
      return ProtoField.float(filter, label)
    end,
    read = function(range)
      return range:float()
    end,
  },
  ipv4 = {
    bytes = 4,
    new = function(filter, label)
      return ProtoField.ipv4(filter, label)
    end,
    read = function(range)
      return tostring(range:ipv4())
    end,
  },
}

-- BLOCK_SND_UNA, of the piece BLOCK, is inic.block.snd_una; what the header and the connection information have is inic.source_address.
local function filter_name(constant, prefix)
  local rest = constant:sub(#prefix + 2):lower()
  return prefix == 'IPOS' and 'inic.' .. rest or 'inic.' .. prefix:lower() .. '.' .. rest
end

-- A piece of a packet: its fields in the order of their offsets, each { constant, kind, label, options }. Options: `values`, what numbers mean;
-- `unit`; `hex`; `bits`, a list of { end of the filter, label, mask, meaning of values or nil for a flag }; `note`, text made of the value.
local function piece(prefix, rows)
  local fields = {}
  for _, row in ipairs(rows) do
    local constant, kind, label, options = row[1], KINDS[row[2]], row[3], row[4] or {}
    local base_of = options.hex and base.HEX or options.unit and base.UNIT_STRING or base.DEC
    local filter = filter_name(constant, prefix)
    local field = {
      name = constant,
      at = ABI[constant],
      bytes = kind.bytes,
      read = kind.read,
      field = register(kind.new(filter, label, base_of, options.unit and { ' ' .. options.unit } or options.values)),
      note = options.note,
      bits = {},
    }
    for _, bit in ipairs(options.bits or {}) do
      local suffix, bit_label, mask, values = bit[1], bit[2], bit[3], bit[4]
      local bit_filter = filter .. '.' .. suffix
      field.bits[#field.bits + 1] = register(
        values and kind.new(bit_filter, bit_label, base.DEC, values, mask)
          or ProtoField.bool(bit_filter, bit_label, kind.bytes * 8, nil, mask)
      )
    end
    fields[#fields + 1] = field
  end
  return fields
end

local PROTOCOLS = { [0] = 'none', [ABI.IPOS_TCP] = 'TCP', [ABI.IPOS_UDP] = 'UDP' }

-- States in which an endpoint may move.
local STATES = {
  [ABI.TCP_ESTABLISHED] = 'ESTABLISHED',
  [ABI.TCP_FIN_WAIT_1] = 'FIN-WAIT-1',
  [ABI.TCP_FIN_WAIT_2] = 'FIN-WAIT-2',
  [ABI.TCP_CLOSE_WAIT] = 'CLOSE-WAIT',
}

local REFUSALS = {
  [ABI.REFUSE_THREAD_TAKEN] = 'thread port taken',
  [ABI.REFUSE_NO_LISTENER] = 'no listener',
  [ABI.REFUSE_NO_MEMORY] = 'no memory',
  [ABI.REFUSE_WINDOW] = 'window too large',
  [ABI.REFUSE_BLOCK] = 'no control block',
  [ABI.REFUSE_DRAINING] = 'draining',
  [ABI.REFUSE_NO_LEASE] = 'no lease',
}

local RELEASES = { [ABI.RELEASE_ENDED] = 'ended', [ABI.RELEASE_UNKNOWN] = 'unknown endpoint' }

local FIRST_SPEAKERS = {
  [ABI.FIRST_SPEAKER_AUTO] = 'auto',
  [ABI.FIRST_SPEAKER_CLIENT] = 'client',
  [ABI.FIRST_SPEAKER_SERVER] = 'server',
}

local function per_cent(value)
  return string.format('%.1f %%', value / 10)
end

local TYPES = {
  [ABI.IPOS_CONNECT] = 'Connect',
  [ABI.IPOS_DATA] = 'Data',
  [ABI.IPOS_ACKNOWLEDGE] = 'Acknowledge',
  [ABI.IPOS_STATE] = 'State',
  [ABI.IPOS_COMMIT] = 'Commit',
  [ABI.IPOS_COMMITTED] = 'Committed',
  [ABI.IPOS_REFUSE] = 'Refuse',
  [ABI.IPOS_RELEASE] = 'Release',
  [ABI.IPOS_RELEASED] = 'Released',
  [ABI.IPOS_CANCEL] = 'Cancel',
  [ABI.IPOS_APPLICATION] = 'Application state',
  [ABI.IPOS_MOVED] = 'Moved',
  [ABI.IPOS_MOVED_HEARD] = 'Moved heard',
}

local HEADER = piece('IPOS', {
  { 'IPOS_SOURCE_ADDRESS', 'ipv4', 'Source address' },
  { 'IPOS_SOURCE_PORT', 'u16', 'Source port' },
  { 'IPOS_DESTINATION_ADDRESS', 'ipv4', 'Destination address' },
  { 'IPOS_DESTINATION_PORT', 'u16', 'Destination (thread) port' },
  { 'IPOS_TYPE', 'u8', 'Type', { hex = true, values = TYPES } },
  { 'IPOS_PROTOCOL', 'u8', 'Protocol', { values = PROTOCOLS } },
  { 'IPOS_CHECKSUM', 'u16', 'Checksum', { hex = true } },
})

local CONNECTION = piece('IPOS', {
  { 'IPOS_SERVER_ADDRESS', 'ipv4', 'Server address' },
  { 'IPOS_SERVER_PORT', 'u16', 'Server port' },
})

local BLOCK = piece('BLOCK', {
  { 'BLOCK_VERSION', 'u8', 'Version' },
  { 'BLOCK_STATE', 'u8', 'State', { values = STATES } },
  {
    'BLOCK_FLAGS',
    'u16',
    'Flags',
    {
      hex = true,
      bits = {
        { 'sack', 'SACK agreed', ABI.BLOCK_FLAG_SACK },
        { 'timestamps', 'Timestamps agreed', ABI.BLOCK_FLAG_TIMESTAMPS },
        { 'fin_queued', 'FIN follows SND.END', ABI.BLOCK_FLAG_FIN_QUEUED },
        { 'fin_sent', 'FIN sent', ABI.BLOCK_FLAG_FIN_SENT },
        { 'fin_seen', 'FIN of the client seen', ABI.BLOCK_FLAG_FIN_SEEN },
        { 'fin_received', 'FIN of the client received in order', ABI.BLOCK_FLAG_FIN_RECEIVED },
        { 'loss', 'Retransmission going on', ABI.BLOCK_FLAG_LOSS },
        { 'handed_over', 'Handed over by an application', ABI.BLOCK_FLAG_HANDED_OVER },
        { 'out_of_order', 'Bytes beyond a gap move too', ABI.BLOCK_FLAG_OUT_OF_ORDER },
        { 'recovery', 'Fast recovery going on', ABI.BLOCK_FLAG_RECOVERY },
      },
    },
  },
  { 'BLOCK_MOVES', 'u32', 'Moves' },
  { 'BLOCK_ENTRY', 'ipv4', 'Entry INIC' },
  { 'BLOCK_ISS', 'u32', 'ISS' },
  { 'BLOCK_SND_UNA', 'u32', 'SND.UNA' },
  { 'BLOCK_SND_MAX', 'u32', 'SND.MAX' },
  { 'BLOCK_SND_END', 'u32', 'SND.END' },
  { 'BLOCK_SND_WND', 'u32', 'SND.WND', { unit = 'bytes' } },
  { 'BLOCK_SND_WND_MAXIMUM', 'u32', 'SND.WND, largest', { unit = 'bytes' } },
  { 'BLOCK_SND_WL1', 'u32', 'SND.WL1' },
  { 'BLOCK_SND_WL2', 'u32', 'SND.WL2' },
  { 'BLOCK_IRS', 'u32', 'IRS' },
  { 'BLOCK_RCV_NXT', 'u32', 'RCV.NXT' },
  { 'BLOCK_RCV_READ', 'u32', 'RCV.READ' },
  { 'BLOCK_RCV_ADVERTISED', 'u32', 'Right edge of the receive window' },
  { 'BLOCK_RCV_FIN', 'u32', 'Sequence number of the FIN seen' },
  { 'BLOCK_MSS', 'u16', 'MSS', { unit = 'bytes' } },
  { 'BLOCK_SND_SCALE', 'u8', 'Send window scale' },
  { 'BLOCK_RCV_SCALE', 'u8', 'Receive window scale' },
  { 'BLOCK_TS_RECENT', 'u32', 'TS.Recent' },
  { 'BLOCK_TS_RECENT_AGE', 'u32', 'Age of TS.Recent', { unit = 'ms' } },
  { 'BLOCK_TS_CLOCK', 'u32', 'Timestamp clock' },
  { 'BLOCK_LAST_ACK_SENT', 'u32', 'Last.ACK.sent' },
  { 'BLOCK_SRTT', 'u32', 'SRTT', { unit = 'us' } },
  { 'BLOCK_RTTVAR', 'u32', 'RTTVAR', { unit = 'us' } },
  { 'BLOCK_RTO', 'u32', 'RTO', { unit = 'ms' } },
  { 'BLOCK_CWND', 'u32', 'cwnd', { unit = 'bytes' } },
  { 'BLOCK_SSTHRESH', 'u32', 'ssthresh', { unit = 'bytes' } },
  { 'BLOCK_CUBIC_WMAX', 'f32', 'CUBIC W_max, segments' },
  { 'BLOCK_PERSIST_LEFT', 'u32', 'Until the next window probe', { unit = 'ms' } },
  { 'BLOCK_KEEP_ALIVE_LEFT', 'u32', 'Until keep-alive', { unit = 'ms' } },
  { 'BLOCK_KEEP_ALIVE_IDLE', 'u32', 'Keep-alive idle time', { unit = 'ms' } },
  { 'BLOCK_STALLED_AGE', 'u32', 'Oldest unacknowledged byte waits since', { unit = 'ms' } },
  { 'BLOCK_BACKOFF', 'u8', 'Backoff' },
  { 'BLOCK_KEEP_ALIVE_PROBES', 'u8', 'Keep-alive probes' },
  {
    'BLOCK_SOCKET_OPTIONS',
    'u16',
    'Socket options',
    {
      hex = true,
      bits = {
        { 'no_delay', 'No delay', ABI.SOCKET_OPTION_NO_DELAY },
        { 'keep_alive', 'Keep-alive', ABI.SOCKET_OPTION_KEEP_ALIVE },
        { 'takes_over', 'Takes over', ABI.SOCKET_OPTION_TAKES_OVER },
      },
    },
  },
  { 'BLOCK_STATE_BYTES', 'u32', 'Application state to follow', { unit = 'bytes' } },
  { 'BLOCK_RECEIVER', 'u32', 'Incarnation of the receiver' },
  { 'BLOCK_REORDER_STEPS', 'u8', 'Reordering window, quarters of a round trip' },
  { 'BLOCK_ACK_DELAY', 'u8', 'ACK delay', { unit = 'ms' } },
})

local STATE = piece('STATE', {
  { 'STATE_INCARNATION', 'u32', 'Incarnation', { hex = true } },
  { 'STATE_SEQUENCE', 'u32', 'Sequence number' },
  { 'STATE_FLAGS', 'u16', 'Flags', { hex = true, bits = { { 'draining', 'Draining', ABI.STATE_FLAG_DRAINING } } } },
  { 'STATE_CPU', 'u16', 'Main-board CPU utilization', { unit = 'per mille', note = per_cent } },
  { 'STATE_CONNECTIONS', 'u32', 'Established TCP connections' },
  { 'STATE_CONNECTIONS_MAXIMUM', 'u32', 'Connections at most' },
  { 'STATE_MEMORY_AVAILABLE', 'u32', 'Available memory', { unit = 'KiB' } },
  { 'STATE_MEMORY_TOTAL', 'u32', 'Memory', { unit = 'KiB' } },
  { 'STATE_BANDWIDTH_AVAILABLE', 'u32', 'Available bandwidth', { unit = 'kbit/s' } },
  { 'STATE_BANDWIDTH_TOTAL', 'u32', 'Bandwidth', { unit = 'kbit/s' } },
  { 'STATE_HEARD_COUNT', 'u16', 'Peers heard' },
  { 'STATE_SERVICE_COUNT', 'u16', 'Services' },
  { 'STATE_LEASE', 'u32', 'Lease', { unit = 'ms' } },
})
local HEARD = piece('HEARD', {
  { 'HEARD_ADDRESS', 'ipv4', 'Peer' },
  { 'HEARD_INCARNATION', 'u32', 'Incarnation heard', { hex = true } },
  { 'HEARD_SEQUENCE', 'u32', 'Sequence number heard' },
})
local SERVICE = piece('SERVICE', {
  { 'SERVICE_PORT', 'u16', 'Port' },
  { 'SERVICE_PROTOCOL', 'u8', 'Protocol', { values = PROTOCOLS } },
  {
    'SERVICE_FLAGS',
    'u8',
    'Flags',
    {
      hex = true,
      bits = {
        { 'first_speaker', 'First speaker', ABI.SERVICE_FIRST_SPEAKER, FIRST_SPEAKERS },
        { 'takes_over', 'Takes over connections', ABI.SERVICE_FLAG_TAKES_OVER },
      },
    },
  },
})

local COMMIT = piece('COMMIT', {
  { 'COMMIT_RECEIVE_END', 'u32', 'RCV.NXT' },
  { 'COMMIT_SEND_END', 'u32', 'SND.END' },
  { 'COMMIT_STATE_BYTES', 'u32', 'Application state', { unit = 'bytes' } },
  { 'COMMIT_OUT_OF_ORDER', 'u32', 'Received beyond a gap', { unit = 'bytes' } },
})
local COMMITTED = piece('COMMITTED', {
  { 'COMMITTED_RECEIVED', 'u32', 'Received up to' },
  { 'COMMITTED_QUEUED', 'u32', 'Send queue complete up to' },
  { 'COMMITTED_STATE_BYTES', 'u32', 'Application state', { unit = 'bytes' } },
  { 'COMMITTED_OUT_OF_ORDER', 'u32', 'Received beyond a gap', { unit = 'bytes' } },
  {
    'COMMITTED_FLAGS',
    'u16',
    'Flags',
    {
      hex = true,
      bits = {
        { 'complete', 'Complete', ABI.COMMITTED_FLAG_COMPLETE },
        { 'gap', 'Something came whose predecessor did not', ABI.COMMITTED_FLAG_GAP },
      },
    },
  },
})
local REFUSE = piece('REFUSE', { { 'REFUSE_REASON', 'u16', 'Reason', { values = REFUSALS } } })
local RELEASE = piece('RELEASE', {
  { 'RELEASE_REASON', 'u16', 'Reason', { values = RELEASES } },
  { 'RELEASE_FLOOR', 'u32', 'Initial sequence number at least' },
  { 'RELEASE_PACKET_BYTES', 'u16', 'Packet handed back', { unit = 'bytes' } },
})
local APPLICATION = piece('APPLICATION', {
  { 'APPLICATION_OFFSET', 'u32', 'Offset', { unit = 'bytes' } },
  { 'APPLICATION_BYTES', 'u16', 'Length', { unit = 'bytes' } },
})
local MOVED = piece('MOVED', {
  { 'MOVED_MOVES', 'u32', 'Moves' },
  { 'MOVED_ADDRESS', 'ipv4', 'Now at' },
  { 'MOVED_THREAD', 'u16', 'Thread port there' },
})
local MOVED_HEARD = piece('MOVED_HEARD', { { 'MOVED_HEARD_MOVES', 'u32', 'Moves' } })

local CHECKSUM_STATUS = register(
  ProtoField.uint8('inic.checksum.status', 'Checksum status', base.DEC, { [0] = 'Bad', [1] = 'Good', [2] = 'Unverified' })
)
local UNREAD = register(
  ProtoField.uint32('inic.block.unread', 'Bytes received and not read', base.UNIT_STRING, { ' bytes' })
)
local UNACKNOWLEDGED = register(
  ProtoField.uint32('inic.block.unacknowledged', 'Bytes queued and not acknowledged', base.UNIT_STRING, { ' bytes' })
)
local RESERVED = register(ProtoField.bytes('inic.block.reserved', 'Reserved'))
local STATE_PIECE = register(ProtoField.bytes('inic.application.data', 'Application state'))
local UNDECODED = register(ProtoField.bytes('inic.undecoded', 'Not decoded'))
local PADDING = register(ProtoField.bytes('inic.padding', 'Padding'))

-- Wireshark's own names for the Ethernet header, so that filters such as eth.src find ipOS frames too.
local ETHERNET = {
  destination = register(ProtoField.ether('eth.dst', 'Destination')),
  source = register(ProtoField.ether('eth.src', 'Source')),
  address = register(ProtoField.ether('eth.addr', 'Address')),
  type = register(ProtoField.uint16('eth.type', 'Type', base.HEX)),
}

ipos.fields = registered

-- ── what is wrong with a packet ─────────────────────────────────────────────────────────────────────────────────────

local experts = {}
local function new_expert(name, text, group, severity)
  experts[#experts + 1] = ProtoExpert.new('inic.' .. name, text, group, severity)
  return experts[#experts]
end

local MALFORMED = new_expert('malformed', 'Shorter than it has to be', expert.group.MALFORMED, expert.severity.ERROR)
local CUT = new_expert('cut', 'Cut short by the capture', expert.group.UNDECODED, expert.severity.NOTE)
local BAD_CHECKSUM = new_expert('checksum.bad', 'Wrong checksum', expert.group.CHECKSUM, expert.severity.ERROR)
local UNKNOWN = new_expert('unknown', 'Unknown type', expert.group.UNDECODED, expert.severity.WARN)
local UNEXPECTED = new_expert('unexpected', 'Unexpected value', expert.group.PROTOCOL, expert.severity.WARN)
local REFUSED = new_expert('refused', 'Refused', expert.group.RESPONSE_CODE, expert.severity.NOTE)

ipos.experts = experts

-- Complains unless `bytes` bytes of the packet are there. A capture may hold less than what was on the wire.
local function has(packet, bytes, what)
  if packet.tvb:len() >= bytes then
    return true
  end
  if packet.reported >= bytes then
    packet.tree:add_proto_expert_info(CUT)
  else
    local text = string.format('%s takes %d bytes, %d are there', what, bytes, packet.reported)
    packet.tree:add_proto_expert_info(MALFORMED, text)
  end
  return false
end

local function fold(sum)
  while sum > 0xffff do
    sum = sum % 0x10000 + math.floor(sum / 0x10000)
  end
  return sum
end

-- Sum of the 16-bit words (RFC 1071).
local function word_sum(tvb)
  local bytes = tvb:raw()
  local sum = 0
  for at = 1, #bytes - 1, 2 do
    local high, low = bytes:byte(at, at + 1)
    sum = sum + high * 256 + low
  end
  if #bytes % 2 == 1 then
    sum = sum + bytes:byte(#bytes) * 256
  end
  return fold(sum)
end

-- Over all of the frame, as the firmware sums it: zeros behind the payload do not count.
local function check_sum(packet, item)
  local tvb, status = packet.tvb, 2
  if tvb:len() >= packet.reported then
    local sum = word_sum(tvb)
    status = sum == 0xffff and 1 or 0
    if status == 1 then
      item:append_text(' [correct]')
    else
      local right = 0xffff - fold(sum + 0xffff - tvb(ABI.IPOS_CHECKSUM, 2):uint())
      local text = string.format('incorrect, should be 0x%04x', right)
      item:append_text(' [' .. text .. ']')
      item:add_proto_expert_info(BAD_CHECKSUM, 'Wrong checksum: ' .. text)
    end
  else
    item:append_text(' [unverified]')
  end
  packet.tree:add(CHECKSUM_STATUS, tvb(ABI.IPOS_CHECKSUM, 2), status):set_generated()
end

-- ── dissection ──────────────────────────────────────────────────────────────────────────────────────────────────────

-- Adds the fields of a piece that stands at `at`, as many as are there; returns their values and items by constant.
local function add(tree, tvb, at, fields)
  local values, items = {}, {}
  for _, field in ipairs(fields) do
    local from = at + field.at
    if from + field.bytes > tvb:len() then
      break
    end
    local range = tvb(from, field.bytes)
    local item = tree:add(field.field, range)
    for _, bit in ipairs(field.bits) do
      item:add(bit, range)
    end
    values[field.name], items[field.name] = field.read(range), item
    if field.note then
      item:append_text(' (' .. field.note(values[field.name]) .. ')')
    end
  end
  return values, items
end

-- The types, one function each: given the packet { tvb, reported, pinfo, root, tree, header }, it adds what follows header and connection
-- information, of which nothing need be there. It returns what the Info column says of it, and where the packet ends.

-- Adds what is left of the frame from `at` on.
local function add_rest(tree, tvb, at, field)
  if at < tvb:len() then
    tree:add(field, tvb(at))
  end
end

local function end_at(bytes)
  return function()
    return '', bytes
  end
end

-- As many bytes of `wanted` as the frame has from `at` on.
local function available(tvb, at, wanted)
  return math.max(0, math.min(wanted, tvb:len() - at))
end

-- Hands an IP packet to Wireshark's own dissector; returns what that one writes into the Info column.
local function add_ip(packet, at, wanted)
  local bytes = available(packet.tvb, at, wanted)
  if bytes == 0 then
    return ''
  end
  local ip, info = Dissector.get('ip'), packet.pinfo.cols.info
  info:clear()
  -- That dissector shows in the tree what is wrong with the packet. Its error would be shown once more, as one of this script.
  pcall(ip.call, ip, packet.tvb(at, bytes):tvb(), packet.pinfo, packet.root)
  local text = tostring(info)
  info:clear_fence()
  return ' | ' .. text
end

-- Wireshark's Luas have no operator in common for it.
local function is_set(flags, mask)
  return flags % (2 * mask) >= mask
end

local function distance(from, to)
  return (to - from) % TWO_TO_32
end

local function add_block(packet)
  local tvb = packet.tvb
  local bytes = available(tvb, ABI.IPOS_BLOCK, ABI.IPOS_BLOCK_BYTES)
  if bytes == 0 then
    return ''
  end
  local tree = packet.tree:add(tvb(ABI.IPOS_BLOCK, bytes), 'TCP control block')
  local values, items = add(tree, tvb, ABI.IPOS_BLOCK, BLOCK)
  if bytes < ABI.IPOS_BLOCK_BYTES then
    return ''
  end
  tree:add(RESERVED, tvb(ABI.IPOS_BLOCK + ABI.BLOCK_RESERVED, ABI.IPOS_BLOCK_BYTES - ABI.BLOCK_RESERVED))
  local version, state = values.BLOCK_VERSION, values.BLOCK_STATE
  if version ~= ABI.BLOCK_VERSION_VALUE then
    local text = string.format('Version %d, and %d is known here', version, ABI.BLOCK_VERSION_VALUE)
    items.BLOCK_VERSION:add_proto_expert_info(UNEXPECTED, text)
  end
  if not STATES[state] then
    items.BLOCK_STATE:add_proto_expert_info(UNEXPECTED, 'No endpoint moves in this state')
  end
  local unread = distance(values.BLOCK_RCV_READ, values.BLOCK_RCV_NXT)
  local unacknowledged = distance(values.BLOCK_SND_UNA, values.BLOCK_SND_END)
  tree:add(UNREAD, tvb(ABI.IPOS_BLOCK + ABI.BLOCK_RCV_NXT, 8), unread):set_generated()
  tree:add(UNACKNOWLEDGED, tvb(ABI.IPOS_BLOCK + ABI.BLOCK_SND_UNA, 12), unacknowledged):set_generated()
  local name = STATES[state] or 'state ' .. state
  return string.format(', %s, move %d, unread %d, unacknowledged %d', name, values.BLOCK_MOVES, unread, unacknowledged)
end

local function connect(packet)
  if packet.header.IPOS_PROTOCOL == ABI.IPOS_UDP then
    return '', ABI.IPOS_CONNECT_UDP_BYTES
  end
  has(packet, ABI.IPOS_CONNECT_TCP_BYTES, 'A TCP connection packet')
  return add_block(packet), ABI.IPOS_CONNECT_TCP_BYTES
end

local IP_HEADER_BYTES = 20
local IP_TOTAL_LENGTH = 2

-- The IP packet's own header says how long it is.
local function data(packet)
  local at = ABI.IPOS_HEADER_BYTES
  if not has(packet, at + IP_HEADER_BYTES, 'A data packet') then
    return '', at
  end
  local bytes = packet.tvb(at + IP_TOTAL_LENGTH, 2):uint()
  has(packet, at + bytes, 'A data packet with this IP packet')
  return add_ip(packet, at, bytes), at + math.max(bytes, IP_HEADER_BYTES)
end

-- Rows of a table in a state message: gives where they end, and a line for each.
local function add_rows(packet, at, count, bytes, fields, describe)
  local lines = {}
  for index = 1, math.floor(available(packet.tvb, at, count * bytes) / bytes) do
    local tree = packet.tree:add(packet.tvb(at, bytes), '')
    lines[index] = describe(add(tree, packet.tvb, at, fields))
    tree:set_text(lines[index])
    at = at + bytes
  end
  return at, lines
end

local function describe_heard(values)
  return string.format('heard %s, message %d', values.HEARD_ADDRESS, values.HEARD_SEQUENCE)
end

local function describe_service(values)
  return string.format('%d/%s', values.SERVICE_PORT, PROTOCOLS[values.SERVICE_PROTOCOL] or values.SERVICE_PROTOCOL)
end

-- Of a resource; a total of 0 is one that nobody knows.
local function share(available_of, total, unit)
  return total == 0 and 'unknown' or string.format('%d of %d %s', available_of, total, unit)
end

local function state(packet)
  local tvb = packet.tvb
  local values = add(packet.tree, tvb, 0, STATE)
  local at = ABI.STATE_HEARD
  if not has(packet, at, 'A state message') then
    return '', at
  end
  local heard_bytes = values.STATE_HEARD_COUNT * ABI.HEARD_BYTES
  local service_bytes = values.STATE_SERVICE_COUNT * ABI.SERVICE_BYTES
  has(packet, at + heard_bytes + service_bytes, 'A state message with its tables')
  if values.STATE_SERVICE_COUNT > ABI.STATE_MAXIMUM_SERVICES then
    packet.tree:add_proto_expert_info(UNEXPECTED, string.format('More than %d services', ABI.STATE_MAXIMUM_SERVICES))
  end
  local services_at = add_rows(packet, at, values.STATE_HEARD_COUNT, ABI.HEARD_BYTES, HEARD, describe_heard)
  local _, services =
    add_rows(packet, services_at, values.STATE_SERVICE_COUNT, ABI.SERVICE_BYTES, SERVICE, describe_service)
  local info = {
    string.format(' message %d: CPU %s', values.STATE_SEQUENCE, per_cent(values.STATE_CPU)),
    string.format('connections %d of %d', values.STATE_CONNECTIONS, values.STATE_CONNECTIONS_MAXIMUM),
    'memory ' .. share(values.STATE_MEMORY_AVAILABLE, values.STATE_MEMORY_TOTAL, 'KiB'),
    'bandwidth ' .. share(values.STATE_BANDWIDTH_AVAILABLE, values.STATE_BANDWIDTH_TOTAL, 'kbit/s'),
    'serves ' .. (#services > 0 and table.concat(services, ' ') or 'nothing'),
  }
  if is_set(values.STATE_FLAGS, ABI.STATE_FLAG_DRAINING) then
    info[#info + 1] = 'draining'
  end
  return table.concat(info, ', '), at + heard_bytes + service_bytes
end

-- A type that is one piece; `describe` is asked if all of it is there.
local function piece_of(fields, bytes, what, describe)
  return function(packet)
    local values, items = add(packet.tree, packet.tvb, 0, fields)
    local whole = has(packet, bytes, what)
    return whole and describe(values, items) or '', bytes, values
  end
end

local commit = piece_of(COMMIT, ABI.COMMIT_BYTES, 'A commit', function(values)
  return string.format(', received up to %d, queued up to %d', values.COMMIT_RECEIVE_END, values.COMMIT_SEND_END)
end)

local committed = piece_of(COMMITTED, ABI.COMMITTED_BYTES, 'A committed', function(values)
  local flags = values.COMMITTED_FLAGS
  local missing = is_set(flags, ABI.COMMITTED_FLAG_COMPLETE) and ', complete' or ', not complete'
  local gap = is_set(flags, ABI.COMMITTED_FLAG_GAP) and ', gap' or ''
  return string.format(', has %d, queued %d%s%s', values.COMMITTED_RECEIVED, values.COMMITTED_QUEUED, missing, gap)
end)

local refuse = piece_of(REFUSE, ABI.REFUSE_BYTES, 'A refusal', function(values, items)
  local reason = REFUSALS[values.REFUSE_REASON] or 'reason ' .. values.REFUSE_REASON
  items.REFUSE_REASON:add_proto_expert_info(REFUSED, 'Refused: ' .. reason)
  return ', ' .. reason
end)

local release_fields = piece_of(RELEASE, ABI.RELEASE_PACKET, 'A release', function(values)
  return ', ' .. (RELEASES[values.RELEASE_REASON] or 'reason ' .. values.RELEASE_REASON)
end)

local function release(packet)
  local info, at, values = release_fields(packet)
  local bytes = values.RELEASE_PACKET_BYTES or 0
  if bytes == 0 then
    return info, at
  end
  has(packet, at + bytes, 'A release with the packet that it hands back')
  return info .. add_ip(packet, at, bytes), at + bytes
end

local application_fields = piece_of(APPLICATION, ABI.APPLICATION_DATA, 'Application state', function(values)
  return string.format(', %d bytes from %d on', values.APPLICATION_BYTES, values.APPLICATION_OFFSET)
end)

local function application(packet)
  local info, at, values = application_fields(packet)
  local bytes = values.APPLICATION_BYTES or 0
  has(packet, at + bytes, 'Application state of its length')
  local there = available(packet.tvb, at, bytes)
  if there > 0 then
    packet.tree:add(STATE_PIECE, packet.tvb(at, there))
  end
  return info, at + bytes
end

local moved = piece_of(MOVED, ABI.MOVED_BYTES, 'A moved', function(values)
  local text = ', move %d, now at %s thread %d'
  return string.format(text, values.MOVED_MOVES, values.MOVED_ADDRESS, values.MOVED_THREAD)
end)

local moved_heard = piece_of(MOVED_HEARD, ABI.MOVED_HEARD_BYTES, 'A moved heard', function(values)
  return string.format(', move %d', values.MOVED_HEARD_MOVES)
end)

local BODIES = {
  [ABI.IPOS_CONNECT] = connect,
  [ABI.IPOS_DATA] = data,
  [ABI.IPOS_ACKNOWLEDGE] = end_at(ABI.IPOS_HEADER_BYTES),
  [ABI.IPOS_STATE] = state,
  [ABI.IPOS_COMMIT] = commit,
  [ABI.IPOS_COMMITTED] = committed,
  [ABI.IPOS_REFUSE] = refuse,
  [ABI.IPOS_RELEASE] = release,
  [ABI.IPOS_RELEASED] = end_at(ABI.IPOS_CONNECTION_BYTES),
  [ABI.IPOS_CANCEL] = end_at(ABI.IPOS_CONNECTION_BYTES),
  [ABI.IPOS_APPLICATION] = application,
  [ABI.IPOS_MOVED] = moved,
  [ABI.IPOS_MOVED_HEARD] = moved_heard,
}

-- These say nothing of a connection's addresses, or leave that to the packet inside.
local WITHOUT_CONNECTION = {
  [ABI.IPOS_DATA] = true,
  [ABI.IPOS_ACKNOWLEDGE] = true,
  [ABI.IPOS_STATE] = true,
}

-- `0x01 Connect TCP 198.51.100.9:40001 → 123.123.123.1:80 thread 1234 to 123.123.123.3`
local function describe(header, connection)
  local type, protocol = header.IPOS_TYPE, header.IPOS_PROTOCOL
  local name = string.format('0x%02x %s', type, TYPES[type])
  if type == ABI.IPOS_STATE then
    return name .. ' of ' .. header.IPOS_SOURCE_ADDRESS
  end
  local client = string.format('%s:%d', header.IPOS_SOURCE_ADDRESS, header.IPOS_SOURCE_PORT)
  local server = connection.IPOS_SERVER_PORT
    and string.format(' → %s:%d', connection.IPOS_SERVER_ADDRESS, connection.IPOS_SERVER_PORT)
  local thread = string.format('thread %d to %s', header.IPOS_DESTINATION_PORT, header.IPOS_DESTINATION_ADDRESS)
  return string.format('%s %s %s%s %s', name, PROTOCOLS[protocol] or protocol, client, server or '', thread)
end

local function set_columns(pinfo, info)
  pinfo.cols.protocol:set('ipOS')
  pinfo.cols.info:set(info)
end

-- Dissects what follows the Ethernet header. `reported`: bytes of it that were on the wire.
local function dissect(tvb, reported, pinfo, root)
  set_columns(pinfo, 'ipOS')
  local tree = root:add(ipos, tvb())
  local header, items = add(tree, tvb, 0, HEADER)
  local packet = { tvb = tvb, reported = reported, pinfo = pinfo, root = root, tree = tree, header = header }
  if not has(packet, ABI.IPOS_HEADER_BYTES, 'An ipOS header') then
    return
  end
  check_sum(packet, items.IPOS_CHECKSUM)
  local type, protocol = header.IPOS_TYPE, header.IPOS_PROTOCOL
  local body = BODIES[type]
  if not body then
    local text = string.format('Unknown type 0x%02x', type)
    items.IPOS_TYPE:add_proto_expert_info(UNKNOWN, text)
    add_rest(tree, tvb, ABI.IPOS_HEADER_BYTES, UNDECODED)
    return set_columns(pinfo, text)
  end
  if (type == ABI.IPOS_CONNECT or type == ABI.IPOS_DATA) and protocol ~= ABI.IPOS_TCP and protocol ~= ABI.IPOS_UDP then
    items.IPOS_PROTOCOL:add_proto_expert_info(UNEXPECTED, 'Neither TCP nor UDP')
  end
  local connection = {}
  if not WITHOUT_CONNECTION[type] then
    connection = add(tree, tvb, 0, CONNECTION)
    has(packet, ABI.IPOS_CONNECTION_BYTES, 'Connection information')
  end
  local start = describe(header, connection)
  tree:append_text(', ' .. start)
  local info, finish = body(packet)
  add_rest(tree, tvb, finish, PADDING)
  set_columns(pinfo, start .. info)
end

-- ── how frames come here ────────────────────────────────────────────────────────────────────────────────────────────

ipos.prefs.ethertype = Pref.uint(
  'EtherType',
  ABI.IPOS_ETHERTYPE,
  'Type of ipOS frames on the synchronization hub: what the farm file says as iposEthertype'
)

-- An EtherType proper: Wireshark's Ethernet dissector has shown the header and calls this.
function ipos.dissector(tvb, pinfo, root)
  if tvb:len() > 0 then
    dissect(tvb, tvb:reported_len(), pinfo, root)
  end
  return tvb:len()
end

local function add_ethernet(tvb, root)
  local destination, source = tvb(0, 6), tvb(6, 6)
  local text = string.format('Ethernet II, Src: %s, Dst: %s', source:ether(), destination:ether())
  local tree = root:add(tvb(0, ETHERNET_BYTES), text)
  tree:add(ETHERNET.destination, destination):add(ETHERNET.address, destination):set_hidden()
  tree:add(ETHERNET.source, source):add(ETHERNET.address, source):set_hidden()
  tree:add(ETHERNET.type, tvb(12, 2)):append_text(' (ipOS)')
end

-- A type that IEEE 802.3 takes for a length never gets into the table of EtherTypes. But before Wireshark's Ethernet dissector looks at
-- it, it asks these, in case that the frame is not what it seems.
local function is_ipos(tvb, pinfo, root)
  if tvb:len() <= ETHERNET_BYTES or ipos.prefs.ethertype >= FIRST_ETHERTYPE then
    return false
  end
  if tvb(12, 2):uint() ~= ipos.prefs.ethertype then
    return false
  end
  add_ethernet(tvb, root)
  dissect(tvb(ETHERNET_BYTES):tvb(), tvb:reported_len() - ETHERNET_BYTES, pinfo, root)
  return true
end

ipos:register_heuristic('eth', is_ipos)

local ethertypes = DissectorTable.get('ethertype')
local in_table

function ipos.prefs_changed()
  local wanted = ipos.prefs.ethertype
  if in_table then
    ethertypes:remove(in_table, ipos)
    in_table = nil
  end
  if wanted >= FIRST_ETHERTYPE and wanted <= 0xffff then
    ethertypes:add(wanted, ipos)
    in_table = wanted
  end
end
