/**
 * Boot information: what the boot loader tells the firmware, at BOOT_BASE. Little-endian. It is the only place where a
 * board's settings and its random seed enter the firmware.
 */
export const BOOT_MAGIC = 0 // u32 BOOT_MAGIC_VALUE
export const BOOT_VERSION = 4 // u32
export const BOOT_SEED = 16 // 32 bytes: seed of the firmware's random numbers and hash keys
export const BOOT_MAGIC_VALUE = 0x544f4f42 // "BOOT"
export const BOOT_VERSION_VALUE = 1

// Settings, u32 each; 0 = the firmware's default.
export const BOOT_MAXIMUM_CONNECTIONS = 64 // TCBs
export const BOOT_SYN_BACKLOG = 68 // SYN-RECEIVED endpoints before cookies are sent
export const BOOT_PLACE_AFTER_MS = 72 // firstSpeaker auto: silence before an endpoint is placed by its port
export const BOOT_MSL_MS = 76 // maximum segment lifetime; TIME-WAIT lasts twice as long
export const BOOT_RTO_MINIMUM_MS = 80
export const BOOT_RECEIVE_CREDIT = 84 // bytes a socket
export const BOOT_SEND_CREDIT = 88 // bytes a socket
export const BOOT_CONGESTION_CONTROL = 92 // CONGESTION_*
export const BOOT_IPOS_ETHERTYPE = 96 // default 0x0007 (FIG. 11)
export const BOOT_FLAGS = 100 // BOOT_FLAG_*
export const BOOT_USER_TIMEOUT_MS = 104 // unacknowledged data for so long ends the connection (RFC 9293 R2)
export const BOOT_UNATTACHED_TIMEOUT_MS = 108 // an unattached endpoint that never sends a request is reset after this
export const BOOT_SERVER_INDEX = 112 // place of this server in the farm, 0..MAXIMUM_PEERS
export const BOOT_PEER_COUNT = 116 // other servers on the synchronization hub, 0..MAXIMUM_PEERS
export const BOOT_PLACEMENT = 120 // PLACEMENT_*
// Weights of the load of a resource, per cent + 1 (1 = the resource does not count); a server's load is the largest weighted one.
export const BOOT_WEIGHT_CPU = 124
export const BOOT_WEIGHT_MEMORY = 128
export const BOOT_WEIGHT_BANDWIDTH = 132
export const BOOT_WEIGHT_CONNECTIONS = 136
export const BOOT_LOCAL_LIMIT = 140 // local-first: per mille of load up to which this server serves itself, + 1
export const BOOT_LOAD_LIMIT = 144 // per mille of load from which on a server gets nothing new while another is below, + 1
export const BOOT_STATE_INTERVAL_MS = 148 // between two state messages; a quarter of the lease at most
export const BOOT_LEASE_MS = 152 // a forwarded endpoint stops after so long without word from its entry INIC; the same in all servers of a farm
export const DEFAULT_LEASE_MS = 2000 // if the field is 0
export const BOOT_FORWARD_ENTRIES = 156 // rows of the Forward table

// Updates: what of the flash is the firmware's (toolchain/image). u32 each.
export const BOOT_UPDATE_OFFSET = 160 // byte offset in flash of the slot that an update is written to
export const BOOT_UPDATE_BYTES = 164 // bytes of that slot, 0 = the firmware cannot take updates
export const BOOT_CONFIRM_OFFSET = 168 // byte offset in flash of the granule whose first byte is set to 1 to confirm the running image
export const BOOT_TRIAL = 172 // 1 = the running image is not confirmed: the next boot goes back to the one before it

export const PLACEMENT_DEFAULT = 0
export const PLACEMENT_LEAST_LOADED = 1
export const PLACEMENT_LOCAL_FIRST = 2
export const PLACEMENT_ROUND_ROBIN = 3
export const PLACEMENT_LOCAL_ONLY = 4

export const CONGESTION_DEFAULT = 0
export const CONGESTION_NEWRENO = 1
export const CONGESTION_CUBIC = 2

export const BOOT_FLAG_NO_TIMESTAMPS = 1
export const BOOT_FLAG_NO_SACK = 2
export const BOOT_FLAG_NO_WINDOW_SCALE = 4
export const BOOT_FLAG_ALWAYS_COOKIES = 8 // answer every SYN with a cookie (tests)
export const BOOT_FLAG_NO_TAIL_PROBES = 16 // losses at the end of a flight wait for the retransmission timer

// Interfaces: MAC_PORTS blocks of BOOT_INTERFACE_BYTES.
export const BOOT_INTERFACES = 256
export const BOOT_INTERFACE_BYTES = 64
export const BOOT_INTERFACE_FLAGS = 0 // u32 INTERFACE_*
export const BOOT_INTERFACE_ADDRESS = 4 // u32 IPv4, 0 = none
export const BOOT_INTERFACE_PREFIX = 8 // u32 bits
export const BOOT_INTERFACE_GATEWAY = 12 // u32 IPv4, 0 = none
export const BOOT_INTERFACE_MTU = 16 // u32 bytes of IP packet, 0 = 1500
/**
 * u32: packets that carry this interface's address as their source leave by port n - 1, and by its gateway; 0 = by this one. Neighbours on the
 * interface's own link are reached there, and so is everybody while the other link is down.
 */
export const BOOT_INTERFACE_REPLY = 20
export const INTERFACE_ENABLED = 1
export const INTERFACE_HUB = 2 // the synchronization hub: ipOS frames only

// Peers: the other servers on the hub, BOOT_PEER_COUNT blocks of BOOT_PEER_BYTES. ipOS frames from anybody else are dropped.
export const BOOT_PEERS = 512
export const BOOT_PEER_BYTES = 32
export const BOOT_PEER_MAC_HIGH = 0 // u32: first two bytes of its port on the hub
export const BOOT_PEER_MAC_LOW = 4 // u32: last four
export const BOOT_PEER_INDEX = 8 // u32: its BOOT_SERVER_INDEX
/** u32 for each of MAC_PORTS: its address on the network of our port of that number, 0 = none. The first that is not 0 names the server. */
export const BOOT_PEER_ADDRESSES = 12
export const MAXIMUM_PEERS = 31
