//! What the plain and the debugged CPU have in common: a Store with INIC memory and the firmware's instance in it.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::{Extern, Instance, Store, TypedFunc, WasmParams, WasmResults};

use crate::bus::BusGuard;
use crate::engine::{Firmware, Mode, Shop};
use crate::error::{Code, Result};
use crate::fault::Fault;
use crate::memory::{self, HostView, Page, WASM_PAGE_BYTES};
use crate::watchdog::{Beat, TimeLimit};

/// What a CPU is made from.
pub struct Plan<'a> {
    /// The firmware module.
    pub module: &'a [u8],
    /// INIC memory in units of 64 KiB.
    pub pages: u32,
    /// Addresses that the firmware must not touch, multiples of 4096.
    pub guard: Box<[Range<usize>]>,
    /// Watchdog allowance of a slice, in units of fuel.
    pub fuel_per_slice: u64,
    /// Allowance of a slice of a machine that counts no fuel ([`Mode::Timed`]).
    pub limit: Option<TimeLimit>,
    /// Addresses whose contents are compared before and after a slice.
    pub watch: Range<usize>,
    /// The memory of another CPU, to run on instead of one of its own.
    pub over: Option<Arc<HostView>>,
}

impl<'a> Plan<'a> {
    /// Another CPU with `module` over the memory of `machine`, with its guard and watched range, that counts fuel.
    pub fn over(machine: &Machine, module: &'a [u8]) -> Self {
        Self {
            module,
            pages: (machine.view.bytes() as u64 / WASM_PAGE_BYTES) as u32,
            guard: machine.guard.ranges().into(),
            fuel_per_slice: machine.fuel_per_slice,
            limit: None,
            watch: machine.watch.range(),
            over: Some(machine.view.clone()),
        }
    }
}

/// How the firmware in one INIC memory fares, whichever CPU runs it. All on the JavaScript thread.
#[derive(Default)]
pub struct Health {
    /// The firmware must not run: a fault is set, or a call is under way. Asked before every slice.
    pub stopped: Cell<bool>,
    /// A call is stopped in its midst under the debugger.
    pub mid_call: Cell<bool>,
    /// Why it is stopped for good.
    pub fault: RefCell<Option<Fault>>,
}

impl Health {
    /// The firmware is stopped until a reset.
    pub fn stop(&self, fault: Fault) {
        self.stopped.set(true);
        self.fault.replace(Some(fault));
    }

    /// The firmware may run.
    pub fn clear(&self) {
        self.fault.take();
        self.stopped.set(false);
    }

    /// Why the firmware is stopped; not while a call is under way.
    pub fn reason(&self) -> Option<Fault> {
        if !self.stopped.get() || self.mid_call.get() {
            return None;
        }
        let fault = self.fault.borrow().clone();
        Some(fault.unwrap_or_else(|| Fault::internal("the engine panicked; its message is on stderr")))
    }
}

/// Addresses whose contents are compared before and after a slice.
pub struct Watch {
    range: Range<usize>,
    before: Vec<u8>,
}

impl Watch {
    fn new(range: Range<usize>) -> Self {
        Self { before: vec![0; range.len()], range }
    }

    /// The addresses.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Keeps what is there now.
    pub fn keep(&mut self, view: &HostView) {
        // SAFETY: the firmware does not run; `Machine::boot` has seen that the range lies in the memory.
        let now = unsafe { std::slice::from_raw_parts(view.start().add(self.range.start), self.range.len()) };
        self.before.copy_from_slice(now);
    }

    /// Something else is there now.
    pub fn changed(&self, view: &HostView) -> bool {
        // SAFETY: as above.
        let now = unsafe { std::slice::from_raw_parts(view.start().add(self.range.start), self.range.len()) };
        self.before != now
    }
}

/// Has the slices of a machine watched for as long as it is there.
pub struct Watched(Arc<Beat>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.retire();
    }
}

