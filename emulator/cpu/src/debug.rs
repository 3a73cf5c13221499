//! The CPU under a debugger.
//!
//! ```text
//!            reset, poll                       stop
//!   idle ─────────────────▶ running ─────────────────────▶ stopped
//!    ▲                        │  ▲         resume             │
//!    └────── done, fault ─────┘  └────────────────────────────┘
//! ```
//!
//! A call into the firmware is a future on a fiber of its own, polled by hand. At a stop the engine awaits our handler,
//! whose future stays pending: the poll returns, the fiber hangs in mid-call. The Store is borrowed all that time, so a
//! request that needs it, such as for the frames, is handed to the handler as a closure, and one more poll runs it. All
//! of this is on one thread, and no JavaScript runs within.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, BigInt, Either, Uint8Array};
use napi_derive::napi;
use wasmtime::{
    AsContext, AsContextMut, DebugEvent, DebugHandler, FrameHandle, ModulePC, Store, StoreContextMut, Trap, TypedFunc,
    Val,
};

use crate::bus::BusGuard;
use crate::engine::{Firmware, Mode};
use crate::error::{Code, Result};
use crate::exports::{self, GuardRange};
use crate::fault::{Fault, describe};
use crate::machine::{Machine, Plan};
use crate::memory::HostView;

type Work = Box<dyn for<'a> FnOnce(StoreContextMut<'a, ()>) + Send>;

enum Order {
    Resume,
    Work(Work),
}

/// Why the engine asked the handler.
#[derive(Clone, Copy)]
enum Stop {
    Instruction,
    Trap(Trap),
    Error,
}

/// Where the handler, inside, and the CPU, outside, leave each other notes.
#[derive(Default)]
struct Notes {
    stop: Option<Stop>,
    order: Option<Order>,
}

#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Notes>>);

impl Desk {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DebugHandler for Desk {
    type Data = ();

    fn handle(&self, mut store: StoreContextMut<'_, ()>, event: DebugEvent<'_>) -> impl Future<Output = ()> + Send {
        let stop = match event {
            DebugEvent::Breakpoint | DebugEvent::EpochYield => Stop::Instruction,
            DebugEvent::Trap(trap) => Stop::Trap(trap),
            DebugEvent::HostcallError(error) => error.downcast_ref().map_or(Stop::Error, |trap| Stop::Trap(*trap)),
            DebugEvent::Exception(_) => Stop::Error,
        };
        let desk = self.clone();
        async move {
            desk.notes().stop = Some(stop);
            loop {
                let next = std::future::poll_fn(|_| match desk.notes().order.take() {
                    Some(order) => Poll::Ready(order),
                    None => Poll::Pending,
                });
                match next.await {
                    Order::Resume => break,
                    Order::Work(work) => work(store.as_context_mut()),
                }
            }
        }
    }
}

/// A Store that a future may hold while we hold it too, never both at work.
struct Shared {
    store: *mut Store<()>,
    /// The call under way. Borrows the Store: goes first.
    call: Option<Pin<Box<dyn Future<Output = wasmtime::Result<f64>>>>>,
    desk: Desk,
}

impl Shared {
    fn new(mut store: Store<()>) -> Self {
        let desk = Desk::default();
        store.set_debug_handler(desk.clone());
        Self { store: Box::into_raw(Box::new(store)), call: None, desk }
    }

