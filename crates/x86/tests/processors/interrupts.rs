//! Interrupts between CPUs, those that cannot be masked, and timers.

use super::*;

/// All wait, and the timer of one that lets interrupts in is the next thing that happens.
#[test]
fn an_idle_machine_waits_for_the_timer_of_any_cpu() {
    const TIMER: u32 = VECTOR;
    let program = || {
        let mut program = Program::new(3);
        program.handlers().unwrap();
        for (cpu, nanoseconds) in [(1, 70_000_000), (2, 50_000_000)] {
            let wait = |a: &mut CodeAssembler| {
                load_tables(a, cpu)?;
                a.mov(rax, APIC)?;
                a.mov(dword_ptr(rax + 0x320), TIMER as i32)?;
                a.mov(dword_ptr(rax + 0x3e0), 0xb)?; // each nanosecond
                a.mov(dword_ptr(rax + 0x380), nanoseconds)?;
                if cpu == 1 {
                    a.sti()?; // it is not the last that runs
                    a.hlt()?;
                }
                Ok(())
            };
            program.on_another(cpu as u32, wait).unwrap();
        }
        program.machine(stop)
    };
    let mut ends = Vec::new();
    for way in WAYS {
        let mut machine = program();
        prepare(&mut machine, way);
        let Stop::Idle {
            wake_at_ns: Some(time_ns),
        } = machine.run(1_000_000)
        else {
            panic!("{way:?}: {}", machine.describe());
        };
        assert!((70_000_000..71_000_000).contains(&time_ns), "{time_ns}");
        let rate = machine.clock().rate;
        let clock = Input::Clock(ClockRecord { time_ns, rate });
        machine.inject(&clock).expect("time goes on");
        assert_eq!(machine.run(2_000_000), Stop::Idle { wake_at_ns: None });
        assert_eq!([8, 16].map(|word| peek(&machine, DATA + word)), [1, 0]);
        ends.push((machine.instruction_count(), machine.digest()));
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]));
}

/// SDM volume 3, 11.6: shorthands, physical and logical destinations; each CPU handles what is sent to it, woken
/// from HLT.
#[test]
fn interrupts_reach_the_cpus_that_are_meant_and_no_others() {
    const SELF: u32 = 1 << 18;
    const ALL: u32 = 2 << 18;
    const OTHERS: u32 = 3 << 18;
    let cases: [(u32, u32, [u64; 4]); 9] = [
        (2, FIXED, [0, 0, 1, 0]),
        (0, FIXED, [1, 0, 0, 0]),
        (0xff, FIXED, [1, 1, 1, 1]),
        (0b1010, FIXED | LOGICAL, [0, 1, 0, 1]),
        (0b0001, FIXED | LOGICAL, [1, 0, 0, 0]),
        (0, FIXED | SELF, [1, 0, 0, 0]),
        (0, FIXED | ALL, [1, 1, 1, 1]),
        (0, FIXED | OTHERS, [0, 1, 1, 1]),
        (7, FIXED, [0, 0, 0, 0]),
    ];
    for nonmaskable in [false, true] {
        for (destination, command, expected) in cases {
            let command = match nonmaskable {
                false => command,
                true => command & !0xff | NONMASKABLE,
            };
            let program = || {
                let mut program = Program::new(4);
                program.handlers().unwrap();
                for cpu in 1..4 {
                    let wait = |a: &mut CodeAssembler| {
                        load_tables(a, cpu)?;
                        if !nonmaskable {
                            a.sti()?;
                        }
                        give_turn(a, cpu)?;
                        a.hlt()
                    };
                    program.on_another(cpu as u32, wait).unwrap();
                    await_turn(&mut program.a, cpu).unwrap();
                }
                program.machine(|a| {
                    load_tables(a, 0)?;
                    a.sti()?;
                    send(a, destination, command)?;
                    a.nop()?;
                    // The others wait for ever if they are not meant; their interrupts are off then.
                    compute(a, 1000)?;
                    stop(a)
                })
            };
            let machine = everywhere(program);
            let offset = if nonmaskable { 0x100 } else { 0 };
            let counts = [0, 8, 16, 24].map(|word| peek(&machine, DATA + offset + word));
            assert_eq!(counts, expected, "{destination:#x}, {command:#x}");
        }
    }
}

