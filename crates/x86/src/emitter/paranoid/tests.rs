#[path = "../../../testing/kernel_image.rs"]
mod kernel_image;

use crate::boot::BootImages;
use crate::interpreter::core::Core;
use crate::machine::Machine;
use kernel_image::kernel_image;
use machine::config::{BoardConfig, MachineConfig};
use machine::engine::Engine;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does a wrong to the machine behind the interpreter's back.
pub type Sabotage = fn(&mut Core<'_>);

/// `mov ecx, 100000; l: mov [0x200000 + rcx * 8], rcx; dec ecx; jnz l; hlt; jmp $`, as a kernel.
fn machine() -> Machine {
    let code = [
        0xb9, 0xa0, 0x86, 0x01, 0x00, 0x48, 0x89, 0x0c, 0xcd, 0x00, 0x00, 0x20, 0x00, 0xff, 0xc9,
        0x75, 0xf4, 0xf4, 0xeb, 0xfe,
    ];
    let board = BoardConfig {
        memory_bytes: 16 << 20,
        harts: 1,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let config = MachineConfig {
        board,
        features: Default::default(),
        unix_base_ns: 1 << 60,
    };
    let images = BootImages {
        kernel: kernel_image(0x10_0000, &code),
        ..BootImages::default()
    };
    Machine::new(config, &images).expect("the guest is a kernel")
}

fn watched(sabotage: Option<Sabotage>) -> Machine {
    let mut machine = machine();
    assert_eq!(machine.set_engine(Engine::Paranoid), Engine::Paranoid);
    let paranoid = machine.jit_mut().and_then(super::super::Jit::paranoid_mut);
    paranoid.expect("it watches").sabotage = sabotage;
    machine
}

/// What a watched machine says of a sabotage.
fn report_of(sabotage: Sabotage) -> String {
    let mut machine = watched(Some(sabotage));
    let panic = catch_unwind(AssertUnwindSafe(|| machine.run(50_000)))
        .expect_err("a difference that nobody saw");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn without_a_difference_nothing_is_said_and_the_end_is_the_interpreters() {
    let (mut watched, mut interpreted) = (watched(None), machine());
    watched.run(200_000);
    interpreted.run(200_000);
    assert_eq!(watched.instruction_count(), interpreted.instruction_count());
    assert_eq!(watched.digest(), interpreted.digest());
}

#[test]
fn a_wrong_register_is_told() {
    let report = report_of(|core| core.r[13] ^= 4);
    assert!(
        report.contains("compiled code and the interpreter differ"),
        "{report}"
    );
    assert!(report.contains("0x4"), "{report}");
}

#[test]
fn a_wrong_flag_is_told() {
    let report = report_of(|core| core.flags ^= 1 << 21);
    assert!(report.contains("rflags"), "{report}");
}

#[test]
fn a_lost_store_is_told() {
    let report = report_of(|core| {
        let last = core.r[1] + 1;
        if core.now > 1000 && last < 99_000 {
            core.ram.store(0x20_0000 + 8 * last, 8, 0);
        }
    });
    assert!(report.contains("RAM 0x2"), "{report}");
}

#[test]
fn a_wrong_count_is_told() {
    let report = report_of(|core| core.now += u64::from(core.now > 1000));
    assert!(
        report.contains("compiled code and the interpreter differ"),
        "{report}"
    );
}
