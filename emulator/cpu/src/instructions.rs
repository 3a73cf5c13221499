//! What a debugger has to know of the firmware's instructions: which of them touch memory, and which call.

use wasmparser::{MemArg, Operator, Parser, Payload};

/// How an instruction touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Reads `bytes` at an operand plus `offset`.
    Load(Place),
    /// Writes there.
    Store(Place),
    /// `memory.copy`: operands target, source, bytes.
    Copy,
    /// `memory.fill` and `memory.init`, whose operands are target, something else, bytes.
    Fill,
}

/// Where a load or store finds its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Immediate that is added to the address.
    pub offset: u64,
    /// Width of the access.
    pub bytes: u64,
    /// Operands above the address.
    pub above: u32,
}

/// An instruction that touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its offset in the module.
    pub pc: u32,
    /// That of the instruction behind it.
    pub next: u32,
    /// What it does.
    pub form: Form,
}

/// The instructions of a module.
#[derive(Default)]
pub struct Instructions {
    /// In the order of their offsets.
    pub accesses: Vec<Access>,
    /// Offsets behind calls, and of the calls, in order.
    calls: Vec<(u32, u32)>,
}

impl Instructions {
    /// Decodes a module that the engine has compiled. Of one it would refuse: as far as it can be read.
    pub fn of(module: &[u8]) -> Self {
        let mut found = Self::default();
        // Nothing is wrong with a module that the engine has taken.
        let _ = found.read(module);
        found
    }

    fn read(&mut self, module: &[u8]) -> wasmparser::Result<()> {
        for payload in Parser::new(0).parse_all(module) {
            let Payload::CodeSectionEntry(body) = payload? else { continue };
            let mut operators = body.get_operators_reader()?;
            while !operators.eof() {
                let (operator, pc) = operators.read_with_offset()?;
                // Modules are smaller than 4 GiB.
                let (pc, next) = (pc as u32, operators.original_position() as u32);
                if matches!(operator, Operator::Call { .. } | Operator::CallIndirect { .. }) {
                    self.calls.push((next, pc));
                }
                if let Some(form) = form_of(&operator) {
                    self.accesses.push(Access { pc, next, form });
                }
            }
        }
        Ok(())
    }

    /// The access at an offset of the module.
    pub fn access_at(&self, pc: u32) -> Option<&Access> {
        let at = self.accesses.binary_search_by_key(&pc, |access| access.pc).ok()?;
        self.accesses.get(at)
    }

    /// The call that returns to an offset of the module.
    pub fn call_before(&self, pc: u32) -> Option<u32> {
        let at = self.calls.binary_search_by_key(&pc, |(next, _)| *next).ok()?;
        self.calls.get(at).map(|(_, pc)| *pc)
    }
}

fn form_of(operator: &Operator<'_>) -> Option<Form> {
    // The alignment that an instruction may at most be marked with is its width.
    let place = |memarg: &MemArg, above| Place { offset: memarg.offset, bytes: 1 << memarg.max_align, above };
    Some(match operator {
        Operator::I32Load { memarg }
        | Operator::I64Load { memarg }
        | Operator::F32Load { memarg }
        | Operator::F64Load { memarg }
        | Operator::I32Load8S { memarg }
        | Operator::I32Load8U { memarg }
        | Operator::I32Load16S { memarg }
        | Operator::I32Load16U { memarg }
        | Operator::I64Load8S { memarg }
        | Operator::I64Load8U { memarg }
        | Operator::I64Load16S { memarg }
        | Operator::I64Load16U { memarg }
        | Operator::I64Load32S { memarg }
        | Operator::I64Load32U { memarg }
        | Operator::V128Load { memarg }
        | Operator::V128Load8x8S { memarg }
        | Operator::V128Load8x8U { memarg }
        | Operator::V128Load16x4S { memarg }
        | Operator::V128Load16x4U { memarg }
        | Operator::V128Load32x2S { memarg }
        | Operator::V128Load32x2U { memarg }
        | Operator::V128Load8Splat { memarg }
        | Operator::V128Load16Splat { memarg }
        | Operator::V128Load32Splat { memarg }
        | Operator::V128Load64Splat { memarg }
        | Operator::V128Load32Zero { memarg }
        | Operator::V128Load64Zero { memarg } => Form::Load(place(memarg, 0)),
        Operator::V128Load8Lane { memarg, .. }
        | Operator::V128Load16Lane { memarg, .. }
        | Operator::V128Load32Lane { memarg, .. }
        | Operator::V128Load64Lane { memarg, .. } => Form::Load(place(memarg, 1)),
        Operator::I32Store { memarg }
        | Operator::I64Store { memarg }
        | Operator::F32Store { memarg }
        | Operator::F64Store { memarg }
        | Operator::I32Store8 { memarg }
        | Operator::I32Store16 { memarg }
        | Operator::I64Store8 { memarg }
        | Operator::I64Store16 { memarg }
        | Operator::I64Store32 { memarg }
        | Operator::V128Store { memarg }
        | Operator::V128Store8Lane { memarg, .. }
        | Operator::V128Store16Lane { memarg, .. }
        | Operator::V128Store32Lane { memarg, .. }
        | Operator::V128Store64Lane { memarg, .. } => Form::Store(place(memarg, 1)),
        Operator::MemoryCopy { .. } => Form::Copy,
        Operator::MemoryFill { .. } | Operator::MemoryInit { .. } => Form::Fill,
        _ => return None,
    })
}
