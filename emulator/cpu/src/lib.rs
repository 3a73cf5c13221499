//! The CPU of the emulated SmartNIC as a Node-API addon, and a TAP device for its links.
//!
//! | module | is |
//! |---|---|
//! | engine | the Wasmtime engines of the process, and compiled firmware |
//! | leash, watchdog | how firmware is stopped that counts no fuel |
//! | memory | INIC memory, mapped once for the firmware and once for JavaScript |
//! | bus | what happens when the firmware touches a page where nothing is |
//! | machine | a Store with the firmware in it |
//! | plain, debug | the two CPUs that addon.ts declares |
//! | fiber, frames | the call that the debugged one is stopped in, and the functions it is in |
//! | desk, watch | what it does at an instruction, and what it watches |
//! | panel | the numbers it shares with JavaScript |
//! | instructions | which instructions of a firmware touch memory |
//! | dwarf | DWARF sections for LLDB |
//! | fault | why a firmware stopped |
//! | raw, exports | the Node-API side |
//! | tap | a Linux TAP interface |
//!
//! Nothing here panics on purpose, and no panic crosses into JavaScript.

// A test build, which only linters make, registers no exports, and so seems to use nothing.
#![cfg_attr(test, allow(dead_code))]

mod bus;
mod debug;
mod desk;
mod dwarf;
mod engine;
mod error;
mod exports;
mod fault;
mod fiber;
mod frames;
mod instructions;
mod leash;
mod machine;
mod memory;
mod panel;
mod plain;
mod raw;
#[cfg(target_os = "linux")]
mod tap;
mod watch;
mod watchdog;
