use super::*;

/// Software-enabled, as the kernel does first.
fn enabled() -> LocalApic {
    let mut apic = LocalApic::new(0);
    apic.write(SPURIOUS_VECTOR, 0x1ff, 0);
    apic
}

fn fixed(vector: u8, is_level: bool) -> InterruptMessage {
    InterruptMessage {
        destination: 0,
        is_logical: false,
        mode: DeliveryMode::Fixed,
        vector,
        is_level,
    }
}

const LVT_TIMER_REGISTER: u64 = 0x320;
const LVT_ERROR_REGISTER: u64 = 0x370;

#[test]
fn section_11_4_7_1_state_after_reset() {
    let mut apic = LocalApic::new(3);
    assert_eq!(apic.read(ID, 0), 3 << 24);
    assert_eq!(apic.read(VERSION, 0), 0x0005_0014);
    assert_eq!(apic.read(SPURIOUS_VECTOR, 0), 0xff);
    assert_eq!(apic.read(DESTINATION_FORMAT, 0), 0xffff_ffff);
    for entry in (LVT_FIRST..=LVT_LAST).step_by(16) {
        assert_eq!(apic.read(entry, 0), 0x1_0000, "entry {entry:#x}");
    }
    assert_eq!(apic.read_msr(MSR_APIC_BASE), Some(0xfee0_0800));
    assert_eq!(LocalApic::new(0).read_msr(MSR_APIC_BASE), Some(0xfee0_0900));
}

#[test]
fn section_11_4_4_the_base_moves_and_x2apic_is_refused() {
    let mut apic = enabled();
    assert_eq!(apic.offset(0xfee0_0020), Some(ID));
    assert_eq!(apic.write_msr(MSR_APIC_BASE, 0xfed0_0800, 0), Some(()));
    assert_eq!(apic.offset(0xfee0_0020), None);
    assert_eq!(apic.offset(0xfed0_0020), Some(ID));
    assert_eq!(apic.write_msr(MSR_APIC_BASE, 0xfee0_0c00, 0), None);
    assert_eq!(apic.read_msr(0x802), None);
    assert_eq!(apic.write_msr(MSR_APIC_BASE, 0xfee0_0000, 0), Some(()));
    assert_eq!(apic.offset(0xfee0_0020), None);
    assert_eq!(apic.read(SPURIOUS_VECTOR, 0), 0xff);
}

#[test]
fn section_11_4_7_2_software_disabled_it_takes_nothing_and_masks_the_lvt() {
    let mut apic = LocalApic::new(0);
    apic.accept(&fixed(0x40, false));
    assert_eq!(apic.pending(), None);
    apic.write(LVT_TIMER_REGISTER, 0x40, 0);
    assert_eq!(apic.read(LVT_TIMER_REGISTER, 0), 0x1_0040);
}

#[test]
fn section_11_8_3_1_only_a_class_above_the_processor_priority_is_offered() {
    let mut apic = enabled();
    apic.accept(&fixed(0x41, false));
    apic.write(TASK_PRIORITY, 0x40, 0);
    assert_eq!(apic.pending(), None);
    apic.set_task_priority(3);
    assert_eq!(apic.read(TASK_PRIORITY, 0), 0x30);
    assert_eq!(apic.pending(), Some(0x41));
    assert_eq!(apic.acknowledge(), 0x41);
    assert_eq!(apic.read(PROCESSOR_PRIORITY, 0), 0x40);
    apic.accept(&fixed(0x4f, false));
    assert_eq!(apic.pending(), None);
    apic.accept(&fixed(0x50, false));
    assert_eq!(apic.pending(), Some(0x50));
}

#[test]
fn section_11_8_4_request_and_service_registers() {
    let mut apic = enabled();
    apic.accept(&fixed(0x61, true));
    assert_eq!(apic.read(REQUESTED + 0x30, 0), 1 << 1);
    assert_eq!(apic.read(TRIGGER_MODE + 0x30, 0), 1 << 1);
    apic.acknowledge();
    assert_eq!(apic.read(REQUESTED + 0x30, 0), 0);
    assert_eq!(apic.read(IN_SERVICE + 0x30, 0), 1 << 1);
}

