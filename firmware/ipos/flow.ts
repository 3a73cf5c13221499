export function flowInput(_from: u32, _type: u32, _header: u32, _size: u32): bool {
  return false
}
export function flowRemove(_index: u32): void {}
export function flowTurn(_index: u32): void {}
export function flowError(_p: u32, _l: u32, _r: u32, _lp: u32, _rp: u32): bool {
  return false
}
