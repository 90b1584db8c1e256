//! How CPUs start, give themselves back and are reset.

use super::*;

#[test]
fn a_machine_has_one_to_eight_cpus() {
    for cpus in [1, 2, 8] {
        assert!(powered_on(cpus, &[0xf4]).is_ok());
    }
    for cpus in [0, 9, u32::MAX] {
        assert!(powered_on(cpus, &[0xf4]).is_err(), "{cpus}");
    }
}

/// ACPI 6.5, section 5.2.12.19: 64-bit mode, interrupts off; each knows who it is.
#[test]
fn cpus_that_are_woken_up_know_who_they_are() {
    let program = || {
        let mut program = Program::new(8);
        let mut other = program.a.create_label();
        for cpu in 1..8 {
            program.wake(cpu, other).unwrap();
        }
        program.machine(|a| {
            stop(a)?;
            a.set_label(&mut other)?;
            a.mov(r8, rsp)?; // zero: nothing is handed over
            a.mov(eax, 1)?;
            a.cpuid()?;
            a.shr(ebx, 24)?;
            a.mov(r9, rbx)?;
            a.mov(eax, 0xb)?;
            a.xor(ecx, ecx)?;
            a.cpuid()?;
            a.mov(r10, APIC)?;
            a.mov(r10d, dword_ptr(r10 + 0x20))?;
            a.shr(r10d, 24)?;
            a.mov(rsi, r9)?;
            a.shl(rsi, 6)?;
            a.mov(rdi, DATA)?;
            a.add(rsi, rdi)?;
            a.mov(qword_ptr(rsi), r9)?;
            a.mov(qword_ptr(rsi + 8), rdx)?;
            a.mov(qword_ptr(rsi + 16), r10)?;
            a.mov(rax, cr0)?;
            a.mov(qword_ptr(rsi + 24), rax)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.mov(qword_ptr(rsi + 32), rax)?;
            a.mov(ecx, 0x1b)?;
            a.rdmsr()?;
            a.mov(qword_ptr(rsi + 40), rax)?;
            a.mov(qword_ptr(rsi + 48), r8)?;
            a.lea(rsp, ptr(rsi + 64))?;
            a.pushfq()?;
            stop(a)
        })
    };
    let machine = everywhere(program);
    for cpu in 1..8 {
        let word = |index: u64| peek(&machine, DATA + cpu * 64 + index * 8);
        assert_eq!([word(0), word(1), word(2)], [cpu; 3], "CPU {cpu}");
        assert_eq!(word(3) & 0x8000_0001, 0x8000_0001);
        assert_eq!(word(4), 0xd00, "Linux' tables have NX");
        assert_eq!(word(5) & 0x100, 0, "it is not the boot processor");
        assert_eq!(word(6), 0);
        assert_eq!(word(7) & 0x200, 0);
    }
}

/// `acpi_mp_play_dead` and `acpi_mp_cpu_die` in Linux, and the CPU comes back.
#[test]
fn a_cpu_gives_itself_back_and_is_woken_up_again() {
    let program = || {
        let mut program = Program::new(2);
        for times in 1..4u64 {
            let leave = |a: &mut CodeAssembler| {
                // Nothing is left of what it was.
                a.mov(rax, DATA)?;
                a.mov(qword_ptr(rax + 0x40 + times as i32 * 8), rbx)?;
                a.mov(rbx, rsp)?;
                poke(a, DATA, times)?;
                a.mov(rax, 0xf_0000u64)?; // the MADT's reset vector
                a.jmp(rax)
            };
            program.on_another(1, leave).unwrap();
            let test = |a: &mut CodeAssembler| {
                let mut again = a.create_label();
                a.mov(rdx, MAILBOX)?;
                a.mov(dword_ptr(rdx + 4), 1)?;
                a.mov(word_ptr(rdx), 2)?;
                a.set_label(&mut again)?;
                a.pause()?;
                a.cmp(word_ptr(rdx), 0)?;
                a.jne(again)?;
                a.mov(rax, DATA)?;
                a.mov(rcx, qword_ptr(rax))?;
                a.mov(qword_ptr(rax + times as i32 * 8), rcx)
            };
            test(&mut program.a).unwrap();
        }
        program.machine(stop)
    };
    let machine = everywhere(program);
    for times in 1..4 {
        assert_eq!(peek(&machine, DATA + times * 8), times);
        assert_eq!(peek(&machine, DATA + 0x40 + times * 8), 0, "RBX");
    }
    // Behind the OUT it executed nothing.
    let views = machine.harts();
    assert_eq!(views[1].program_counter, 0xf_0005);
    assert!(
        views[1].describe.contains("wakeup"),
        "{}",
        views[1].describe
    );
}

/// What was sent to a CPU before it was woken up would come before it has any table.
#[test]
fn what_cannot_be_masked_is_not_kept_for_a_cpu_that_waits_for_its_wakeup() {
    let program = || {
        let mut program = Program::new(2);
        program.handlers().unwrap();
        send(&mut program.a, 1, NONMASKABLE).unwrap();
        let compute_once = |a: &mut CodeAssembler| {
            load_tables(a, 1)?;
            compute(a, 100)?;
            poke(a, DATA + 0x10, 1)
        };
        program.on_another(1, compute_once).unwrap();
        program.machine(stop)
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA + 0x10), 1);
    assert_eq!(peek(&machine, DATA + 0x108), 0, "interrupts");
}