/// A firmware, instantiated and not yet reset.
pub struct Machine {
    /// What stops it, where that is not its fuel. Goes before the memory does.
    pub watched: Option<Watched>,
    /// The engine's state for this CPU, INIC memory included.
    pub store: Store<()>,
    /// The firmware's entry points.
    pub reset: TypedFunc<(), ()>,
    /// See [`Machine::reset`].
    pub poll: TypedFunc<u32, u32>,
    /// The compiled image.
    pub firmware: Arc<Firmware>,
    /// Watches the memory.
    pub guard: Arc<BusGuard>,
    /// INIC memory for JavaScript.
    pub view: Arc<HostView>,
    /// Watchdog allowance of a slice.
    pub fuel_per_slice: u64,
    /// See [`Plan::watch`].
    pub watch: Watch,
}

impl Machine {
    /// Compiles, links and instantiates.
    pub fn boot(mode: Mode, plan: Plan<'_>) -> Result<Self> {
        check_ranges(&plan)?;
        let shop = Shop::of(mode)?;
        let firmware = shop.compile(plan.module, plan.limit.map(|limit| limit.leash))?;
        let mut store = Store::new(shop.engine(), ());
        let source = shop.compile(&memory::memory_module(plan.pages), None)?;
        let (memory, view) = memory::create(&mut store, |store| instantiate(mode, store, &source, &[]))?;
        let text = match mode {
            Mode::Plain | Mode::Timed => firmware.module.text().as_ptr_range(),
            Mode::Debug => std::ptr::null()..std::ptr::null(),
        };
        let base = memory.data_ptr(&store).expose_provenance();
        let leash = plan.limit.map(|limit| Page::of(base, limit.leash as usize));
        let guard = Arc::new(BusGuard::new(base, plan.guard, leash, text.start.addr()..text.end.addr()));
        watch(&mut store, &guard);

        // A start function has the allowance of a slice.
        let watched = plan.limit.zip(leash).map(|(limit, page)| Watched(Beat::watched(limit, page)));
        let beat = watched.as_ref().map(|watched| &*watched.0);
        begin(&mut store, beat, plan.fuel_per_slice);
        check_imports(&firmware)?;
        let instance = instantiate(mode, &mut store, &firmware, &[memory.into()])
            .map_err(|cause| Code::Module.wasmtime("the firmware does not start", &cause));
        end(&store, beat, plan.fuel_per_slice);
        let instance = instance?;
        let reset = export(&instance, &mut store, "reset")?;
        let poll = export(&instance, &mut store, "poll")?;
        // Instantiation has written the data segments, and a start function what it likes: all that went to pages of its
        // own, and from here on the machine works on those of the other CPU, where a firmware may be running.
        let view = match plan.over {
            Some(shared) if shared.bytes() == view.bytes() => {
                // SAFETY: the view is that of this Store's memory, of the same size, and no firmware runs on it.
                unsafe { shared.map_at(base) }
                    .map_err(|cause| Code::Memory.error(format!("memory cannot be shared: {cause}")))?;
                shared
            }
            Some(_) => return Err(Code::Memory.error("memory of another size cannot be shared")),
            None => view,
        };
        let (fuel_per_slice, watch) = (plan.fuel_per_slice, Watch::new(plan.watch));
        let machine = Self { watched, store, reset, poll, firmware, guard, view, fuel_per_slice, watch };
        machine.arm()?;
        Ok(machine)
    }

    /// Gives a call into the firmware its allowance.
    #[inline]
    pub fn begin(&mut self) {
        begin(&mut self.store, self.watched.as_ref().map(|watched| &*watched.0), self.fuel_per_slice);
    }

    /// The call has come back; returns the fuel that it has spent, 0 where nobody counts.
    #[inline]
    pub fn end(&self) -> u64 {
        end(&self.store, self.watched.as_ref().map(|watched| &*watched.0), self.fuel_per_slice)
    }

    /// The limit that the call which has just trapped had come to.
    pub fn overdue(&self) -> Option<TimeLimit> {
        let Watched(beat) = self.watched.as_ref()?;
        beat.was_bitten().then_some(beat.limit)
    }

    /// What it is held to instead of fuel.
    pub fn limit(&self) -> Option<TimeLimit> {
        self.watched.as_ref().map(|Watched(beat)| beat.limit)
    }

