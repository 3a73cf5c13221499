//! DWARF of a firmware, for LLDB: `inic build` describes what it knows from asc, and gets the sections' bytes.
//!
//! Addresses count from the contents of the code section, as DWARF for WebAssembly has it. What is written is what LLDB
//! makes most of: version 4, one unit, one line sequence a function, locations that are wasm locals.

use gimli::write::{
    Address, AttributeValue, Dwarf, EndianVec, Expression, FileId, LineProgram, LineString, Location, LocationList,
    Sections, Unit, UnitEntryId,
};
use gimli::{DwAte, DwTag, Encoding, Format, LineEncoding, LittleEndian};
use napi::bindgen_prelude::{Uint8Array, Uint32Array};
use napi_derive::napi;

use crate::error::{Code, Result};

/// Numbers of a row in [`DwarfFunction::rows`]: address, file, line, column.
const ROW: usize = 4;
/// Numbers of a stretch in [`DwarfVariable::places`]: address, address behind, wasm local.
const PLACE: usize = 3;

/// A member of a struct.
#[napi(object)]
pub struct DwarfMember {
    /// Its name.
    pub name: String,
    /// Index in [`DwarfInfo::types`].
    pub type_index: u32,
    /// Bytes from the start of the object.
    pub offset: u32,
}

/// A type.
#[napi(object)]
pub struct DwarfType {
    /// `signed`, `unsigned`, `float`, `boolean`, `struct`, `pointer` or `vector` (of 128 bits).
    pub kind: String,
    /// As AssemblyScript writes it.
    pub name: String,
    /// Its size.
    pub bytes: u32,
    /// Kinds pointer and vector: index of what is pointed at, or of a lane.
    pub target: Option<u32>,
    /// Kind struct.
    pub members: Option<Vec<DwarfMember>>,
}

/// A parameter or local.
#[napi(object)]
pub struct DwarfVariable {
    /// Its name.
    pub name: String,
    /// Index in [`DwarfInfo::types`].
    pub type_index: u32,
    /// Address, address behind it and index of the wasm local that holds it there, ascending; elsewhere it has no value.
    pub places: Uint32Array,
    /// A parameter.
    pub parameter: bool,
}

/// A function.
#[napi(object)]
pub struct DwarfFunction {
    /// Short name.
    pub name: String,
    /// With the file in front.
    pub linkage_name: String,
    /// Address of its first instruction.
    pub start: u32,
    /// Address behind its last.
    pub end: u32,
    /// Address, file (index in [`DwarfInfo::files`]), line and column, ascending by address. Empty: no source.
    pub rows: Uint32Array,
    /// Index in [`DwarfInfo::types`] of what it returns.
    pub result: Option<u32>,
    /// Parameters and locals.
    pub variables: Vec<DwarfVariable>,
}

/// A constant.
#[napi(object)]
pub struct DwarfConstant {
    /// Its name.
    pub name: String,
    /// Index in [`DwarfInfo::types`].
    pub type_index: u32,
    /// Its value.
    pub value: u32,
}

/// What is known of a firmware; `DwarfInfo` of addon.ts.
#[napi(object)]
pub struct DwarfInfo {
    /// Who made it.
    pub producer: String,
    /// What the unit is called.
    pub name: String,
    /// Folder that file names are relative to.
    pub directory: String,
    /// Names of source files.
    pub files: Vec<String>,
    /// Size of the contents of the code section.
    pub code_bytes: u32,
    /// Types; they refer to each other by index.
    pub types: Vec<DwarfType>,
    /// Functions, ascending by address.
    pub functions: Vec<DwarfFunction>,
    /// Numbers that the source gives a name.
    pub constants: Vec<DwarfConstant>,
}

/// A section.
#[napi(object)]
pub struct DwarfSection {
    /// `.debug_info` and so on.
    pub name: String,
    /// Its contents.
    pub contents: Uint8Array,
}

