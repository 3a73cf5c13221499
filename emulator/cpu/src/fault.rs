//! Why the firmware stopped.

use napi_derive::napi;
use wasmtime::{Trap, WasmBacktrace};

use crate::bus::BusGuard;
use crate::engine::Firmware;
use crate::watchdog::TimeLimit;

/// A function of the firmware that was running.
#[napi(object)]
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Index in the module's function space.
    pub function_index: u32,
    /// From the name section.
    pub function_name: Option<String>,
    /// Offset of the instruction in the module: the generated column of asc's source map.
    pub pc: Option<u32>,
}

/// Why the firmware stopped.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct Fault {
    /// One of `CpuFaultKind` of index.ts.
    pub kind: String,
    /// A sentence for a person.
    pub message: String,
    /// INIC address of the access.
    pub address: Option<f64>,
    /// Call stack, innermost first.
    pub frames: Vec<Frame>,
}

impl Fault {
    /// A fault of the engine itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { kind: "internal".into(), message: message.into(), address: None, frames: Vec::new() }
    }

    /// The fault behind an error of a call into the firmware, which was `overdue` if it had come to its limit.
    pub fn of(error: &wasmtime::Error, guard: &BusGuard, firmware: &Firmware, overdue: Option<TimeLimit>) -> Self {
        if guard.tripped_in_host() {
            return Self::in_host(guard, firmware); // It came first, whatever came of it.
        }
        let frames = error.downcast_ref::<WasmBacktrace>().map_or_else(Vec::new, |trace| frames_of(trace, firmware));
        let Some(trap) = error.downcast_ref::<Trap>() else {
            return Self { frames, ..Self::internal(format!("{error:#}")) };
        };
        let (kind, message) = describe(*trap);
        if let Some(limit) = overdue.filter(|_| *trap == Trap::MemoryOutOfBounds) {
            let milliseconds = limit.most.as_millis();
            let message = format!("watchdog: the firmware ran for {milliseconds} ms without returning");
            return Self { kind: "watchdog".into(), message, address: None, frames };
        }
        let access = guard.access().filter(|_| *trap == Trap::MemoryOutOfBounds);
        match access {
            Some(access) if access.guarded => Self::bus(access.address, frames),
            Some(access) => Self {
                kind: kind.into(),
                message: format!("{message} at {:#x}", access.address),
                address: Some(access.address as f64),
                frames,
            },
            None => Self { kind: kind.into(), message: message.into(), address: None, frames },
        }
    }

    /// The fault of a slice in which `memory.copy` or `memory.fill` touched a guarded page.
    pub fn in_host(guard: &BusGuard, firmware: &Firmware) -> Self {
        let address = guard.access().map_or(0, |access| access.address);
        Self::bus(address, guard.frames(firmware))
    }

    fn bus(address: u64, frames: Vec<Frame>) -> Self {
        let message = format!("bus fault: nothing answers at {address:#x}");
        Self { kind: "bus-fault".into(), message, address: Some(address as f64), frames }
    }
}

/// Kind and sentence for a trap.
pub fn describe(trap: Trap) -> (&'static str, &'static str) {
    match trap {
        Trap::OutOfFuel => ("watchdog", "watchdog: the firmware used up its cycles without returning"),
        Trap::UnreachableCodeReached => ("unreachable", "an unreachable instruction was executed"),
        Trap::MemoryOutOfBounds => ("memory-out-of-bounds", "access outside INIC memory"),
        Trap::IntegerDivisionByZero => ("divide-by-zero", "integer division by zero"),
        Trap::IntegerOverflow => ("integer-overflow", "integer division overflow"),
        Trap::BadConversionToInteger => {
            ("invalid-conversion", "float out of the range of the integer it is converted to")
        }
        Trap::StackOverflow => ("stack-overflow", "call stack exhausted"),
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
            ("indirect-call", "indirect call of no function or of one with another signature")
        }
        _ => ("internal", "a trap that no firmware should be able to raise"),
    }
}

fn frames_of(backtrace: &WasmBacktrace, firmware: &Firmware) -> Vec<Frame> {
    let frames = backtrace.frames().iter();
    frames
        .map(|frame| Frame {
            function_index: frame.func_index(),
            function_name: frame.func_name().map(str::to_owned),
            pc: frame
                .module_offset()
                .and_then(|offset| u32::try_from(offset).ok())
                .map(|offset| firmware.original_pc(offset)),
        })
        .collect()
}
