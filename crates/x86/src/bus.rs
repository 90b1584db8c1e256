//! What a CPU sees outside itself besides RAM: devices, its local APIC and the time.

use crate::cpuid::Processor;
use crate::ram::Ram;

/// The rest of the PC, to its CPU. `now` is always the machine's instruction count at the instruction
/// that asks; `ram` is for the devices that look into it.
///
/// Devices never reach into a running CPU: after an instruction that touched a device, the CPU asks
/// [`Bus::wants_attention`] and, if so, leaves its run for the machine to look at deadlines and
/// interrupts.
pub trait Bus {
    /// Loads `size` bytes (1, 2, 4 or 8) from a physical address that is not RAM. Where nothing is, all
    /// ones.
    fn read_device(&mut self, ram: &mut Ram, address: u64, size: usize, now: u64) -> u64;

    /// Stores `size` bytes (1, 2, 4 or 8) to a physical address that is not RAM.
    fn write_device(&mut self, ram: &mut Ram, address: u64, size: usize, value: u64, now: u64);

    /// IN of 1, 2 or 4 bytes. Where nothing is, all ones.
    fn read_port(&mut self, ram: &mut Ram, port: u16, size: usize, now: u64) -> u32;

    /// OUT of 1, 2 or 4 bytes.
    fn write_port(&mut self, ram: &mut Ram, port: u16, size: usize, value: u32, now: u64);

    /// Which CPU of how many this is.
    fn processor(&self) -> Processor;

    /// Whether the local APIC has an interrupt that cannot be masked.
    fn has_nonmaskable_interrupt(&self) -> bool;

    /// The CPU takes that.
    fn acknowledge_nonmaskable_interrupt(&mut self);

    /// The vector that the local APIC would deliver now, priorities looked at.
    fn pending_interrupt(&self) -> Option<u8>;

    /// The CPU takes the interrupt that [`Bus::pending_interrupt`] offers: the local APIC moves it
    /// from request to service.
    fn acknowledge_interrupt(&mut self) -> u8;

    /// CR8: the upper four bits of the task priority.
    fn task_priority(&self) -> u8;

    /// A write to CR8.
    fn set_task_priority(&mut self, priority: u8);

    /// The time-stamp counter: a function of the count and the last clock record.
    fn time_stamp_counter(&self, now: u64) -> u64;

    /// WRMSR to IA32_TIME_STAMP_COUNTER: from now on the counter goes on from `value`.
    fn set_time_stamp_counter(&mut self, value: u64, now: u64);

    /// RDMSR of the local APIC's registers (IA32_APIC_BASE, IA32_TSC_DEADLINE, 0x800 to 0x8ff); `None`
    /// is #GP.
    fn read_apic_msr(&mut self, index: u32, now: u64) -> Option<u64>;

    /// WRMSR of the same; `None` is #GP.
    fn write_apic_msr(&mut self, index: u32, value: u64, now: u64) -> Option<()>;

    /// Whether something happened since the machine last looked that may change a deadline, or ends the
    /// machine's run (power-off, reset, an output).
    fn wants_attention(&self) -> bool;
}
