//! The engines of the process, and the firmware compiled for each.
//!
//! Engines are shared by every CPU and every worker thread; a firmware image is compiled once per engine however many
//! boards run it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wasmtime::{Config, Engine, Module, OptLevel};

use crate::bus;
use crate::error::{Code, Result};
use crate::instructions::Instructions;
use crate::leash::Leashed;
use crate::memory::InicMemoryCreator;

/// Compiled images kept although no CPU uses them, so that a reboot or the next test does not compile again.
const CACHED_IMAGES: usize = 16;

/// The stack of the plain CPU. V8 leaves 192 KiB of a thread's stack to native code, in workers too: stay below.
const PLAIN_STACK_BYTES: usize = 128 << 10;
/// The stack of the debugged CPU, whose frames keep every local and operand in memory. It runs on a fiber of its own.
const DEBUG_STACK_BYTES: usize = 1 << 20;
const DEBUG_FIBER_BYTES: usize = 2 << 20;

/// Frames of a backtrace that are kept.
const MAX_FRAMES: usize = 64;

/// How the firmware is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Full speed, with fuel counted.
    Plain,
    /// Full speed, on the leash: nothing is counted, and who watches may stop it.
    Timed,
    /// With breakpoints, single step and inspectable frames.
    Debug,
}

/// A firmware image, compiled.
pub struct Firmware {
    /// The bytes it was compiled from: a frame's `pc` is an offset into them.
    pub bytes: Box<[u8]>,
    /// The machine code.
    pub module: Module,
    /// Where what runs differs from `bytes`: its leash, and the address that it is held at.
    leash: Option<(u32, Leashed)>,
    code_end: OnceLock<u32>,
    names: OnceLock<Vec<Option<String>>>,
    instructions: OnceLock<Instructions>,
}

impl Firmware {
    /// The instructions that a debugger has to know.
    pub fn instructions(&self) -> &Instructions {
        self.instructions.get_or_init(|| Instructions::of(&self.bytes))
    }

    fn held_at(&self) -> Option<u32> {
        self.leash.as_ref().map(|(address, _)| *address)
    }

    /// Name of a function from the image's name section.
    pub fn function_name(&self, index: u32) -> Option<String> {
        // Firmware imports no function, so the defined functions are all there are.
        let names = self.names.get_or_init(|| self.module.functions().map(|function| function.name).collect());
        names.get(index as usize).cloned().flatten()
    }

    /// Index of the function whose machine code covers an offset into the text section.
    pub fn function_at(&self, text_offset: usize) -> Option<u32> {
        self.module.functions().find(|f| (f.offset..f.offset + f.len).contains(&text_offset)).map(|f| f.index.as_u32())
    }

    /// Offset into the image of the instruction that the machine code at an offset of the text section was made from.
    pub fn pc_at(&self, text_offset: usize) -> Option<u32> {
        let pc = self.module.address_map()?.take_while(|(start, _)| *start <= text_offset).last()?.1;
        pc.map(|pc| self.original_pc(pc))
    }

    /// Offset into the image of what is at an offset into the module that was compiled.
    pub fn original_pc(&self, pc: u32) -> u32 {
        self.leash.as_ref().map_or(pc, |(_, leashed)| leashed.pc(pc))
    }

    /// Offset into the image of its last instruction.
    pub fn last_pc(&self) -> u32 {
        *self.code_end.get_or_init(|| {
            let map = self.module.address_map();
            map.and_then(|map| map.filter_map(|(_, pc)| pc).max()).map_or(0, |pc| self.original_pc(pc))
        })
    }
}

/// An engine and what was compiled for it lately, most recent first.
pub struct Shop {
    engine: Engine,
    images: Mutex<Vec<Arc<Firmware>>>,
}

impl Shop {
    /// The engine for a mode, made at the first call.
    pub fn of(mode: Mode) -> Result<&'static Shop> {
        static PLAIN: OnceLock<std::result::Result<Shop, String>> = OnceLock::new();
        static TIMED: OnceLock<std::result::Result<Shop, String>> = OnceLock::new();
        static DEBUG: OnceLock<std::result::Result<Shop, String>> = OnceLock::new();
        // The debugging engine does not install the signal handlers that the bus guard of all relies upon.
        let plain = PLAIN.get_or_init(|| Shop::open(Mode::Plain));
        let shop = match mode {
            Mode::Plain => plain,
            Mode::Timed => TIMED.get_or_init(|| Shop::open(Mode::Timed)),
            Mode::Debug => DEBUG.get_or_init(|| Shop::open(Mode::Debug)),
        };
        shop.as_ref().map_err(|message| Code::Internal.error(message))
    }

    fn open(mode: Mode) -> std::result::Result<Shop, String> {
        bus::learn_host_code();
        let engine = Engine::new(&config(mode)).map_err(|e| format!("Wasmtime does not start: {e:#}"))?;
        Ok(Shop { engine, images: Mutex::default() })
    }

    /// The shared engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles an image, with `leash` on a leash that is held at that address, or finds it compiled. Compares the bytes themselves,
    /// so there is no hash to collide.
    pub fn compile(&self, bytes: &[u8], leash: Option<u32>) -> Result<Arc<Firmware>> {
        // Held while compiling: boards that boot together with the same image wait for one compilation.
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = images.iter().position(|image| image.held_at() == leash && *image.bytes == *bytes) {
            let image = images.remove(at);
            images.insert(0, image.clone());
            return Ok(image);
        }
        let refuse = |cause| Code::Module.wasmtime("the firmware does not compile", &cause);
        let leash = match leash {
            Some(address) => {
                // What is no module is for the engine to tell: it names the reason.
                Module::validate(&self.engine, bytes).map_err(refuse)?;
                Some((address, Leashed::of(bytes, address).map_err(|cause| refuse(cause.into()))?))
            }
            None => None,
        };
        let compiled = leash.as_ref().map_or(bytes, |(_, leashed)| &leashed.module);
        let module = Module::from_binary(&self.engine, compiled).map_err(refuse)?;
        let image = Arc::new(Firmware {
            bytes: bytes.into(),
            module,
            leash,
            code_end: OnceLock::new(),
            names: OnceLock::new(),
            instructions: OnceLock::new(),
        });
        images.insert(0, image.clone());
        images.truncate(CACHED_IMAGES);
        Ok(image)
    }
}

fn config(mode: Mode) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(mode != Mode::Timed)
        .cranelift_opt_level(OptLevel::Speed)
        // Two machines must compute the same bits.
        .cranelift_nan_canonicalization(true)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(MAX_FRAMES))
        .with_host_memory(Arc::new(InicMemoryCreator));
    match mode {
        Mode::Plain | Mode::Timed => config.max_wasm_stack(PLAIN_STACK_BYTES),
        Mode::Debug => config.guest_debug(true).max_wasm_stack(DEBUG_STACK_BYTES).async_stack_size(DEBUG_FIBER_BYTES),
    };
    config
}
