//! Conversions between what the crate works with and what JavaScript passes.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::error::{Code, Result};
use crate::memory::{GuardedRange, HostView};
use crate::pages::{self, PAGE_BYTES};

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
    /// Loads are allowed.
    pub readable: Option<bool>,
}

/// Guarded ranges from JavaScript.
pub fn ranges(guard: Vec<GuardRange>) -> Box<[GuardedRange]> {
    let ranges = guard.into_iter().map(|range| GuardedRange {
        addresses: range.start as usize..range.end as usize,
        readable: range.readable.unwrap_or(false),
    });
    ranges.collect()
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

/// The pages of INIC memory that were ever used: first and last plus one of each run, in units of 4096 bytes.
pub fn used_pages(view: &HostView) -> Uint32Array {
    let pages = view.used().into_iter().flat_map(|range| {
        // A page ends within 4 GiB, and so its number fits.
        [(range.start / PAGE_BYTES) as u32, range.end.div_ceil(PAGE_BYTES) as u32]
    });
    Uint32Array::new(pages.collect())
}

/// [`pages::copy_dirty`] on INIC memory. Throws ERR_CPU_OPTION.
pub fn copy_dirty_of(view: &HostView, shadow: Uint8Array, pages: Uint32Array, bytes: Uint8Array) -> Result<u32> {
    // SAFETY: neither the firmware nor JavaScript runs meanwhile.
    let memory = unsafe { view.contents() };
    dirty(memory, &view.used(), shadow, pages, bytes)
}

/// [`pages::copy_dirty`] on any memory. Throws ERR_CPU_OPTION.
#[napi(catch_unwind)]
pub fn copy_dirty(memory: Uint8Array, shadow: Uint8Array, pages: Uint32Array, bytes: Uint8Array) -> Result<u32> {
    let whole = 0..memory.len();
    dirty(&memory, &[whole], shadow, pages, bytes)
}

fn dirty(
    memory: &[u8],
    used: &[std::ops::Range<usize>],
    mut shadow: Uint8Array,
    mut pages: Uint32Array,
    mut bytes: Uint8Array,
) -> Result<u32> {
    if memory.len() != shadow.len() || !memory.len().is_multiple_of(PAGE_BYTES) {
        let (is, copied) = (memory.len(), shadow.len());
        return Err(
            Code::Option.error(format!("memory of {is} bytes and a copy of {copied}: not the same whole pages"))
        );
    }
    let places = [
        memory.as_ptr_range(),
        shadow.as_ptr_range(),
        bytes.as_ptr_range(),
        pages.as_ptr().cast()..pages.as_ptr_range().end.cast(),
    ];
    let overlap = |a: &std::ops::Range<*const u8>, b: &std::ops::Range<*const u8>| {
        a.start < a.end && b.start < b.end && a.start < b.end && b.start < a.end
    };
    if (1..places.len()).any(|n| places[..n].iter().any(|other| overlap(other, &places[n]))) {
        return Err(Code::Option.error("memory, its copy and the room for changed pages overlap"));
    }
    // SAFETY: no two of them overlap, and JavaScript, the only other user, does not run meanwhile.
    let (shadow, pages, bytes) = unsafe { (shadow.as_mut(), pages.as_mut(), bytes.as_mut()) };
    Ok(pages::copy_dirty(memory, used, shadow, pages, bytes))
}
