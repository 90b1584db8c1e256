//! What one CPU stores the others see: code, page tables, rules of their own.

use super::*;

/// The other CPU has executed what is changed, until it was compiled.
#[test]
fn a_cpu_changes_what_another_executes() {
    /// `mov eax, value; ret`.
    fn code(value: u64) -> u64 {
        0x0000_c300_0000_00b8 | value << 8
    }
    let program = || {
        let mut program = Program::new(2);
        poke(&mut program.a, DATA + 0x1000, code(1)).unwrap();
        let calls = |a: &mut CodeAssembler| {
            for turn in 1..5u64 {
                let mut again = a.create_label();
                a.mov(rbx, DATA + 0x1000)?;
                a.mov(ebp, 100)?;
                a.set_label(&mut again)?;
                a.call(rbx)?;
                a.dec(ebp)?;
                a.jnz(again)?;
                a.mov(rcx, DATA + turn * 8)?;
                a.mov(qword_ptr(rcx), rax)?;
                give_turn(a, 2 * turn - 1)?;
                await_turn(a, 2 * turn)?;
            }
            Ok(())
        };
        program.on_another(1, calls).unwrap();
        program.machine(|a| {
            for turn in 1..5 {
                await_turn(a, 2 * turn - 1)?;
                poke(a, DATA + 0x1000, code(turn + 1))?;
                give_turn(a, 2 * turn)?;
            }
            stop(a)
        })
    };
    let machine = everywhere(program);
    for turn in 1..5 {
        assert_eq!(peek(&machine, DATA + turn * 8), turn);
    }
}

/// Tables that map the first 4 GiB to themselves by 2 MiB pages are at 0x9000 (the boot protocol's). These are of the
/// test: a root at `at`, whose lower half is the boot protocol's, and in the upper half, at [`UPPER`], a page.
const UPPER: u64 = 0xffff_8000_0000_0000;

fn put_tables(a: &mut CodeAssembler, at: u64, leaf: u64) -> Assembled {
    a.mov(rax, 0x9000u64)?;
    a.mov(rdx, qword_ptr(rax))?;
    a.mov(rax, at)?;
    a.mov(qword_ptr(rax), rdx)?;
    for (table, next) in [(at + 0x800, at + 0x1000), (at + 0x1000, at + 0x2000)] {
        poke(a, table, next | 3)?;
    }
    poke(a, at + 0x2000, (at + 0x3000) | 3)?;
    poke(a, at + 0x3000, leaf)
}

/// With the same root, and with roots of their own: a store to a table is seen by the other CPU's next access, as if
/// the tables were freshly walked, without INVLPG.
#[test]
fn a_cpu_changes_the_page_table_of_another() {
    const TABLES: [u64; 2] = [DATA + 0x10_0000, DATA + 0x11_0000];
    let page = |number: u64| DATA + 0x2_0000 + number * 0x1000;
    for roots in [[0, 0], [0, 1]] {
        let program = || {
            let mut program = Program::new(2);
            for table in TABLES {
                put_tables(&mut program.a, table, page(0) | 3).unwrap();
            }
            for number in 0..5 {
                poke(&mut program.a, page(number), number + 10).unwrap();
            }
            let reads = |a: &mut CodeAssembler| {
                a.mov(rax, TABLES[roots[1]])?;
                a.mov(cr3, rax)?;
                for turn in 0..5u64 {
                    let mut again = a.create_label();
                    a.mov(rbx, UPPER)?;
                    a.mov(ebp, 100)?;
                    a.set_label(&mut again)?;
                    a.mov(rdx, qword_ptr(rbx))?;
                    a.dec(ebp)?;
                    a.jnz(again)?;
                    a.mov(rcx, DATA + turn * 8)?;
                    a.mov(qword_ptr(rcx), rdx)?;
                    give_turn(a, 2 * turn + 1)?;
                    await_turn(a, 2 * turn + 2)?;
                }
                Ok(())
            };
            program.on_another(1, reads).unwrap();
            program.machine(|a| {
                a.mov(rax, TABLES[roots[0]])?;
                a.mov(cr3, rax)?;
                for turn in 0..5u64 {
                    await_turn(a, 2 * turn + 1)?;
                    a.mov(rbx, UPPER)?;
                    a.mov(rdx, qword_ptr(rbx))?; // its own translation, if it has one
                    a.mov(rcx, DATA + 0x100 + turn * 8)?;
                    a.mov(qword_ptr(rcx), rdx)?;
                    let next = page((turn + 1) % 5) | 3;
                    poke(a, TABLES[roots[1]] + 0x3000, next)?;
                    give_turn(a, 2 * turn + 2)?;
                }
                stop(a)
            })
        };
        let machine = everywhere(program);
        for turn in 0..5 {
            let seen = [0, 0x100].map(|offset| peek(&machine, DATA + offset + turn * 8));
            let first = if roots[0] == roots[1] { turn + 10 } else { 10 };
            assert_eq!(seen, [turn + 10, first], "roots {roots:?}, turn {turn}");
        }
    }
}

