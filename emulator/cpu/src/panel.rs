//! The numbers that the debugged CPU shares with JavaScript, so that a stop costs one call and makes no object.
//!
//! Atomic because the ArrayBuffers over them may be freed on another thread; all else is on the JavaScript thread.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use wasmtime::Val;

/// Locals that fit. `DEBUG_VALUES` of addon.ts.
pub const VALUES: usize = 512;

/// Words of a value: a v128 has two.
const VALUE_WORDS: usize = 2;

const SLOTS: usize = 9;

/// The places of a Float64Array; `DebugIo` of addon.ts.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Slot {
    /// In: interrupt lines for `poll`.
    Irqs,
    /// How the last run came back: see [`Outcome`].
    Code,
    /// What `poll` returned; 0 for `reset`.
    Result,
    /// Fuel spent by the call.
    Cycles,
    /// 1 if the call left a byte of the watched range other than it found it.
    Stored,
    /// Where it is stopped.
    Pc,
    /// Instructions begun, or -1.
    Steps,
    /// Locals of the innermost frame.
    Locals,
    /// 1 if the request did not fit the state, and nothing ran.
    Refused,
}

/// How a run came back; `DebugCode` of debug.ts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The call returned.
    Done,
    /// The firmware is stopped until a reset.
    Fault,
    /// Stopped before an instruction with a breakpoint.
    Breakpoint,
    /// Stopped before an instruction, as asked for.
    Step,
    /// Stopped at an instruction that is about to trap.
    Trap,
    /// Stopped behind an access to what is watched.
    Watch,
}

/// What both sides see.
pub struct Panel {
    numbers: [AtomicU64; SLOTS],
    values: Box<[AtomicU64]>,
    kinds: Box<[AtomicU8]>,
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            numbers: std::array::from_fn(|_| AtomicU64::new(0)),
            values: (0..VALUES * VALUE_WORDS).map(|_| AtomicU64::new(0)).collect(),
            kinds: (0..VALUES).map(|_| AtomicU8::new(0)).collect(),
        }
    }
}

impl Panel {
    /// Writes a number.
    pub fn set(&self, slot: Slot, number: f64) {
        self.numbers[slot as usize].store(number.to_bits(), Ordering::Relaxed);
    }

    /// Reads a number.
    pub fn get(&self, slot: Slot) -> f64 {
        f64::from_bits(self.numbers[slot as usize].load(Ordering::Relaxed))
    }

    /// Writes how a run came back.
    pub fn set_outcome(&self, outcome: Outcome) {
        self.set(Slot::Code, f64::from(outcome as u8));
    }

    /// Writes one local; nothing behind the last that fits.
    pub fn set_value(&self, at: usize, value: &Val) {
        let (kind, low, high) = match *value {
            Val::I32(number) => (1, u64::from(number as u32), 0),
            Val::I64(number) => (2, number as u64, 0),
            Val::F32(bits) => (3, u64::from(bits), 0),
            Val::F64(bits) => (4, bits, 0),
            Val::V128(vector) => (5, vector.as_u128() as u64, (vector.as_u128() >> 64) as u64),
            _ => (0, 0, 0),
        };
        if let (Some(place), Some(words)) = (self.kinds.get(at), self.values.get(at * VALUE_WORDS..)) {
            place.store(kind, Ordering::Relaxed);
            for (word, part) in words.iter().zip([low, high]) {
                word.store(part, Ordering::Relaxed);
            }
        }
    }

    /// The numbers as bytes.
    pub fn numbers(&self) -> (*mut u8, usize) {
        (self.numbers.as_ptr().cast::<u8>().cast_mut(), size_of_val(&self.numbers))
    }

    /// The values as bytes.
    pub fn values(&self) -> (*mut u8, usize) {
        (self.values.as_ptr().cast::<u8>().cast_mut(), size_of_val(&*self.values))
    }

    /// Kinds of the values, a byte each: `DEBUG_KINDS` of addon.ts.
    pub fn kinds(&self) -> (*mut u8, usize) {
        (self.kinds.as_ptr().cast::<u8>().cast_mut(), size_of_val(&*self.kinds))
    }
}
