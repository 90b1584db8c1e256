//! Whose turn it is, and what is atomic.

use super::*;

/// More than a turn each, with and without LOCK: the instruction is what is atomic here.
#[test]
fn additions_of_several_cpus_add_up() {
    const TIMES: u64 = 70_000;
    let add = |a: &mut CodeAssembler| {
        let (mut again, mut retry) = (a.create_label(), a.create_label());
        a.mov(rbx, DATA)?;
        a.mov(rcx, TIMES)?;
        a.mov(edx, 1)?;
        a.set_label(&mut again)?;
        a.mov(esi, 1)?;
        a.lock().xadd(qword_ptr(rbx), rsi)?;
        a.lock().inc(dword_ptr(rbx + 8))?;
        a.mov(rax, qword_ptr(rbx + 16))?;
        a.set_label(&mut retry)?;
        a.lea(rsi, ptr(rax + 1))?;
        a.lock().cmpxchg(qword_ptr(rbx + 16), rsi)?;
        a.jne(retry)?;
        a.dec(rcx)?;
        a.jnz(again)
    };
    let program = || {
        let mut program = Program::new(3);
        program.on_another(1, add).unwrap();
        program.on_another(2, add).unwrap();
        program.machine(|a| add(a).and_then(|()| stop(a)))
    };
    let machine = everywhere(program);
    for word in [0, 8, 16] {
        assert_eq!(peek(&machine, DATA + word), 3 * TIMES, "word {word}");
    }
}

/// Who waits for another CPU lets it run: few instructions are spent on it. Each CPU computes for most of a turn in
/// between.
#[test]
fn pause_ends_the_turn_of_a_cpu() {
    let program = || {
        let mut program = Program::new(2);
        let answer = |a: &mut CodeAssembler| {
            for turn in [1, 3, 5] {
                await_turn(a, turn)?;
                compute(a, 100_000)?;
                give_turn(a, turn + 1)?;
            }
            Ok(())
        };
        program.on_another(1, answer).unwrap();
        program.machine(|a| {
            for turn in [1, 3, 5] {
                give_turn(a, turn)?;
                await_turn(a, turn + 1)?;
            }
            stop(a)
        })
    };
    let machine = everywhere(program);
    let count = machine.instruction_count();
    assert!((300_000..301_000).contains(&count), "{count}");
}

/// A CPU that halts gives its turn on at once, and a turn is as long as it is said to be.
#[test]
fn turns_end_where_they_are_said_to() {
    let program = || {
        let mut program = Program::new(3);
        let forever = |a: &mut CodeAssembler| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.inc(rbx)?;
            a.jmp(again)
        };
        program.on_another(1, forever).unwrap();
        program.on_another(2, forever).unwrap();
        program.machine(stop)
    };
    for way in WAYS {
        let mut machine = program();
        prepare(&mut machine, way);
        while machine.next_hart() != Some(1) {
            assert_eq!(machine.run(machine.instruction_count() + 1), Stop::Reached);
        }
        // The first CPU has just halted.
        let begin = machine.instruction_count();
        assert!(begin < 100, "{begin}");
        for (turn, cpu) in [1, 2, 1, 2, 1].into_iter().enumerate() {
            let end = begin + SLICE * (turn as u64 + 1);
            for (until, expected) in [(end - 1, cpu), (end, 3 - cpu)] {
                assert_eq!(machine.run(until), Stop::Reached);
                assert_eq!(machine.next_hart(), Some(expected), "{way:?} at {until}");
            }
        }
    }
}
