import { INTERFACE_ENABLED, INTERFACE_HUB } from '../../abi/boot.ts'
import { DROP_ETHERNET_SHORT, DROP_ETHERNET_TYPE } from '../../abi/trace.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { drop } from '../hal/trace.ts'
import { iposInput } from '../ipos/input.ts'
import { counters, state } from '../state.ts'
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ethernetDestination,
  ethernetType,
  ethernetWrite,
  macIsGroup,
} from '../wire/ethernet.ts'
import { arpEntry, arpInput } from './arp.ts'
import { netInterface } from './interface.ts'
import { ipv4Input } from './ipv4.ts'

/** Takes one received frame. What the frame leads to is done, or queued in copies, when the call returns. */
export function ethernetInput(port: u32, frame: u32, bytes: u32): void {
  if (bytes < ETHERNET_HEADER_BYTES) {
    drop(DROP_ETHERNET_SHORT, port, bytes)
    return
  }
  const ni = netInterface(port)
  const type = ethernetType(frame)
  if (port != LOOPBACK_PORT) {
    const destination = ethernetDestination(frame)
    // A port that listens to everything hears what is meant for others.
    if (destination != ni.mac && !macIsGroup(destination)) {
      counters().framesDropped++
      return
    }
  }
  // The hub carries ipOS frames alone, and a LAN none of them.
  const served = (ni.flags & (INTERFACE_ENABLED | INTERFACE_HUB)) == INTERFACE_ENABLED
  if (served && type == ETHERTYPE_IPV4) {
    ipv4Input(port, frame, frame + ETHERNET_HEADER_BYTES, bytes - ETHERNET_HEADER_BYTES)
  } else if (served && type == ETHERTYPE_ARP && port != LOOPBACK_PORT) {
    arpInput(port, frame + ETHERNET_HEADER_BYTES, bytes - ETHERNET_HEADER_BYTES)
  } else if (port == state().hubPort && type == state().iposEtherType) {
    iposInput(frame, bytes)
  } else {
    drop(DROP_ETHERNET_TYPE, port, type)
  }
}

/**
 * Writes the 14 bytes in front of a packet. On the loopback the addresses are zeros.
 *
 * @param arpIndex what `arpLookup` returned, not 0
 */
export function ethernetHeader(frame: u32, interfaceIndex: u32, arpIndex: u32, etherType: u32): void {
  if (interfaceIndex == LOOPBACK_PORT) {
    ethernetWrite(frame, 0, 0, etherType)
    return
  }
  ethernetWrite(frame, arpEntry(arpIndex).mac, netInterface(interfaceIndex).mac, etherType)
}