/// A reset that any CPU asks for leaves one CPU that runs and others that wait.
#[test]
fn a_reset_leaves_the_other_cpus_waiting() {
    let program = || {
        let mut program = Program::new(2);
        // The time-stamp counter goes on.
        let mut again = program.a.create_label();
        program.a.rdtsc().unwrap();
        program.a.cmp(eax, 100_000).unwrap();
        program.a.ja(again).unwrap();
        let resets = |a: &mut CodeAssembler| {
            compute(a, 50_000)?;
            a.mov(edx, 0xcf9)?;
            a.mov(al, 6)?;
            a.out(dx, al)
        };
        program.on_another(1, resets).unwrap();
        stop(&mut program.a).unwrap();
        program.machine(|a| {
            a.set_label(&mut again)?;
            poke(a, DATA, 5)?;
            stop(a)
        })
    };
    let mut results = Vec::new();
    for way in WAYS {
        let mut machine = program();
        prepare(&mut machine, way);
        let mut reboots = 0;
        loop {
            let stop = machine.run(20_000_000);
            let outputs = machine.outputs();
            reboots += outputs.iter().filter(|o| **o == Output::Reboot).count();
            match stop {
                Stop::Output => {}
                Stop::Idle { wake_at_ns: None } => break,
                other => panic!("{way:?}: {other:?}\n{}", machine.describe()),
            }
        }
        assert_eq!((reboots, peek(&machine, DATA)), (1, 5), "{way:?}");
        let views = machine.harts();
        assert!(
            views[1].describe.contains("wakeup"),
            "{}",
            views[1].describe
        );
        results.push((machine.instruction_count(), machine.digest()));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}

/// As the trampoline of Linux before 6.9 does: out of 64-bit mode by 32-bit code, paging off, and back.
#[test]
fn a_cpu_starts_by_way_of_32_bit_code() {
    const CODE_32: u64 = ENTRY + 0x4000;
    const WITHOUT_PAGING: u64 = CODE_32 + 0x80;
    const CODE_64: u64 = CODE_32 + 0x200;
    const RESULTS: i32 = DATA as i32 + 0x200;
    const EFER: u32 = 0xc000_0080;
    let far_jump = |a: &mut CodeAssembler, selector: u16, target: u64| {
        a.db(&[0xea])?;
        a.dd(&[target as u32])?;
        a.dw(&[selector])
    };
    let with_paging = || {
        let mut a = CodeAssembler::new(32)?;
        a.lock().bts(dword_ptr(RESULTS), 0)?;
        a.mov(eax, cr0)?;
        a.and(eax, 0x7fff_ffff)?;
        a.mov(cr0, eax)?;
        far_jump(&mut a, 8, WITHOUT_PAGING)?;
        a.assemble(CODE_32)
    };
    let without_paging = || {
        let mut a = CodeAssembler::new(32)?;
        a.mov(edx, 0x18)?;
        a.mov(ss, edx)?;
        a.mov(ds, edx)?;
        a.mov(esp, 0x7_0000)?;
        a.push(edx)?;
        a.mov(ecx, EFER)?;
        a.rdmsr()?;
        a.mov(dword_ptr(RESULTS + 8), eax)?;
        a.or(eax, 0x801)?; // NXE, SCE
        a.and(eax, !0x400)?; // LMA is not for software
        a.wrmsr()?;
        a.mov(eax, 0x9000)?;
        a.mov(cr3, eax)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32 as i32)?;
        a.mov(cr0, eax)?;
        a.rdmsr()?;
        a.mov(dword_ptr(RESULTS + 16), eax)?;
        far_jump(&mut a, 0x10, CODE_64)?;
        a.assemble(WITHOUT_PAGING)
    };
    let again_long = || {
        let mut a = CodeAssembler::new(64)?;
        a.mov(rax, RESULTS as u64)?;
        a.mov(qword_ptr(rax + 24), rax)?;
        stop(&mut a)?;
        a.assemble(CODE_64)
    };
    let program = || {
        let mut program = Program::new(2);
        program.handlers().unwrap();
        let a = &mut program.a;
        poke(a, 0x508, 0x00cf_9b00_0000_ffff).unwrap();
        poke(a, DATA + 0x300, CODE_32 | 8 << 32).unwrap();
        let goes = |a: &mut CodeAssembler| {
            load_tables(a, 1)?;
            a.mov(rax, DATA + 0x300)?;
            a.db(&[0xff, 0x28]) // jmp far dword [rax]
        };
        program.on_another(1, goes).unwrap();
        stop(&mut program.a).unwrap();
        let mut code = program.a.assemble(ENTRY).unwrap();
        let parts: [(u64, Result<Vec<u8>, IcedError>); 3] = [
            (CODE_32, with_paging()),
            (WITHOUT_PAGING, without_paging()),
            (CODE_64, again_long()),
        ];
        for (address, part) in parts {
            code.resize((address - ENTRY) as usize, 0xcc);
            code.extend(part.unwrap());
        }
        powered_on(2, &code).unwrap()
    };
    let machine = everywhere(program);
    let results = [0, 8, 16, 24].map(|offset| peek(&machine, DATA + 0x200 + offset));
    assert_eq!(results, [1, 0x900, 0xd01, DATA + 0x200]);
}
