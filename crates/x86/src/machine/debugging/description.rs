//! The registers of gdb's standard features for x86 (gdb manual, "i386 Features").

use crate::cpu::{CS, Cpu, DS, ES, FS, GS, Registers, SS};
use std::fmt::Write;

/// The general registers in gdb's order, and their numbers in the instruction encoding.
const GENERAL: [(&str, usize); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];
const SEGMENTS: [(&str, usize); 6] = [
    ("cs", CS),
    ("ss", SS),
    ("ds", DS),
    ("es", ES),
    ("fs", FS),
    ("gs", GS),
];
/// Of the x87 unit, behind its stack.
const FLOAT_CONTROL: [&str; 8] = [
    "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop",
];
/// Registers that only the kernel has.
const CONTROL: [&str; 6] = ["cr0", "cr2", "cr3", "cr4", "efer", "k_gs_base"];

/// An XMM register, in all the ways that it can be seen, and the flags' names.
const TYPES: [(&str, &str); 2] = [
    (
        "core",
        "<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/>\
         <field name=\"\" start=\"1\" end=\"1\"/><field name=\"PF\" start=\"2\" end=\"2\"/>\
         <field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>\
         <field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/>\
         <field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/>\
         <field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"NT\" start=\"14\" end=\"14\"/>\
         <field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"AC\" start=\"18\" end=\"18\"/></flags>",
    ),
    (
        "sse",
        "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
         <vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
         <vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\
         <union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>\
         <field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>\
         <field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>\
         <field name=\"uint128\" type=\"uint128\"/></union>",
    ),
];

/// The bytes of all registers, in the order of [`target_description`]. Those of the vector and x87 units are the CPU's.
pub fn registers(registers: &Registers, cpu: &Cpu) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (_, number) in GENERAL {
        bytes.extend(registers.gpr[number].to_le_bytes());
    }
    bytes.extend(registers.rip.to_le_bytes());
    bytes.extend((registers.rflags as u32).to_le_bytes());
    for (_, segment) in SEGMENTS {
        bytes.extend(u32::from(registers.segments[segment].selector).to_le_bytes());
    }
    let x87 = &cpu.x87;
    for index in 0..8 {
        bytes.extend(&x87.get(index).to_bits().to_le_bytes()[..10]);
    }
    for word in [x87.control, x87.status, x87.tags(), 0, 0, 0, 0, 0] {
        bytes.extend(u32::from(word).to_le_bytes());
    }
    for xmm in cpu.vector.xmm {
        bytes.extend(xmm.to_le_bytes());
    }
    bytes.extend(cpu.vector.mxcsr.to_le_bytes());
    let bases = [FS, GS].map(|segment| registers.segments[segment].base);
    let control = [
        registers.cr0,
        registers.cr2,
        registers.cr3,
        registers.cr4,
        registers.efer,
        registers.kernel_gs_base,
    ];
    for register in bases.into_iter().chain(control) {
        bytes.extend(register.to_le_bytes());
    }
    bytes
}

/// gdb's document of what there is.
pub fn target_description() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>i386:x86-64</architecture>",
    );
    let [(core, flags), (sse, vectors)] = TYPES;
    let _written = write!(xml, "<feature name=\"org.gnu.gdb.i386.{core}\">{flags}");
    for (name, _) in GENERAL {
        let kind = match name {
            "rsp" | "rbp" => "data_ptr",
            _ => "int64",
        };
        register(&mut xml, name, 64, kind);
    }
    register(&mut xml, "rip", 64, "code_ptr");
    register(&mut xml, "eflags", 32, "i386_eflags");
    for (name, _) in SEGMENTS {
        register(&mut xml, name, 32, "int32");
    }
    for index in 0..8 {
        register(&mut xml, &format!("st{index}"), 80, "i387_ext");
    }
    for name in FLOAT_CONTROL {
        register(&mut xml, name, 32, "int");
    }
    let _written = write!(
        xml,
        "</feature><feature name=\"org.gnu.gdb.i386.{sse}\">{vectors}"
    );
    for index in 0..16 {
        register(&mut xml, &format!("xmm{index}"), 128, "vec128");
    }
    register(&mut xml, "mxcsr", 32, "int");
    xml += "</feature><feature name=\"org.gnu.gdb.i386.segments\">";
    for name in ["fs_base", "gs_base"] {
        register(&mut xml, name, 64, "int64");
    }
    xml += "</feature><feature name=\"org.understudy.x86.control\">";
    for name in CONTROL {
        register(&mut xml, name, 64, "int64");
    }
    xml + "</feature></target>"
}

fn register(xml: &mut String, name: &str, bits: u32, kind: &str) {
    let _written = write!(
        xml,
        "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// gdb takes the registers one after the other by the sizes that it was told.
    #[test]
    fn registers_are_as_long_as_the_description_says() {
        let xml = target_description();
        let bits = xml.split("bitsize=\"").skip(1);
        let described: usize = bits
            .map(|rest| rest.split('"').next().unwrap().parse::<usize>().unwrap())
            .sum();
        let cpu = Cpu::long_mode(0x1000, 0x1234);
        let bytes = registers(&cpu.registers, &cpu);
        assert_eq!(bytes.len() * 8, described);
        assert_eq!(bytes[16 * 8..][..8], 0x1234u64.to_le_bytes());
    }
}
