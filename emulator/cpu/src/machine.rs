//! What the plain and the debugged CPU have in common: a Store with INIC memory and the firmware's instance in it.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::{Extern, Instance, Store, TypedFunc, WasmParams, WasmResults};

use crate::bus::BusGuard;
use crate::engine::{Firmware, Mode, Shop};
use crate::error::{Code, Result};
use crate::memory::{self, GuardedRange, HostView, WASM_PAGE_BYTES};

/// What a CPU is made from.
pub struct Plan<'a> {
    /// The firmware module.
    pub module: &'a [u8],
    /// INIC memory in units of 64 KiB.
    pub pages: u32,
    /// Ranges that the firmware must not touch.
    pub guard: Box<[GuardedRange]>,
    /// Watchdog allowance of a slice, in units of fuel.
    pub fuel_per_slice: u64,
}

/// A firmware, instantiated and not yet reset.
pub struct Machine {
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
}

impl Machine {
    /// Compiles, links and instantiates.
    pub fn boot(mode: Mode, plan: Plan<'_>) -> Result<Self> {
        check_ranges(&plan)?;
        let shop = Shop::of(mode)?;
        let firmware = shop.compile(plan.module)?;
        let mut store = Store::new(shop.engine(), ());
        let source = shop.compile(&memory::memory_module(plan.pages))?;
        let (memory, view) = memory::create(&mut store, |store| instantiate(mode, store, &source, &[]))?;
        let text = match mode {
            Mode::Plain => firmware.module.text().as_ptr_range(),
            Mode::Debug => std::ptr::null()..std::ptr::null(),
        };
        let base = memory.data_ptr(&store).expose_provenance();
        let guard = Arc::new(BusGuard::new(base, plan.guard, text.start.addr()..text.end.addr()));
        watch(&mut store, &guard);

        // A start function has the allowance of a slice.
        store.set_fuel(plan.fuel_per_slice).map_err(|cause| Code::Internal.wasmtime("no fuel", &cause))?;
        check_imports(&firmware)?;
        let instance = instantiate(mode, &mut store, &firmware, &[memory.into()])
            .map_err(|cause| Code::Module.wasmtime("the firmware does not start", &cause))?;
        let reset = export(&instance, &mut store, "reset")?;
        let poll = export(&instance, &mut store, "poll")?;
        let machine = Self { store, reset, poll, firmware, guard, view, fuel_per_slice: plan.fuel_per_slice };
        machine.arm()?;
        Ok(machine)
    }

    /// Forgets the last bus fault and guards the pages again.
    pub fn arm(&self) -> Result<()> {
        // SAFETY: the Store holds the memory, and the firmware does not run while `self` can be borrowed.
        unsafe { self.guard.arm() }.map_err(|cause| Code::Memory.error(format!("pages cannot be guarded: {cause}")))
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
    for GuardedRange { addresses, .. } in &plan.guard {
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
        Mode::Plain => Instance::new(store, &firmware.module, imports),
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