/// The DWARF sections that say this. Throws ERR_CPU_DWARF for a description that contradicts itself.
#[napi(catch_unwind)]
pub fn dwarf_sections(info: DwarfInfo) -> Result<Vec<DwarfSection>> {
    let mut dwarf = Writer::new(&info)?.write()?;
    let mut sections = Sections::new(EndianVec::new(LittleEndian));
    dwarf.write(&mut sections).map_err(|cause| malformed(&cause.to_string()))?;
    let mut written = Vec::new();
    let collected: std::result::Result<(), gimli::write::Error> = sections.for_each(|id, data| {
        if !data.slice().is_empty() {
            written.push(DwarfSection { name: id.name().into(), contents: data.slice().to_vec().into() });
        }
        Ok(())
    });
    collected.map_err(|cause| malformed(&cause.to_string()))?;
    Ok(written)
}

fn malformed(what: &str) -> crate::error::Error {
    Code::Dwarf.error(format!("no DWARF of this: {what}"))
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::String(value.as_bytes().to_vec())
}

struct Writer<'a> {
    info: &'a DwarfInfo,
    unit: Unit,
    root: UnitEntryId,
    /// One for each of `info.types`.
    types: Vec<UnitEntryId>,
}

impl<'a> Writer<'a> {
    fn new(info: &'a DwarfInfo) -> Result<Self> {
        // Version 4 is what LLDB's wasm plugin was made with; 5 brings nothing that is used here.
        let encoding = Encoding { format: Format::Dwarf32, version: 4, address_size: 4 };
        let unit = Unit::new(encoding, line_program(info, encoding)?);
        let root = unit.root();
        Ok(Self { info, unit, root, types: Vec::new() })
    }

    fn write(mut self) -> Result<Dwarf> {
        let info = self.info;
        let root = self.unit.get_mut(self.root);
        root.set(gimli::DW_AT_producer, text(&info.producer));
        // Some language with structs and pointers, for LLDB's expressions: it knows nothing of AssemblyScript.
        root.set(gimli::DW_AT_language, AttributeValue::Language(gimli::DW_LANG_C99));
        root.set(gimli::DW_AT_name, text(&info.name));
        root.set(gimli::DW_AT_comp_dir, text(&info.directory));
        root.set(gimli::DW_AT_low_pc, AttributeValue::Address(Address::Constant(0)));
        root.set(gimli::DW_AT_high_pc, AttributeValue::Udata(info.code_bytes.into()));
        root.set(gimli::DW_AT_stmt_list, AttributeValue::LineProgramRef);
        self.add_types()?;
        for function in &info.functions {
            self.add_function(function)?;
        }
        for constant in &info.constants {
            let entry = self.named(self.root, gimli::DW_TAG_variable, &constant.name);
            self.set_type(entry, constant.type_index)?;
            self.unit.get_mut(entry).set(gimli::DW_AT_const_value, AttributeValue::Udata(constant.value.into()));
        }
        let mut dwarf = Dwarf::new();
        dwarf.units.add(self.unit);
        Ok(dwarf)
    }

    fn named(&mut self, parent: UnitEntryId, tag: DwTag, name: &str) -> UnitEntryId {
        let entry = self.unit.add(parent, tag);
        self.unit.get_mut(entry).set(gimli::DW_AT_name, text(name));
        entry
    }

    fn set_type(&mut self, entry: UnitEntryId, index: u32) -> Result<()> {
        let target = *self.types.get(index as usize).ok_or_else(|| malformed(&format!("there is no type {index}")))?;
        self.unit.get_mut(entry).set(gimli::DW_AT_type, AttributeValue::UnitRef(target));
        Ok(())
    }

    fn set_bytes(&mut self, entry: UnitEntryId, bytes: u32) {
        self.unit.get_mut(entry).set(gimli::DW_AT_byte_size, AttributeValue::Udata(bytes.into()));
    }

