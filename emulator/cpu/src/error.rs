//! Errors as JavaScript sees them: an `Error` with a stable `code` and a sentence for a person.

/// Thrown into JavaScript; `status` becomes `error.code`.
pub type Error = napi::Error<String>;
/// The result of everything that JavaScript calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as `error.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The module does not compile, link or instantiate as a firmware.
    Module,
    /// INIC memory of that size, or guarded like that, cannot be had.
    Memory,
    /// The CPU was disposed of.
    Disposed,
    /// The firmware is stopped, or in mid-call.
    State,
    /// No instruction is there to stop at.
    Breakpoint,
    /// An argument out of range.
    Option,
    /// A description that no DWARF can be made of.
    Dwarf,
    /// A fault of the engine itself.
    Internal,
}

impl Code {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Module => "ERR_CPU_MODULE",
            Self::Memory => "ERR_CPU_MEMORY",
            Self::Disposed => "ERR_CPU_DISPOSED",
            Self::State => "ERR_CPU_STATE",
            Self::Breakpoint => "ERR_CPU_BREAKPOINT",
            Self::Option => "ERR_CPU_OPTION",
            Self::Dwarf => "ERR_CPU_DWARF",
            Self::Internal => "ERR_CPU_INTERNAL",
        }
    }

    /// An error of this code with a message.
    pub fn error(self, message: impl AsRef<str>) -> Error {
        Error::new(self.as_str().to_owned(), message.as_ref())
    }

    /// An error of this code from Wasmtime's chain of causes, on one line.
    pub fn wasmtime(self, context: &str, cause: &wasmtime::Error) -> Error {
        self.error(format!("{context}: {cause:#}"))
    }

    /// An error of this code from a failed Node-API call.
    pub fn napi(self, context: &str, cause: &napi::Error) -> Error {
        self.error(format!("{context}: {}", cause.reason))
    }
}
