//! The functions that a stopped firmware is in.

use napi::bindgen_prelude::{BigInt, Either};
use napi_derive::napi;
use wasmtime::{FrameHandle, StoreContextMut, Val};

use crate::engine::Firmware;
use crate::panel::{Panel, Slot, VALUES};

/// Depth of a noted call stack.
const MAX_FRAMES: usize = 64;

/// A local or an operand.
#[napi(object)]
pub struct Value {
    /// `i32`, `i64`, `f32`, `f64`, `v128` or `ref`.
    #[napi(js_name = "type")]
    pub kind: String,
    /// i64 and v128 as a BigInt, the latter without sign.
    pub value: Either<f64, BigInt>,
}

/// A function of the firmware that is running.
#[napi(object)]
pub struct DebugFrame {
    /// Index in the module's function space.
    pub function_index: u32,
    /// From the name section.
    pub function_name: Option<String>,
    /// Offset in the module of the next instruction; in a caller, of the one behind the call.
    pub pc: u32,
    /// Parameters, then locals.
    pub locals: Vec<Value>,
    /// Operand stack, bottom first.
    pub stack: Vec<Value>,
}

/// All frames with their values, innermost first.
pub fn read(store: &mut StoreContextMut<'_, ()>, firmware: &Firmware) -> wasmtime::Result<Vec<DebugFrame>> {
    let mut frames = Vec::new();
    let mut next = store.debug_exit_frames().next();
    while let Some(frame) = next {
        frames.extend(read_frame(&frame, store, firmware)?);
        next = frame.parent(&mut *store)?;
    }
    Ok(frames)
}

fn read_frame(
    frame: &FrameHandle,
    store: &mut StoreContextMut<'_, ()>,
    firmware: &Firmware,
) -> wasmtime::Result<Option<DebugFrame>> {
    let Some((function_index, pc)) = place_of(frame, store) else {
        return Ok(None);
    };
    let mut locals = Vec::new();
    for index in 0..frame.num_locals(&mut *store)? {
        locals.push(value(frame.local(&mut *store, index)?));
    }
    let mut stack = Vec::new();
    for index in 0..frame.num_stacks(&mut *store)? {
        stack.push(value(frame.stack(&mut *store, index)?));
    }
    let function_name = firmware.function_name(function_index);
    Ok(Some(DebugFrame { function_index, function_name, pc, locals, stack }))
}

fn value(value: Val) -> Value {
    let (kind, value) = match value {
        Val::I32(number) => ("i32", Either::A(f64::from(number))),
        Val::I64(number) => ("i64", Either::B(BigInt::from(number))),
        Val::F32(bits) => ("f32", Either::A(f64::from(f32::from_bits(bits)))),
        Val::F64(bits) => ("f64", Either::A(f64::from_bits(bits))),
        Val::V128(vector) => ("v128", Either::B(BigInt::from(vector.as_u128()))),
        _ => ("ref", Either::A(0.0)),
    };
    Value { kind: kind.into(), value }
}

/// Function and offset of a frame; none of a trampoline.
pub fn place_of(frame: &FrameHandle, store: &mut StoreContextMut<'_, ()>) -> Option<(u32, u32)> {
    // Firmware imports no function, so indices of all functions and of the defined ones are the same.
    frame.wasm_function_index_and_pc(store).ok().flatten().map(|(function, pc)| (function.as_u32(), pc.raw()))
}

/// Functions and offsets of the frames, innermost first.
pub fn call_stack(store: &mut StoreContextMut<'_, ()>) -> Vec<(u32, u32)> {
    let mut frames = Vec::new();
    let mut next = store.debug_exit_frames().next();
    while let Some(frame) = next
        && frames.len() < MAX_FRAMES
    {
        frames.extend(place_of(&frame, store));
        next = frame.parent(&mut *store).ok().flatten();
    }
    frames
}

/// Writes the locals of a frame where JavaScript sees them.
pub fn publish_locals(panel: &Panel, frame: &FrameHandle, store: &mut StoreContextMut<'_, ()>) {
    let locals = frame.num_locals(&mut *store).unwrap_or(0);
    panel.set(Slot::Locals, f64::from(locals));
    for index in 0..locals.min(VALUES as u32) {
        if let Ok(value) = frame.local(&mut *store, index) {
            panel.set_value(index as usize, &value);
        }
    }
}