    /// Begins a call; [`Shared::advance`] runs it.
    fn begin<F>(&mut self, call: impl FnOnce(&'static mut Store<()>) -> F)
    where
        F: Future<Output = wasmtime::Result<f64>> + 'static,
    {
        debug_assert!(self.call.is_none());
        // SAFETY: the Store lives until `self` is dropped, which drops the future first; while the future exists the
        // Store is reached through it only.
        self.call = Some(Box::pin(call(unsafe { &mut *self.store })));
    }

    /// Runs the call until it ends or stops. `None`: it has stopped.
    fn advance(&mut self) -> Option<wasmtime::Result<f64>> {
        let polled = self.call.as_mut()?.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Pending => None,
            Poll::Ready(result) => {
                self.call = None;
                Some(result)
            }
        }
    }

    /// Does something with the Store, in mid-call too.
    fn with_store<R: Send + 'static>(
        &mut self,
        work: impl for<'a> FnOnce(StoreContextMut<'a, ()>) -> R + Send + 'static,
    ) -> Result<R> {
        if self.call.is_none() {
            // SAFETY: without a call nobody else has the Store.
            return Ok(work(unsafe { &mut *self.store }.as_context_mut()));
        }
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        let work: Work = Box::new(move |store| {
            let result = work(store);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        self.desk.notes().order = Some(Order::Work(work));
        self.advance();
        let result = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| Code::Internal.error("the stopped call does not answer"))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Unwinds the fiber of a call under way.
        self.call = None;
        // SAFETY: made in `new`, and the only borrower is gone.
        drop(unsafe { Box::from_raw(self.store) });
    }
}

/// How a run ended; `DebugOutcome` of index.ts.
#[napi(object)]
pub struct Outcome {
    /// `stopped`, `done` or `fault`.
    pub state: String,
    /// Why it stopped: `breakpoint`, `step` or `trap`.
    pub reason: Option<String>,
    /// The kind of trap it stopped at, before it is raised.
    pub trap: Option<String>,
    /// What `poll` returned; 0 for `reset`.
    pub result: Option<f64>,
    /// Why the firmware is stopped for good.
    pub fault: Option<Fault>,
}

impl Outcome {
    fn of(state: &str) -> Self {
        Self { state: state.into(), reason: None, trap: None, result: None, fault: None }
    }
}

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

/// What is left of a [`Machine`] besides its Store.
struct Core {
    shared: Shared,
    reset: TypedFunc<(), ()>,
    poll: TypedFunc<u32, u32>,
    firmware: Arc<Firmware>,
    guard: Arc<BusGuard>,
    view: Arc<HostView>,
    fuel_per_slice: u64,
    /// Where a stop was asked for, and where the engine makes it.
    breakpoints: BTreeMap<u32, u32>,
    fault: Option<Fault>,
    cycles: u64,
}

impl Core {
    fn start_reset(&mut self) -> Result<Outcome> {
        self.check_idle()?;
        // SAFETY: the Store holds the memory, and no call is under way.
        unsafe { self.guard.arm() }.map_err(|cause| Code::Memory.error(format!("pages cannot be guarded: {cause}")))?;
        self.fault = None;
        let function = self.reset.clone();
        self.start(move |store| async move { function.call_async(store, ()).await.map(|()| 0.0) })
    }

    fn start_poll(&mut self, irqs: u32) -> Result<Outcome> {
        self.check_idle()?;
        if let Some(fault) = &self.fault {
            return Ok(Outcome { fault: Some(fault.clone()), ..Outcome::of("fault") });
        }
        let function = self.poll.clone();
        self.start(move |store| async move { function.call_async(store, irqs).await.map(f64::from) })
    }