/// Who wakes a CPU before it has given itself back wakes it as soon as it has, while it is the one that runs: from then on
/// it has other tables.
#[test]
fn a_cpu_that_is_woken_up_at_once_has_its_old_tables_no_longer() {
    const GIB: u64 = 1 << 30;
    let [root, table] = [DATA + 0x10_0000, DATA + 0x10_1000];
    let program = || {
        let mut program = Program::new(2);
        poke(&mut program.a, root, table | 3).unwrap();
        for (index, page) in [(0, 0), (1, 0), (3, 3 * GIB)] {
            poke(&mut program.a, table + index * 8, page | 0x83).unwrap();
        }
        poke(&mut program.a, DATA, 77).unwrap();
        let leaves = |a: &mut CodeAssembler| {
            a.mov(rax, root)?;
            a.mov(cr3, rax)?;
            give_turn(a, 1)?;
            await_turn(a, 2)?;
            a.mov(rbx, GIB + DATA)?;
            a.mov(rcx, qword_ptr(rbx))?;
            a.mov(qword_ptr(rbx + 8), rcx)?;
            a.mov(rax, 0xf_0000u64)?; // the MADT's reset vector
            a.jmp(rax)
        };
        program.on_another(1, leaves).unwrap();
        await_turn(&mut program.a, 1).unwrap();
        let mut again = program.a.create_label();
        program.wake(1, again).unwrap();
        give_turn(&mut program.a, 2).unwrap();
        program.machine(|a| {
            stop(a)?;
            a.set_label(&mut again)?;
            a.mov(rbx, GIB + DATA)?;
            a.mov(rdx, qword_ptr(rbx))?; // there is no RAM
            a.mov(rcx, DATA)?;
            a.mov(qword_ptr(rcx + 16), rdx)?;
            stop(a)
        })
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA + 8), 77);
    assert_ne!(peek(&machine, DATA + 16), 77);
}

/// CR0.WP of one CPU is not that of another: what this one may store to, the other may only read.
#[test]
fn cpus_with_other_rules_share_no_translations() {
    const WRITE_PROTECT: u32 = 1 << 16;
    let tables = DATA + 0x10_0000;
    let program = || {
        let mut program = Program::new(2);
        put_tables(&mut program.a, tables, (DATA + 0x2_0000) | 1).unwrap();
        let writes = |a: &mut CodeAssembler| {
            a.mov(rax, tables)?;
            a.mov(cr3, rax)?;
            for turn in [1, 3] {
                await_turn(a, turn)?;
                a.mov(rbx, UPPER)?;
                a.inc(qword_ptr(rbx))?;
                give_turn(a, turn + 1)?;
            }
            Ok(())
        };
        program.on_another(1, writes).unwrap();
        let (mut fault, mut behind) = (program.a.create_label(), program.a.create_label());
        program.handlers().unwrap();
        program.gate(14, fault, 0x8e).unwrap();
        program.machine(|a| {
            load_tables(a, 0)?;
            a.mov(rax, tables)?;
            a.mov(cr3, rax)?;
            a.mov(rax, cr0)?;
            a.or(eax, WRITE_PROTECT as i32)?;
            a.mov(cr0, rax)?;
            a.xor(r12, r12)?;
            for turn in [1, 3] {
                give_turn(a, turn)?;
                await_turn(a, turn + 1)?;
                a.mov(rbx, UPPER)?;
                a.inc(qword_ptr(rbx))?; // faults
            }
            a.set_label(&mut behind)?;
            a.mov(rax, DATA)?;
            a.mov(qword_ptr(rax), r12)?;
            stop(a)?;
            a.set_label(&mut fault)?;
            a.inc(r12)?;
            a.add(rsp, 8)?;
            a.add(qword_ptr(rsp), 3)?; // behind the INC of three bytes
            a.iretq()
        })
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA), 2, "faults");
    assert_eq!(peek(&machine, DATA + 0x2_0000), 2, "stores");
}