/// SDM volume 3, 6.7.1: another one waits until the handler has returned; interrupts that can be masked do not
/// matter.
#[test]
fn what_cannot_be_masked_waits_for_the_end_of_its_handler() {
    let program = || {
        let mut program = Program::new(1);
        program.handlers().unwrap();
        let mut nested = program.a.create_label();
        // Another handler: sends itself the next, and stores how deep it is.
        program.gate(2, nested, 0x8e).unwrap();
        program.machine(|a| {
            load_tables(a, 0)?;
            a.xor(r12, r12)?;
            a.xor(r13, r13)?;
            a.xor(r14, r14)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.nop()?;
            a.mov(rax, DATA)?;
            a.mov(qword_ptr(rax), r13)?;
            a.mov(qword_ptr(rax + 8), r14)?;
            stop(a)?;
            a.set_label(&mut nested)?;
            a.inc(r12)?;
            a.cmp(r12, r14)?;
            a.cmova(r14, r12)?;
            a.inc(r13)?;
            a.cmp(r13, 3)?;
            let mut last = a.create_label();
            a.je(last)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.nop()?;
            a.nop()?;
            a.set_label(&mut last)?;
            a.dec(r12)?;
            a.iretq()
        })
    };
    let machine = everywhere(program);
    assert_eq!(peek(&machine, DATA), 3, "times");
    assert_eq!(peek(&machine, DATA + 8), 1, "deep");
}

/// SDM volume 3, 6.7.1: an IRET that faults lets the next one in as well, before the fault's handler begins.
#[test]
fn what_cannot_be_masked_comes_behind_an_iret_that_faults() {
    let program = || {
        let mut program = Program::new(1);
        program.handlers().unwrap();
        let (mut nonmaskable, mut fault) = (program.a.create_label(), program.a.create_label());
        program.gate(2, nonmaskable, 0x8e).unwrap();
        program.gate(13, fault, 0x8e).unwrap();
        program.machine(|a| {
            let mut second = a.create_label();
            load_tables(a, 0)?;
            a.xor(r13, r13)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.nop()?;
            a.ud2()?;
            a.set_label(&mut nonmaskable)?;
            a.inc(r13)?;
            a.cmp(r13, 2)?;
            a.je(second)?;
            send(a, 0, NONMASKABLE | 1 << 18)?;
            a.pushfq()?;
            a.or(dword_ptr(rsp), 0x4000)?; // NT
            a.popfq()?;
            a.set_label(&mut second)?;
            a.iretq()?;
            a.set_label(&mut fault)?;
            a.mov(rax, DATA)?;
            a.mov(qword_ptr(rax), r13)?;
            stop(a)
        })
    };
    assert_eq!(peek(&everywhere(program), DATA), 2);
}

/// Through a trap gate interrupts that can be masked stay let in: one that waits comes before the handler begins.
#[test]
fn a_trap_gate_lets_in_what_waits_behind_what_cannot_be_masked() {
    let program = || {
        let mut program = Program::new(1);
        program.handlers().unwrap();
        let mut nonmaskable = program.a.create_label();
        program.gate(2, nonmaskable, 0x8f).unwrap();
        program.machine(|a| {
            load_tables(a, 0)?;
            send(a, 0, FIXED | 1 << 18)?; // waits
            a.mov(rax, APIC)?;
            a.mov(dword_ptr(rax + 0x310), 0)?;
            a.sti()?;
            a.mov(dword_ptr(rax + 0x300), (NONMASKABLE | 1 << 18) as i32)?; // in the shadow
            a.nop()?;
            a.ud2()?;
            a.set_label(&mut nonmaskable)?;
            a.mov(rax, DATA)?;
            a.mov(rcx, qword_ptr(rax))?;
            a.mov(qword_ptr(rax + 0x40), rcx)?;
            stop(a)
        })
    };
    assert_eq!(peek(&everywhere(program), DATA + 0x40), 1);
}