    fn start<F>(&mut self, call: impl FnOnce(&'static mut Store<()>) -> F) -> Result<Outcome>
    where
        F: Future<Output = wasmtime::Result<f64>> + 'static,
    {
        let fuel = self.fuel_per_slice;
        self.shared
            .with_store(move |mut store| store.set_fuel(fuel))?
            .map_err(|cause| Code::Internal.wasmtime("no fuel", &cause))?;
        self.shared.begin(call);
        self.run()
    }

    fn resume(&mut self) -> Result<Outcome> {
        if self.shared.call.is_none() {
            return Err(Code::State.error("the firmware is not stopped in a call: use reset or poll"));
        }
        self.shared.desk.notes().order = Some(Order::Resume);
        self.run()
    }

    fn run(&mut self) -> Result<Outcome> {
        let Some(result) = self.shared.advance() else {
            return self.describe_stop();
        };
        let allowance = self.fuel_per_slice;
        let left = self.shared.with_store(|store| store.get_fuel())?;
        self.cycles = allowance.saturating_sub(left.unwrap_or(allowance));
        let fault = match &result {
            Ok(_) if self.guard.tripped_in_host() => Fault::in_host(&self.guard, &self.firmware),
            Ok(value) => return Ok(Outcome { result: Some(*value), ..Outcome::of("done") }),
            Err(error) => Fault::of(error, &self.guard, &self.firmware),
        };
        self.fault = Some(fault.clone());
        Ok(Outcome { fault: Some(fault), ..Outcome::of("fault") })
    }

    fn describe_stop(&mut self) -> Result<Outcome> {
        let stop = self.shared.desk.notes().stop.take();
        let mut outcome = Outcome::of("stopped");
        match stop {
            None => return Err(Code::Internal.error("the engine waits without having stopped")),
            Some(Stop::Trap(trap)) => {
                outcome.reason = Some("trap".into());
                outcome.trap = Some(describe(trap).0.into());
            }
            Some(Stop::Error) => {
                outcome.reason = Some("trap".into());
                outcome.trap = Some("internal".into());
            }
            Some(Stop::Instruction) => {
                let pc = self.shared.with_store(|mut store| {
                    let frame = store.debug_exit_frames().next()?;
                    frame.wasm_function_index_and_pc(&mut store).ok()?.map(|(_, pc)| pc.raw())
                })?;
                let asked = pc.is_some_and(|pc| self.breakpoints.values().any(|actual| *actual == pc));
                outcome.reason = Some(if asked { "breakpoint" } else { "step" }.into());
            }
        }
        Ok(outcome)
    }

    fn add_breakpoint(&mut self, pc: u32) -> Result<u32> {
        if let Some(actual) = self.breakpoints.get(&pc) {
            return Ok(*actual);
        }
        if pc > self.firmware.last_pc() {
            let message = format!("no instruction at or behind offset {pc:#x} of the firmware");
            return Err(Code::Breakpoint.error(message));
        }
        let firmware = self.firmware.clone();
        let actual = self.shared.with_store(move |mut store| {
            if let Some(mut edit) = store.as_context_mut().edit_breakpoints() {
                edit.add_breakpoint(&firmware.module, ModulePC::new(pc))?;
            }
            // The engine slips forward to an instruction, and then lists that.
            let set = store.as_context().breakpoints().into_iter().flatten();
            Ok(set.map(|breakpoint| breakpoint.pc.raw()).filter(|actual| *actual >= pc).min().unwrap_or(pc))
        })?;
        let actual = actual.map_err(|cause: wasmtime::Error| Code::Breakpoint.wasmtime("no breakpoint", &cause))?;
        self.breakpoints.insert(pc, actual);
        Ok(actual)
    }

    fn remove_breakpoint(&mut self, pc: u32) -> Result<bool> {
        if self.breakpoints.remove(&pc).is_none() {
            return Ok(false);
        }
        let firmware = self.firmware.clone();
        self.edit(move |edit| edit.remove_breakpoint(&firmware.module, ModulePC::new(pc)))?;
        Ok(true)
    }

    fn edit(
        &mut self,
        change: impl FnOnce(&mut wasmtime::BreakpointEdit<'_>) -> wasmtime::Result<()> + Send + 'static,
    ) -> Result<()> {
        let done = self.shared.with_store(move |store| match store.edit_breakpoints() {
            Some(mut edit) => change(&mut edit),
            None => Ok(()),
        })?;
        done.map_err(|cause| Code::Internal.wasmtime("breakpoints cannot be changed", &cause))
    }

    fn frames(&mut self) -> Result<Vec<DebugFrame>> {
        if self.shared.call.is_none() {
            return Ok(Vec::new());
        }
        let firmware = self.firmware.clone();
        self.shared
            .with_store(move |mut store| {
                let mut frames = Vec::new();
                let mut next = store.debug_exit_frames().next();
                while let Some(frame) = next {
                    frames.extend(read_frame(&frame, &mut store, &firmware)?);
                    next = frame.parent(&mut store)?;
                }
                Ok(frames)
            })?
            .map_err(|cause: wasmtime::Error| Code::Internal.wasmtime("the frames cannot be read", &cause))
    }

    fn check_idle(&self) -> Result<()> {
        match self.shared.call {
            None => Ok(()),
            Some(_) => Err(Code::State.error("the firmware is stopped in a call: resume it first")),
        }
    }
}

fn read_frame(
    frame: &FrameHandle,
    store: &mut StoreContextMut<'_, ()>,
    firmware: &Firmware,
) -> wasmtime::Result<Option<DebugFrame>> {
    let Some((function, pc)) = frame.wasm_function_index_and_pc(&mut *store)? else {
        return Ok(None); // A trampoline.
    };
    // Firmware imports no function, so indices of all functions and of the defined ones are the same.
    let function_index = function.as_u32();
    let mut locals = Vec::new();
    for index in 0..frame.num_locals(&mut *store)? {
        locals.push(value(frame.local(&mut *store, index)?));
    }
    let mut stack = Vec::new();
    for index in 0..frame.num_stacks(&mut *store)? {
        stack.push(value(frame.stack(&mut *store, index)?));
    }
    let function_name = firmware.function_name(function_index);
    Ok(Some(DebugFrame { function_index, function_name, pc: pc.raw(), locals, stack }))
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

/// The CPU under a debugger, as the addon exports it. `WasmtimeDebugCpu` of debug.ts wraps it.
#[napi]
pub struct DebugCpu {
    core: Option<Core>,
}

#[napi]
impl DebugCpu {
    /// As [`crate::plain::PlainCpu::new`].
    #[napi(constructor, catch_unwind)]
    pub fn new(module: Uint8Array, pages: u32, fuel_per_slice: f64, guard: Vec<GuardRange>) -> Result<Self> {
        let plan =
            Plan { module: &module, pages, guard: exports::ranges(guard), fuel_per_slice: fuel_per_slice as u64 };
        let machine = Machine::boot(Mode::Debug, plan)?;
        let Machine { store, reset, poll, firmware, guard, view, fuel_per_slice } = machine;
        let shared = Shared::new(store);
        let breakpoints = BTreeMap::new();
        let core =
            Core { shared, reset, poll, firmware, guard, view, fuel_per_slice, breakpoints, fault: None, cycles: 0 };
        Ok(Self { core: Some(core) })
    }

    fn core(&mut self) -> Result<&mut Core> {
        self.core.as_mut().ok_or_else(|| Code::Disposed.error("the CPU was disposed of"))
    }

    /// INIC memory; the buffer keeps it alive. To be called once.
    #[napi(catch_unwind)]
    pub fn memory<'env>(&mut self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        exports::memory(env, &self.core()?.view)
    }

    /// Calls the firmware's `reset`. Clears a fault. Throws ERR_CPU_STATE in mid-call.
    #[napi(catch_unwind)]
    pub fn reset(&mut self) -> Result<Outcome> {
        self.core()?.start_reset()
    }

    /// Calls the firmware's `poll`. Throws ERR_CPU_STATE in mid-call.
    #[napi(catch_unwind)]
    pub fn poll(&mut self, irqs: u32) -> Result<Outcome> {
        self.core()?.start_poll(irqs)
    }

    /// Goes on from a stop. Throws ERR_CPU_STATE if there is none.
    #[napi(catch_unwind)]
    pub fn resume(&mut self) -> Result<Outcome> {
        self.core()?.resume()
    }

    /// Stops before the instruction at `pc`, or the next one behind it; returns its offset. Throws ERR_CPU_BREAKPOINT.
    #[napi(catch_unwind)]
    pub fn add_breakpoint(&mut self, pc: u32) -> Result<u32> {
        self.core()?.add_breakpoint(pc)
    }

    /// Takes back what [`DebugCpu::add_breakpoint`] was given. False if there was none.
    #[napi(catch_unwind)]
    pub fn remove_breakpoint(&mut self, pc: u32) -> Result<bool> {
        self.core()?.remove_breakpoint(pc)
    }

    /// Stops before every instruction, or no longer.
    #[napi(catch_unwind)]
    pub fn single_step(&mut self, on: bool) -> Result<()> {
        self.core()?.edit(move |edit| edit.single_step(on))
    }

    /// The stopped call stack, innermost first; empty between calls.
    #[napi(catch_unwind)]
    pub fn frames(&mut self) -> Result<Vec<DebugFrame>> {
        self.core()?.frames()
    }

    /// Fuel spent by the last call that ended.
    #[napi(catch_unwind)]
    pub fn cycles(&mut self) -> Result<f64> {
        Ok(self.core()?.cycles as f64)
    }

    /// Ends a call under way and frees the engine's state. `memory` is detached first.
    #[napi(catch_unwind)]
    pub fn dispose(&mut self, memory: ArrayBuffer<'_>) -> Result<()> {
        exports::detach(memory)?;
        self.core = None;
        Ok(())
    }
}