    /// See [`BusGuard::is_stale`] and [`Beat::is_bitten`].
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.guard.is_stale() || self.watched.as_ref().is_some_and(|Watched(beat)| beat.is_bitten())
    }

    /// Forgets the last bus fault, or bite, and guards the pages again.
    pub fn arm(&self) -> Result<()> {
        if let Some(Watched(beat)) = &self.watched {
            beat.forgive().map_err(|cause| Code::Memory.error(format!("the page of the leash stays away: {cause}")))?;
        }
        // SAFETY: the Store holds the memory, and the firmware does not run while `self` can be borrowed.
        unsafe { self.guard.arm() }
    }
}

#[inline]
fn begin(store: &mut Store<()>, beat: Option<&Beat>, fuel: u64) {
    match beat {
        Some(beat) => beat.begin(),
        None => {
            // Only an engine without fuel refuses; without allowance the call would end as a fault.
            let _ = store.set_fuel(fuel);
        }
    }
}

#[inline]
fn end(store: &Store<()>, beat: Option<&Beat>, allowance: u64) -> u64 {
    match beat {
        Some(beat) => {
            beat.end();
            0
        }
        None => fuel_spent(store, allowance),
    }
}

/// Fuel for `store` and what is left of it cannot fail on an engine that counts fuel; 0 stands for "cannot happen".
pub fn fuel_spent(store: &Store<()>, allowance: u64) -> u64 {
    allowance.saturating_sub(store.get_fuel().unwrap_or(allowance))
}

/// Polls a future that has nothing to wait for.
fn run_to_end<T>(future: impl Future<Output = T>) -> wasmtime::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(wasmtime::Error::msg("the engine waits for something that does not come")),
    }
}

fn check_ranges(plan: &Plan<'_>) -> Result<()> {
    let bytes = u64::from(plan.pages) * WASM_PAGE_BYTES;
    if plan.watch.start > plan.watch.end || plan.watch.end as u64 > bytes {
        return Err(Code::Memory.error("the watched range is not in memory"));
    }
    if plan.limit.is_some_and(|limit| u64::from(limit.leash) >= bytes) {
        return Err(Code::Memory.error("the leash is not in memory"));
    }
    for addresses in &plan.guard {
        let aligned = addresses.start % 4096 == 0 && addresses.end % 4096 == 0;
        if !aligned || addresses.start >= addresses.end || addresses.end as u64 > bytes {
            return Err(Code::Memory.error(format!(
                "guarded range {:#x}-{:#x}: start and end are multiples of 4096 within INIC memory ({bytes:#x} bytes)",
                addresses.start, addresses.end
            )));
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn watch(store: &mut Store<()>, guard: &Arc<BusGuard>) {
    use wasmtime::unix::StoreExt;
    let guard = guard.clone();
    // SAFETY: the handler reads and writes atomics and makes one system call.
    unsafe { store.set_signal_handler(move |signal, info, context| guard.on_signal(signal, info, context)) };
}

#[cfg(not(target_os = "linux"))]
fn watch(_: &mut Store<()>, _: &Arc<BusGuard>) {}

fn check_imports(firmware: &Firmware) -> Result<()> {
    let imports = firmware.module.imports().map(|import| format!("{}.{}", import.module(), import.name()));
    let imports: Vec<String> = imports.collect();
    if imports != ["env.memory"] {
        return Err(Code::Module.error(format!("the firmware imports [{}], not env.memory alone", imports.join(", "))));
    }
    Ok(())
}

fn instantiate(
    mode: Mode,
    store: &mut Store<()>,
    firmware: &Firmware,
    imports: &[Extern],
) -> wasmtime::Result<Instance> {
    match mode {
        Mode::Plain | Mode::Timed => Instance::new(store, &firmware.module, imports),
        Mode::Debug => run_to_end(Instance::new_async(store, &firmware.module, imports))?,
    }
}

fn export<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<()>,
    name: &str,
) -> Result<TypedFunc<P, R>> {
    instance
        .get_typed_func(store, name)
        .map_err(|cause| Code::Module.wasmtime(&format!("the firmware's export {name}"), &cause))
}