    /// All entries first: types refer to each other in any order.
    fn add_types(&mut self) -> Result<()> {
        let info = self.info;
        for each in &info.types {
            let entry = match each.kind.as_str() {
                "signed" => self.base(each, gimli::DW_ATE_signed),
                "unsigned" => self.base(each, gimli::DW_ATE_unsigned),
                "float" => self.base(each, gimli::DW_ATE_float),
                "boolean" => self.base(each, gimli::DW_ATE_boolean),
                "struct" => self.named(self.root, gimli::DW_TAG_structure_type, &each.name),
                "pointer" => self.unit.add(self.root, gimli::DW_TAG_pointer_type),
                "vector" => self.unit.add(self.root, gimli::DW_TAG_array_type),
                other => return Err(malformed(&format!("a type of kind {other}"))),
            };
            self.types.push(entry);
        }
        for (index, each) in info.types.iter().enumerate() {
            let entry = self.types[index];
            match each.kind.as_str() {
                "struct" => {
                    self.set_bytes(entry, each.bytes);
                    for member in each.members.iter().flatten() {
                        let field = self.named(entry, gimli::DW_TAG_member, &member.name);
                        self.set_type(field, member.type_index)?;
                        let offset = AttributeValue::Udata(member.offset.into());
                        self.unit.get_mut(field).set(gimli::DW_AT_data_member_location, offset);
                    }
                }
                "pointer" => {
                    self.set_bytes(entry, each.bytes);
                    if let Some(target) = each.target {
                        self.set_type(entry, target)?;
                    }
                }
                "vector" => self.finish_vector(entry, each)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A number. LLDB shows a base type by the name that C has for it, and a typedef by its own.
    fn base(&mut self, each: &DwarfType, encoding: DwAte) -> UnitEntryId {
        let base = self.named(self.root, gimli::DW_TAG_base_type, &each.name);
        self.unit.get_mut(base).set(gimli::DW_AT_encoding, AttributeValue::Encoding(encoding));
        self.set_bytes(base, each.bytes);
        let entry = self.named(self.root, gimli::DW_TAG_typedef, &each.name);
        self.unit.get_mut(entry).set(gimli::DW_AT_type, AttributeValue::UnitRef(base));
        entry
    }

    fn finish_vector(&mut self, entry: UnitEntryId, each: &DwarfType) -> Result<()> {
        let lane = each.target.ok_or_else(|| malformed("a vector of nothing"))?;
        let lane_bytes = self.info.types.get(lane as usize).map_or(0, |lane| lane.bytes);
        let lanes = each.bytes.checked_div(lane_bytes).ok_or_else(|| malformed("a vector of lanes without size"))?;
        self.set_type(entry, lane)?;
        self.unit.get_mut(entry).set(gimli::DW_AT_GNU_vector, AttributeValue::Flag(true));
        let range = self.unit.add(entry, gimli::DW_TAG_subrange_type);
        self.unit.get_mut(range).set(gimli::DW_AT_count, AttributeValue::Udata(lanes.into()));
        Ok(())
    }

    fn add_function(&mut self, function: &DwarfFunction) -> Result<()> {
        let entry = self.named(self.root, gimli::DW_TAG_subprogram, &function.name);
        let bytes = u64::from(function.end.saturating_sub(function.start));
        // LLDB wants a frame base before it evaluates a location; nothing here refers to it.
        let frame_base = local_value(0);
        let attributes = self.unit.get_mut(entry);
        attributes.set(gimli::DW_AT_linkage_name, text(&function.linkage_name));
        attributes.set(gimli::DW_AT_low_pc, AttributeValue::Address(Address::Constant(function.start.into())));
        attributes.set(gimli::DW_AT_high_pc, AttributeValue::Udata(bytes));
        attributes.set(gimli::DW_AT_external, AttributeValue::Flag(true));
        attributes.set(gimli::DW_AT_frame_base, AttributeValue::Exprloc(frame_base));
        if let Some(result) = function.result {
            self.set_type(entry, result)?;
        }
        for variable in &function.variables {
            let tag = if variable.parameter { gimli::DW_TAG_formal_parameter } else { gimli::DW_TAG_variable };
            let place = self.named(entry, tag, &variable.name);
            self.set_type(place, variable.type_index)?;
            let location = self.location(function, variable)?;
            self.unit.get_mut(place).set(gimli::DW_AT_location, location);
        }
        Ok(())
    }

    /// One expression for a variable that is always in the same local, else a list.
    fn location(&mut self, function: &DwarfFunction, variable: &DwarfVariable) -> Result<AttributeValue> {
        let places = variable.places.as_chunks::<PLACE>().0;
        if let &[[start, end, local]] = places
            && start <= function.start
            && end >= function.end
        {
            return Ok(AttributeValue::Exprloc(local_value(local)));
        }
        let mut behind = function.start;
        let mut list = Vec::with_capacity(places.len());
        for &[start, end, local] in places {
            if start < behind || end <= start || end > function.end {
                return Err(malformed(&format!("{} of {} at {start}", variable.name, function.linkage_name)));
            }
            behind = end;
            let (begin, end) = (Address::Constant(start.into()), Address::Constant(end.into()));
            list.push(Location::StartEnd { begin, end, data: local_value(local) });
        }
        Ok(AttributeValue::LocationListRef(self.unit.locations.add(LocationList(list))))
    }
}

/// The value of a wasm local.
fn local_value(local: u32) -> Expression {
    let mut expression = Expression::new();
    expression.op_wasm_local(local);
    expression.op(gimli::DW_OP_stack_value);
    expression
}

fn line_program(info: &DwarfInfo, encoding: Encoding) -> Result<LineProgram> {
    let directory = LineString::String(info.directory.as_bytes().to_vec());
    let name = LineString::String(info.name.as_bytes().to_vec());
    let mut program = LineProgram::new(encoding, LineEncoding::default(), directory, None, name, None);
    let folder = program.default_directory();
    let mut files: Vec<FileId> = Vec::with_capacity(info.files.len());
    for file in &info.files {
        if file.is_empty() || file.contains('\0') {
            return Err(malformed("a file without a proper name"));
        }
        files.push(program.add_file(LineString::String(file.as_bytes().to_vec()), folder, None));
    }
    let mut behind = 0;
    for function in &info.functions {
        if function.start < behind || function.end < function.start || function.end > info.code_bytes {
            return Err(malformed(&format!("{} does not lie behind the function before", function.linkage_name)));
        }
        behind = function.end;
        add_sequence(&mut program, &files, function)?;
    }
    Ok(program)
}

/// The lines of one function. A breakpoint on it stops at its first row, which therefore ends the prologue; a function
/// without source has line 0, which stepping passes by.
fn add_sequence(program: &mut LineProgram, files: &[FileId], function: &DwarfFunction) -> Result<()> {
    let rows = function.rows.as_chunks::<ROW>().0;
    let (Some(anywhere), true) = (files.first(), function.end > function.start) else {
        return Ok(());
    };
    program.begin_sequence(Some(Address::Constant(function.start.into())));
    if rows.is_empty() {
        let row = program.row();
        (row.file, row.line, row.column) = (*anywhere, 0, 0);
        program.generate_row();
    }
    let mut last = function.start;
    for (index, &[address, file, line, column]) in rows.iter().enumerate() {
        // The first instructions may be the compiler's own: they count to the first line.
        let address = if index == 0 { function.start } else { address };
        if address < last || address >= function.end {
            return Err(malformed(&format!("a line of {} at {address}", function.linkage_name)));
        }
        last = address;
        let row = program.row();
        row.address_offset = u64::from(address - function.start);
        row.file = *files.get(file as usize).ok_or_else(|| malformed(&format!("there is no file {file}")))?;
        (row.line, row.column) = (line.into(), column.into());
        row.is_statement = true;
        row.prologue_end = index == 0;
        program.generate_row();
    }
    program.end_sequence(u64::from(function.end - function.start));
    Ok(())
}