#[test]
fn section_11_8_5_the_end_goes_to_the_io_apic_for_levels_only() {
    let mut apic = enabled();
    assert_eq!(apic.write(END_OF_INTERRUPT, 0, 0), Effect::None);
    apic.accept(&fixed(0x61, true));
    apic.acknowledge();
    apic.accept(&fixed(0x71, false));
    apic.acknowledge();
    assert_eq!(apic.write(END_OF_INTERRUPT, 0, 0), Effect::None);
    assert_eq!(apic.write(END_OF_INTERRUPT, 0, 0), Effect::EndOfLevel(0x61));
    assert_eq!(apic.read(PROCESSOR_PRIORITY, 0), 0);
}

#[test]
fn section_11_6_1_commands() {
    let mut apic = enabled();
    apic.write(COMMAND_HIGH, 0x0200_0000, 0);
    let Effect::Send(message, Shorthand::Destination) = apic.write(COMMAND_LOW, 0x0000_00fd, 0)
    else {
        panic!("not sent");
    };
    assert_eq!((message.destination, message.vector), (2, 0xfd));
    let Effect::Send(message, Shorthand::Itself) = apic.write(COMMAND_LOW, 0x0004_00f6, 0) else {
        panic!("not sent");
    };
    assert_eq!(message.vector, 0xf6);
    assert_eq!(apic.read(COMMAND_LOW, 0), 0x0004_00f6);
    let Effect::Send(message, Shorthand::Others) = apic.write(COMMAND_LOW, 0x000c_4500, 0) else {
        panic!("not sent");
    };
    assert_eq!(message.mode, DeliveryMode::Init);
}

#[test]
fn section_11_6_2_2_logical_destinations() {
    let mut apic = enabled();
    apic.write(LOGICAL_DESTINATION, 0x0200_0000, 0);
    let mut message = fixed(0x40, false);
    message.is_logical = true;
    message.destination = 0x03;
    assert!(apic.is_addressed(&message));
    message.destination = 0x04;
    assert!(!apic.is_addressed(&message));
    apic.write(DESTINATION_FORMAT, 0x0fff_ffff, 0); // cluster model
    apic.write(LOGICAL_DESTINATION, 0x2100_0000, 0);
    message.destination = 0x23;
    assert!(apic.is_addressed(&message));
    message.destination = 0x13;
    assert!(!apic.is_addressed(&message));
}

#[test]
fn section_11_5_3_illegal_vectors_and_registers_are_reported() {
    let mut apic = enabled();
    apic.write(LVT_ERROR_REGISTER, 0xfe, 0);
    apic.accept(&fixed(0x05, false));
    assert_eq!(apic.pending(), Some(0xfe));
    assert_eq!(apic.read(ERROR_STATUS, 0), 0);
    apic.write(ERROR_STATUS, 0, 0);
    assert_eq!(apic.read(ERROR_STATUS, 0), ERROR_RECEIVE_ILLEGAL_VECTOR);
    apic.read(0x3f0, 0);
    assert_eq!(apic.write(COMMAND_LOW, 0x0000_0004, 0), Effect::None);
    apic.write(ERROR_STATUS, 0, 0);
    let errors = ERROR_ILLEGAL_REGISTER | ERROR_SEND_ILLEGAL_VECTOR;
    assert_eq!(apic.read(ERROR_STATUS, 0), errors);
}

#[test]
fn section_11_5_4_one_shot() {
    let mut apic = enabled();
    apic.write(LVT_TIMER_REGISTER, 0xec, 0);
    apic.write(DIVIDE_CONFIGURATION, 0x3, 0); // by 16
    apic.write(INITIAL_COUNT, 100, 1000);
    assert_eq!(apic.next_timer_ns(), Some(2600));
    assert_eq!(apic.read(CURRENT_COUNT, 1000), 100);
    assert_eq!(apic.read(CURRENT_COUNT, 1016), 99);
    assert_eq!(apic.read(CURRENT_COUNT, 2599), 1);
    apic.time_passed(2599);
    assert_eq!(apic.pending(), None);
    apic.time_passed(2600);
    assert_eq!(apic.pending(), Some(0xec));
    assert_eq!(apic.next_timer_ns(), None);
    assert_eq!(apic.read(CURRENT_COUNT, 2600), 0);
}

