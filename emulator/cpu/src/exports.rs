//! Conversions between what the crate works with and what JavaScript passes.

use std::ops::Range;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint32Array};
use napi_derive::napi;

use crate::error::{Code, Result};
use crate::memory::HostView;

/// The unit of [`used_pages`]; `USED_PAGE_BYTES` of cpu.ts.
const PAGE_BYTES: usize = 4096;

/// What this addon was built from, as build.mjs reckons it; undefined if cargo was called by hand.
#[napi]
pub fn fingerprint() -> Option<&'static str> {
    option_env!("INIC_CPU_FINGERPRINT")
}

/// A guarded range as JavaScript gives it; `MemoryGuard` of index.ts.
#[napi(object)]
pub struct GuardRange {
    /// First address.
    pub start: f64,
    /// First address behind it.
    pub end: f64,
}

/// Guarded ranges from JavaScript.
pub fn ranges(guard: Vec<GuardRange>) -> Box<[Range<usize>]> {
    guard.into_iter().map(|range| range.start as usize..range.end as usize).collect()
}

/// Interrupt lines are 32 bits, and JavaScript may have set the topmost by a signed operation.
pub fn irq_lines(number: f64) -> u32 {
    number as i64 as u32
}

/// An ArrayBuffer over INIC memory, which lives as long as the buffer is attached.
pub fn memory<'env>(env: &'env Env, view: &Arc<HostView>) -> Result<ArrayBuffer<'env>> {
    // SAFETY: the mapping is as long as it says and is kept until the finalizer drops its count.
    unsafe { external(env, view.start(), view.bytes(), view.clone()) }
}

/// An ArrayBuffer over memory that `owner` keeps alive.
///
/// # Safety
/// `start` is `bytes` long for as long as `owner` lives.
pub unsafe fn external<'env, T: Send + Sync + 'static>(
    env: &'env Env,
    start: *mut u8,
    bytes: usize,
    owner: Arc<T>,
) -> Result<ArrayBuffer<'env>> {
    // SAFETY: as promised by the caller; the finalizer drops the owner.
    let buffer = unsafe { ArrayBuffer::from_external(env, start, bytes, owner, |_, owner| drop(owner)) }
        .map_err(|cause| Code::Memory.napi("no ArrayBuffer over memory", &cause))?;
    if buffer.as_ptr() != start.cast_const() {
        // Electron's V8 copies instead, and a copy is of no use.
        return Err(Code::Memory.error("this JavaScript engine does not allow ArrayBuffers over foreign memory"));
    }
    Ok(buffer)
}

/// Detaches a buffer: its length is 0 from now on.
pub fn detach(buffer: ArrayBuffer<'_>) -> Result<()> {
    buffer.detach().map_err(|cause| Code::Internal.napi("the ArrayBuffer stays attached", &cause))
}

/// The pages of INIC memory that were ever used: first and last plus one of each run.
pub fn used_pages(view: &HostView) -> Uint32Array {
    let pages = view.used().into_iter().flat_map(|range| {
        // A page ends within 4 GiB, and so its number fits.
        [(range.start / PAGE_BYTES) as u32, range.end.div_ceil(PAGE_BYTES) as u32]
    });
    Uint32Array::new(pages.collect())
}
