//! The leash: how a slice without a count of its instructions can be stopped all the same.
//!
//! The firmware is compiled with a store of 0 to one byte that is 0 anyway, at the head of every loop and of every function
//! that calls another: whatever runs for long passes there again and again. To stop it the page of that byte is taken away
//! (watchdog.rs), and the next store there traps like any other fault. A store and not a load, because a load in a loop that
//! stores nothing is one that the compiler does once.
//!
//! Offsets into the code that runs are not those into the image, hence [`Leashed::pc`].

use std::ops::Range;

use wasmparser::{BinaryReaderError, FunctionBody, Operator, Parser, Payload};

/// A module on the leash.
pub struct Leashed {
    /// The module to compile.
    pub module: Vec<u8>,
    pieces: Vec<Piece>,
}

/// A stretch of the code section that was taken over as it was.
struct Piece {
    /// Where it is in the leashed module.
    at: usize,
    /// Where it is in the original.
    original: Range<usize>,
}

impl Leashed {
    /// Puts `module` on a leash that is held at `address` of its memory.
    pub fn of(module: &[u8], address: u32) -> Result<Self, BinaryReaderError> {
        let mut bodies = Vec::new();
        let mut section = None;
        let mut before = 8; // magic and version
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            match &payload {
                Payload::CodeSectionStart { range, .. } => section = Some((before, range.clone())),
                Payload::CodeSectionEntry(body) => bodies.push(body.clone()),
                _ => {}
            }
            if let Some((_, range)) = payload.as_section() {
                before = range.end;
            }
        }
        let Some((header, range)) = section else {
            return Ok(Self { module: module.to_vec(), pieces: Vec::new() });
        };
        let (contents, mut pieces) = code_section(module, &bodies, &stop(address))?;
        let mut leashed = module[..header].to_vec();
        leashed.push(module[header]); // the section's id
        leb128(contents.len(), &mut leashed);
        for piece in &mut pieces {
            piece.at += leashed.len();
        }
        leashed.extend(contents);
        leashed.extend(&module[range.end..]);
        Ok(Self { module: leashed, pieces })
    }

    /// The offset in the original of an instruction at `offset`; of the one behind it, if it is the leash's own.
    pub fn pc(&self, offset: u32) -> u32 {
        let next = self.pieces.partition_point(|piece| piece.at <= offset as usize);
        let Some(piece) = next.checked_sub(1).and_then(|last| self.pieces.get(last)) else { return offset };
        (piece.original.start + offset as usize - piece.at).min(piece.original.end) as u32
    }
}

/// `i32.const address, i32.const 0, i32.store8`
fn stop(address: u32) -> Vec<u8> {
    let mut code = vec![0x41];
    let mut rest = address as i32;
    while !(-64..64).contains(&rest) {
        code.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    code.push(rest as u8 & 0x7f);
    code.extend([0x41, 0x00, 0x3a, 0x00, 0x00]);
    code
}

/// Contents of the code section with `stop` where it belongs, and what was taken over where, from the start of the contents.
fn code_section(
    module: &[u8],
    bodies: &[FunctionBody<'_>],
    stop: &[u8],
) -> Result<(Vec<u8>, Vec<Piece>), BinaryReaderError> {
    let mut contents = Vec::new();
    let mut pieces = Vec::new();
    leb128(bodies.len(), &mut contents);
    for body in bodies {
        let range = body.range();
        let stops = stops_in(body)?;
        leb128(range.len() + stops.len() * stop.len(), &mut contents);
        let mut from = range.start;
        for to in stops.into_iter().chain([range.end]) {
            pieces.push(Piece { at: contents.len(), original: from..to });
            contents.extend(&module[from..to]);
            if to < range.end {
                contents.extend(stop);
            }
            from = to;
        }
    }
    Ok((contents, pieces))
}

/// The offsets in a function before which it has to stop, in order.
fn stops_in(body: &FunctionBody<'_>) -> Result<Vec<usize>, BinaryReaderError> {
    let mut stops = Vec::new();
    let mut calls = false;
    let mut reader = body.get_operators_reader()?;
    let start = reader.original_position();
    while !reader.eof() {
        let (operator, offset) = reader.read_with_offset()?;
        match operator {
            Operator::Loop { .. } => stops.push(reader.original_position()),
            // Nothing to stop there; but a block that does nothing but trap is one that the compiler merges with the branch to
            // it, and the fault would be put down to that.
            Operator::Unreachable => stops.push(offset),
            Operator::Call { .. }
            | Operator::CallIndirect { .. }
            | Operator::CallRef { .. }
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. } => calls = true,
            _ => {}
        }
    }
    if calls {
        stops.insert(0, start);
    }
    Ok(stops)
}

fn leb128(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