#[test]
fn section_11_5_4_every_divisor() {
    for (code, divisor) in [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
        (0b1011, 1),
    ] {
        let mut apic = enabled();
        apic.write(DIVIDE_CONFIGURATION, code, 0);
        apic.write(INITIAL_COUNT, 10, 0);
        assert_eq!(apic.next_timer_ns(), Some(10 * divisor), "code {code:#b}");
    }
}

#[test]
fn section_11_5_4_periodic_keeps_its_phase() {
    let mut apic = enabled();
    apic.write(LVT_TIMER_REGISTER, 0x2_00ec, 0);
    apic.write(DIVIDE_CONFIGURATION, 0xb, 0);
    apic.write(INITIAL_COUNT, 1000, 500);
    apic.time_passed(1500);
    assert_eq!(apic.next_timer_ns(), Some(2500));
    // A clock record may move time over several periods.
    apic.time_passed(5700);
    assert_eq!(apic.next_timer_ns(), Some(6500));
    assert_eq!(apic.read(CURRENT_COUNT, 5700), 800);
    apic.write(INITIAL_COUNT, 0, 5800);
    assert_eq!(apic.next_timer_ns(), None);
}

#[test]
fn section_11_5_4_a_masked_timer_runs_and_does_not_interrupt() {
    let mut apic = enabled();
    apic.write(LVT_TIMER_REGISTER, 0x1_00ec, 0);
    apic.write(INITIAL_COUNT, 10, 0);
    apic.time_passed(20);
    assert_eq!(apic.next_timer_ns(), None);
    assert_eq!(apic.pending(), None);
}

#[test]
fn section_11_5_4_1_deadline() {
    let mut apic = enabled();
    assert_eq!(apic.write_msr(MSR_TSC_DEADLINE, 900, 0), Some(()));
    assert_eq!(apic.read_msr(MSR_TSC_DEADLINE), Some(0)); // another mode
    apic.write(LVT_TIMER_REGISTER, 0x4_00ec, 0);
    apic.write_msr(MSR_TSC_DEADLINE, 900, 100);
    assert_eq!(apic.next_timer_ns(), Some(900));
    apic.write(INITIAL_COUNT, 5, 100); // ignored in this mode
    assert_eq!(apic.next_timer_ns(), Some(900));
    apic.time_passed(900);
    assert_eq!(apic.pending(), Some(0xec));
    assert_eq!(apic.read_msr(MSR_TSC_DEADLINE), Some(0));
    apic.acknowledge();
    apic.write_msr(MSR_TSC_DEADLINE, 800, 1000); // over already
    assert_eq!(apic.next_timer_ns(), Some(1000));
    apic.write_msr(MSR_TSC_DEADLINE, 0, 1000);
    assert_eq!(apic.next_timer_ns(), None);
    apic.write_msr(MSR_TSC_DEADLINE, 5000, 1000);
    apic.write(LVT_TIMER_REGISTER, 0xec, 1000);
    assert_eq!(apic.next_timer_ns(), None);
}

#[test]
fn section_18_17_3_the_counter_is_guest_time_plus_what_was_written() {
    let mut apic = enabled();
    assert_eq!(apic.time_stamp_counter(123), 123);
    apic.write(LVT_TIMER_REGISTER, 0x4_00ec, 0);
    apic.write_msr(MSR_TSC_DEADLINE, 1500, 1000);
    apic.set_time_stamp_counter(0, 1000);
    assert_eq!(apic.time_stamp_counter(1400), 400);
    assert_eq!(apic.read_msr(MSR_TSC_ADJUST), Some(1000u64.wrapping_neg()));
    assert_eq!(apic.next_timer_ns(), Some(2500));
    apic.write_msr(MSR_TSC_ADJUST, 0, 1100);
    assert_eq!(apic.time_stamp_counter(1400), 1400);
    assert_eq!(apic.next_timer_ns(), Some(1500));
}
