//! Watchpoints: which loads and stores of the firmware touch what is watched, and what they leave there.

use std::ops::Range;

use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use crate::error::{Code, Result};
use crate::memory::HostView;

/// Watched bytes that a hit shows at most.
const SHOWN_BYTES: u64 = 64;

/// A watchpoint as JavaScript gives it.
#[napi(object)]
pub struct WatchSpec {
    /// First address.
    pub start: f64,
    /// First address behind it.
    pub end: f64,
    /// Bytes of a row.
    pub stride: f64,
    /// First watched byte of a row.
    pub offset: f64,
    /// Watched bytes of a row.
    pub bytes: f64,
    /// `read`, `write`, `access` or `change`.
    pub kind: String,
}

/// An access to what is watched; `WatchHit` of debug.ts.
#[napi(object)]
pub struct WatchHit {
    /// Of the watchpoint.
    pub id: u32,
    /// `read` or `write`.
    pub kind: String,
    /// First address of the access.
    pub address: f64,
    /// Bytes of the access.
    pub bytes: f64,
    /// Offset in the module of the instruction.
    pub pc: u32,
    /// First watched address that was touched.
    pub start: f64,
    /// What was there, from `start` on.
    pub before: Uint8Array,
    /// What is there now.
    pub after: Uint8Array,
}

/// What an instruction is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Offset in the module of the instruction.
    pub pc: u32,
    /// It stores.
    pub write: bool,
    /// First address.
    pub address: u64,
    /// How many bytes from there.
    pub bytes: u64,
}

struct Watchpoint {
    id: u32,
    range: Range<u64>,
    /// Bytes of a row, and the watched field of it.
    stride: u64,
    field: Range<u64>,
    reads: bool,
    writes: bool,
    /// Stores count only if they change something.
    changes: bool,
}

impl Watchpoint {
    /// The watched bytes that an access touches, in the first row where it touches any.
    fn touched(&self, touch: &Touch) -> Option<Range<u64>> {
        let from = touch.address.max(self.range.start);
        let to = touch.address.saturating_add(touch.bytes).min(self.range.end);
        if from >= to {
            return None;
        }
        // An access that misses the field of its row may reach that of the next.
        let row = (from - self.range.start) / self.stride;
        (row..row + 2).find_map(|row| {
            let start = self.range.start + row * self.stride;
            let (from, to) = (from.max(start + self.field.start), to.min(start + self.field.end));
            (from < to).then(|| from..to.min(from + SHOWN_BYTES))
        })
    }
}

/// An access to what is watched.
struct Hit {
    id: u32,
    touch: Touch,
    watched: Range<u64>,
    changes: bool,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// The watchpoints of a CPU, and the access that is being made.
#[derive(Default)]
pub struct Watches {
    points: Vec<Watchpoint>,
    last_id: u32,
    /// What the access under way touches.
    pending: Vec<Hit>,
    /// What the last one did that counted.
    hits: Vec<Hit>,
}

impl Watches {
    /// Throws ERR_CPU_OPTION for what is no range in `memory_bytes`, or no field of a row.
    pub fn add(&mut self, spec: &WatchSpec, memory_bytes: usize) -> Result<u32> {
        let [start, end, stride, offset, bytes] =
            [spec.start, spec.end, spec.stride, spec.offset, spec.bytes].map(|number| number as u64);
        let field = offset..offset.saturating_add(bytes);
        if start >= end || end > memory_bytes as u64 || field.is_empty() || field.end > stride {
            return Err(
                Code::Option.error(format!("a watchpoint at {start:#x}-{end:#x}: no range, or no field of a row"))
            );
        }
        let (reads, writes) = match spec.kind.as_str() {
            "read" => (true, false),
            "write" | "change" => (false, true),
            "access" => (true, true),
            other => return Err(Code::Option.error(format!("a watchpoint of kind {other}"))),
        };
        self.last_id += 1;
        let changes = spec.kind == "change";
        self.points.push(Watchpoint { id: self.last_id, range: start..end, stride, field, reads, writes, changes });
        Ok(self.last_id)
    }

    /// False if there is none of that number.
    pub fn remove(&mut self, id: u32) -> bool {
        let before = self.points.len();
        self.points.retain(|point| point.id != id);
        self.points.len() < before
    }

    /// Some watchpoint is interested in loads; in stores.
    pub fn interests(&self) -> (bool, bool) {
        (self.points.iter().any(|point| point.reads), self.points.iter().any(|point| point.writes))
    }

    /// Notes what an instruction that is about to run touches of what is watched. True if it does.
    pub fn expect(&mut self, view: &HostView, touch: Touch) -> bool {
        for point in self.points.iter().filter(|point| if touch.write { point.writes } else { point.reads }) {
            if let Some(watched) = point.touched(&touch) {
                let before = read(view, &watched);
                self.pending.push(Hit { id: point.id, touch, watched, changes: point.changes, before, after: vec![] });
            }
        }
        !self.pending.is_empty()
    }

    /// The instruction has run. True if a watchpoint stops for it.
    pub fn complete(&mut self, view: &HostView) -> bool {
        self.hits.clear();
        for mut hit in self.pending.drain(..) {
            hit.after = read(view, &hit.watched);
            if !hit.changes || hit.before != hit.after {
                self.hits.push(hit);
            }
        }
        !self.hits.is_empty()
    }

    /// An access is under way.
    pub fn is_expecting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The instruction did not run to its end.
    pub fn forget(&mut self) {
        self.pending.clear();
        self.hits.clear();
    }

    /// What the last access did.
    pub fn hits(&self) -> Vec<WatchHit> {
        let hits = self.hits.iter().map(|hit| WatchHit {
            id: hit.id,
            kind: if hit.touch.write { "write" } else { "read" }.into(),
            address: hit.touch.address as f64,
            bytes: hit.touch.bytes as f64,
            pc: hit.touch.pc,
            start: hit.watched.start as f64,
            before: Uint8Array::new(hit.before.clone()),
            after: Uint8Array::new(hit.after.clone()),
        });
        hits.collect()
    }
}

/// A copy of a range that lies in memory.
fn read(view: &HostView, range: &Range<u64>) -> Vec<u8> {
    // SAFETY: the firmware is stopped at an instruction, and JavaScript does not run.
    let memory = unsafe { view.contents() };
    memory.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec()
}
