//! The local APIC in xAPIC mode (SDM volume 3, chapter 11), one for each CPU.
//!
//! Its timer counts nanoseconds of guest time, the time-stamp counter as well, so that everything in
//! here is a function of the instruction count and the last clock record.

use super::interrupt::{DeliveryMode, InterruptMessage};
use serde::{Deserialize, Serialize};

/// Where the registers lie after reset (section 11.4.4).
pub const LOCAL_APIC_BASE: u64 = 0xfee0_0000;

const ID: u64 = 0x20;
const VERSION: u64 = 0x30;
const TASK_PRIORITY: u64 = 0x80;
const PROCESSOR_PRIORITY: u64 = 0xa0;
const END_OF_INTERRUPT: u64 = 0xb0;
const LOGICAL_DESTINATION: u64 = 0xd0;
const DESTINATION_FORMAT: u64 = 0xe0;
const SPURIOUS_VECTOR: u64 = 0xf0;
const IN_SERVICE: u64 = 0x100;
const TRIGGER_MODE: u64 = 0x180;
const REQUESTED: u64 = 0x200;
const ERROR_STATUS: u64 = 0x280;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const LVT_FIRST: u64 = 0x320;
const LVT_LAST: u64 = 0x370;
const INITIAL_COUNT: u64 = 0x380;
const CURRENT_COUNT: u64 = 0x390;
const DIVIDE_CONFIGURATION: u64 = 0x3e0;

/// Version 0x14 (integrated), six LVT entries, no suppression of EOI broadcasts.
const VERSION_VALUE: u32 = 0x0005_0014;

const LVT_TIMER: usize = 0;
const LVT_ERROR: usize = 5;
/// What of each LVT entry can be written: timer, thermal, performance, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; 6] = [
    0x0007_00ff,
    0x0001_07ff,
    0x0001_07ff,
    0x0001_a7ff,
    0x0001_a7ff,
    0x0001_00ff,
];
const LVT_MASKED: u32 = 1 << 16;

const SPURIOUS_ENABLE: u32 = 1 << 8;

const ERROR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const ERROR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ERROR_ILLEGAL_REGISTER: u32 = 1 << 7;

const BASE_IS_BOOT_PROCESSOR: u64 = 1 << 8;
const BASE_ENABLE: u64 = 1 << 11;
/// The address bits that can be written: 2^40 bytes are enough for everyone on this board.
const BASE_ADDRESS: u64 = 0x0000_00ff_ffff_f000;

/// How the timer counts (section 11.5.4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum TimerMode {
    OneShot,
    Periodic,
    Deadline,
    Reserved,
}

/// 256 bits, one for each vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors([u64; 4]);

impl Vectors {
    fn set(&mut self, vector: u8, value: bool) {
        let word = &mut self.0[usize::from(vector >> 6)];
        *word = *word & !(1 << (vector & 63)) | u64::from(value) << (vector & 63);
    }

    fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    fn highest(&self) -> Option<u8> {
        (0..4u8)
            .rev()
            .find(|&word| self.0[usize::from(word)] != 0)
            .map(|word| word * 64 + 63 - self.0[usize::from(word)].leading_zeros() as u8)
    }

    /// The 32 bits of one register of the eight.
    fn register(&self, index: u64) -> u32 {
        (self.0[(index / 2) as usize & 3] >> (32 * (index % 2))) as u32
    }
}

/// What a write asks of the board around the APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// A level-triggered interrupt with this vector ended: the I/O APIC is told (section 11.8.5).
    EndOfLevel(u8),
    /// An interrupt goes to other CPUs, or to this one.
    Send(InterruptMessage, Shorthand),
}

/// Whom an interrupt command names (section 11.6.1, destination shorthand).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// The destination in the message.
    Destination,
    /// The sender.
    Itself,
    /// All CPUs.
    All,
    /// All CPUs but the sender.
    Others,
}

/// One CPU's local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApic {
    id: u8,
    /// IA32_APIC_BASE.
    base: u64,
    task_priority: u8,
    logical_destination: u8,
    destination_format: u8,
    spurious: u32,
    requested: Vectors,
    in_service: Vectors,
    /// Which of the requested and serviced interrupts are level-triggered.
    level: Vectors,
    /// What a read of the error status gives, and what was found since it was last written.
    error_status: u32,
    errors: u32,
    command: u64,
    lvt: [u32; 6],
    initial_count: u32,
    divide_configuration: u32,
    /// When the count-down began (one-shot and periodic).
    timer_start_ns: u64,
    /// When it ends; `None` if the timer is stopped.
    timer_end_ns: Option<u64>,
    /// IA32_TSC_DEADLINE as written; 0 is disarmed.
    deadline: u64,
    /// An interrupt that cannot be masked waits for the CPU.
    nonmaskable: bool,
    /// The time-stamp counter is guest time in nanoseconds plus this (wrapping); it is what
    /// IA32_TSC_ADJUST reads.
    tsc_offset: u64,
}

impl LocalApic {
    /// As after reset (section 11.4.7.1), globally enabled. CPU 0 is the boot processor.
    pub fn new(id: u8) -> LocalApic {
        let boot = if id == 0 { BASE_IS_BOOT_PROCESSOR } else { 0 };
        LocalApic {
            id,
            base: LOCAL_APIC_BASE | BASE_ENABLE | boot,
            task_priority: 0,
            logical_destination: 0,
            destination_format: 0xf,
            spurious: 0xff,
            requested: Vectors::default(),
            in_service: Vectors::default(),
            level: Vectors::default(),
            error_status: 0,
            errors: 0,
            command: 0,
            lvt: [LVT_MASKED; 6],
            initial_count: 0,
            divide_configuration: 0,
            timer_start_ns: 0,
            timer_end_ns: None,
            deadline: 0,
            nonmaskable: false,
            tsc_offset: 0,
        }
    }

    /// Whether `address` is one of this APIC's registers, and which.
    pub fn offset(&self, address: u64) -> Option<u64> {
        let is_on = self.base & BASE_ENABLE != 0;
        let offset = address.wrapping_sub(self.base & BASE_ADDRESS);
        (is_on && offset < 0x1000).then_some(offset)
    }

    /// Reads the register at `offset`; those between the multiples of 16 read as zero (section
    /// 11.4.1).
    pub fn read(&mut self, offset: u64, now_ns: u64) -> u32 {
        if !offset.is_multiple_of(16) {
            return 0;
        }
        match offset {
            ID => u32::from(self.id) << 24,
            VERSION => VERSION_VALUE,
            TASK_PRIORITY => u32::from(self.task_priority),
            PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            LOGICAL_DESTINATION => u32::from(self.logical_destination) << 24,
            DESTINATION_FORMAT => u32::from(self.destination_format) << 28 | 0x0fff_ffff,
            SPURIOUS_VECTOR => self.spurious,
            IN_SERVICE..TRIGGER_MODE => self.in_service.register((offset - IN_SERVICE) / 16),
            TRIGGER_MODE..REQUESTED => self.level.register((offset - TRIGGER_MODE) / 16),
            REQUESTED..ERROR_STATUS => self.requested.register((offset - REQUESTED) / 16),
            ERROR_STATUS => self.error_status,
            COMMAND_LOW => self.command as u32,
            COMMAND_HIGH => (self.command >> 32) as u32,
            LVT_FIRST..=LVT_LAST => self.lvt[((offset - LVT_FIRST) / 16) as usize],
            INITIAL_COUNT => self.initial_count,
            CURRENT_COUNT => self.current_count(now_ns),
            DIVIDE_CONFIGURATION => self.divide_configuration,
            _ => {
                self.raise_error(ERROR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the register at `offset`; between the registers nothing happens.
    pub fn write(&mut self, offset: u64, value: u32, now_ns: u64) -> Effect {
        if !offset.is_multiple_of(16) {
            return Effect::None;
        }
        match offset {
            TASK_PRIORITY => self.task_priority = value as u8,
            END_OF_INTERRUPT => return self.end_of_interrupt(),
            LOGICAL_DESTINATION => self.logical_destination = (value >> 24) as u8,
            DESTINATION_FORMAT => self.destination_format = (value >> 28) as u8,
            SPURIOUS_VECTOR => self.write_spurious(value),
            ERROR_STATUS => self.error_status = std::mem::take(&mut self.errors),
            COMMAND_LOW => return self.write_command(value),
            COMMAND_HIGH => {
                self.command = self.command & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            LVT_FIRST..=LVT_LAST => {
                self.write_lvt(((offset - LVT_FIRST) / 16) as usize, value);
            }
            INITIAL_COUNT => self.write_initial_count(value, now_ns),
            DIVIDE_CONFIGURATION => self.write_divide_configuration(value, now_ns),
            // Read-only: identity, version, priorities, the three sets, the current count.
            ID | VERSION | PROCESSOR_PRIORITY | IN_SERVICE..ERROR_STATUS | CURRENT_COUNT => {}
            _ => self.raise_error(ERROR_ILLEGAL_REGISTER),
        }
        Effect::None
    }

    /// RDMSR of IA32_APIC_BASE, IA32_TSC_ADJUST and IA32_TSC_DEADLINE; `None` is #GP, as for the
    /// registers of x2APIC mode, which is not announced.
    pub fn read_msr(&self, index: u32) -> Option<u64> {
        match index {
            MSR_APIC_BASE => Some(self.base),
            MSR_TSC_ADJUST => Some(self.tsc_offset),
            MSR_TSC_DEADLINE => Some(self.deadline),
            _ => None,
        }
    }

    /// WRMSR of the same.
    pub fn write_msr(&mut self, index: u32, value: u64, now_ns: u64) -> Option<()> {
        match index {
            MSR_APIC_BASE => {
                if value & !(BASE_ADDRESS | BASE_ENABLE | BASE_IS_BOOT_PROCESSOR) != 0 {
                    return None;
                }
                if value & BASE_ENABLE == 0 {
                    // Section 11.4.7.4: enabled again, it is as after reset.
                    let offset = self.tsc_offset;
                    *self = LocalApic::new(self.id);
                    self.tsc_offset = offset;
                }
                self.base = value & !BASE_IS_BOOT_PROCESSOR | self.base & BASE_IS_BOOT_PROCESSOR;
            }
            MSR_TSC_ADJUST => self.set_tsc_offset(value, now_ns),
            MSR_TSC_DEADLINE => {
                // Section 11.5.4.1: ignored in the other modes.
                if self.timer_mode() == TimerMode::Deadline {
                    self.arm_deadline(value, now_ns);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// The time-stamp counter.
    pub fn time_stamp_counter(&self, now_ns: u64) -> u64 {
        now_ns.wrapping_add(self.tsc_offset)
    }

    /// The time-stamp counter goes on from `value`.
    pub fn set_time_stamp_counter(&mut self, value: u64, now_ns: u64) {
        self.set_tsc_offset(value.wrapping_sub(now_ns), now_ns);
    }

    fn set_tsc_offset(&mut self, offset: u64, now_ns: u64) {
        self.tsc_offset = offset;
        if self.timer_mode() == TimerMode::Deadline {
            self.arm_deadline(self.deadline, now_ns);
        }
    }

    /// CR8 (section 11.8.6): the upper half of the task priority.
    pub fn task_priority(&self) -> u8 {
        self.task_priority >> 4
    }

    /// MOV to CR8.
    pub fn set_task_priority(&mut self, priority: u8) {
        self.task_priority = priority << 4;
    }

    /// The vector that goes to the CPU now, if it lets interrupts in: the highest requested one of a
    /// class above the processor priority (section 11.8.3.1).
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// The CPU takes what [`LocalApic::pending`] offers (section 11.8.4).
    ///
    /// # Panics
    /// When nothing is offered.
    pub fn acknowledge(&mut self) -> u8 {
        let vector = self
            .pending()
            .expect("the CPU acknowledges only an interrupt that is offered");
        self.requested.set(vector, false);
        self.in_service.set(vector, true);
        vector
    }

    /// Whether a message is for this CPU (sections 11.6.2.1 and 11.6.2.2).
    pub fn is_addressed(&self, message: &InterruptMessage) -> bool {
        if message.destination == 0xff {
            return true;
        }
        if !message.is_logical {
            return message.destination == self.id;
        }
        match self.destination_format {
            0xf => message.destination & self.logical_destination != 0,
            _ => {
                message.destination >> 4 == self.logical_destination >> 4
                    && message.destination & self.logical_destination & 0xf != 0
            }
        }
    }

    /// Takes an interrupt message. There is no system management, no INIT and no start-up: CPUs start as
    /// [`super::wakeup`] says.
    pub fn accept(&mut self, message: &InterruptMessage) {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if message.vector < 16 => {
                self.raise_error(ERROR_RECEIVE_ILLEGAL_VECTOR);
            }
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                self.request(message.vector, message.is_level);
            }
            DeliveryMode::NonMaskable => self.nonmaskable = true,
            DeliveryMode::SystemManagement
            | DeliveryMode::Init
            | DeliveryMode::StartUp
            | DeliveryMode::External => {}
        }
    }

    /// Whether an interrupt that cannot be masked waits for the CPU.
    #[inline]
    pub fn has_nonmaskable(&self) -> bool {
        self.nonmaskable
    }

    /// The CPU takes it, or begins without it.
    pub fn clear_nonmaskable(&mut self) {
        self.nonmaskable = false;
    }

    /// Guest time at which [`LocalApic::time_passed`] has something to do.
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.timer_end_ns
    }

    /// Guest time is `now_ns`: the timer may have run down.
    pub fn time_passed(&mut self, now_ns: u64) {
        let Some(end_ns) = self.timer_end_ns.filter(|&end| end <= now_ns) else {
            return;
        };
        self.timer_end_ns = None;
        match self.timer_mode() {
            TimerMode::Periodic => {
                // The periods that are already over raise the same vector once.
                let period = self.period_ns();
                if let Some(missed) = (now_ns - end_ns).checked_div(period) {
                    self.timer_start_ns = end_ns.saturating_add(missed * period);
                    self.timer_end_ns = self.timer_start_ns.checked_add(period);
                }
            }
            TimerMode::Deadline => self.deadline = 0,
            TimerMode::OneShot | TimerMode::Reserved => {}
        }
        self.raise_lvt(LVT_TIMER);
    }

    /// Section 11.8.3.1, figure 11-18.
    fn processor_priority(&self) -> u8 {
        let serviced = self.in_service.highest().unwrap_or(0) & 0xf0;
        if self.task_priority >> 4 >= serviced >> 4 {
            self.task_priority
        } else {
            serviced
        }
    }

    fn request(&mut self, vector: u8, is_level: bool) {
        // Section 11.4.7.2: software-disabled, it keeps what it has and takes nothing more.
        if self.spurious & SPURIOUS_ENABLE == 0 {
            return;
        }
        self.requested.set(vector, true);
        self.level.set(vector, is_level);
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.in_service.highest() else {
            return Effect::None;
        };
        self.in_service.set(vector, false);
        if self.level.has(vector) {
            Effect::EndOfLevel(vector)
        } else {
            Effect::None
        }
    }

    fn write_spurious(&mut self, value: u32) {
        self.spurious = value & 0x3ff;
        if self.spurious & SPURIOUS_ENABLE == 0 {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
        }
    }

    /// Section 11.6.1: a write of the low half sends.
    fn write_command(&mut self, value: u32) -> Effect {
        // The delivery status stays clear: it is sent at once.
        self.command = self.command & !0xffff_ffff | u64::from(value & 0x000c_cfff);
        let shorthand = match value >> 18 & 3 {
            0 => Shorthand::Destination,
            1 => Shorthand::Itself,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        let Some(mode) = DeliveryMode::decode(value >> 8) else {
            return Effect::None;
        };
        let message = InterruptMessage {
            destination: (self.command >> 56) as u8,
            is_logical: value & 1 << 11 != 0,
            mode,
            vector: value as u8,
            is_level: false,
        };
        if message.vector < 16 && matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority)
        {
            self.raise_error(ERROR_SEND_ILLEGAL_VECTOR);
            return Effect::None;
        }
        Effect::Send(message, shorthand)
    }

    fn write_lvt(&mut self, entry: usize, value: u32) {
        let was = self.timer_mode();
        let mut value = value & LVT_WRITABLE[entry];
        if self.spurious & SPURIOUS_ENABLE == 0 {
            value |= LVT_MASKED;
        }
        self.lvt[entry] = value;
        let is = self.timer_mode();
        if (was == TimerMode::Deadline) != (is == TimerMode::Deadline) {
            // Section 11.5.4.1: a change to or from deadline mode disarms.
            self.timer_end_ns = None;
            self.deadline = 0;
            self.initial_count = 0;
        }
    }

    fn timer_mode(&self) -> TimerMode {
        match self.lvt[LVT_TIMER] >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::Deadline,
            _ => TimerMode::Reserved,
        }
    }

    /// Nanoseconds of one step of the count-down: figure 11-10, a timer clock of 1 GHz.
    fn divisor(&self) -> u64 {
        let code = self.divide_configuration & 3 | self.divide_configuration >> 1 & 4;
        1 << ((code + 1) & 7)
    }

    fn period_ns(&self) -> u64 {
        u64::from(self.initial_count) * self.divisor()
    }

    fn write_initial_count(&mut self, value: u32, now_ns: u64) {
        if self.timer_mode() == TimerMode::Deadline {
            return; // section 11.5.4.1
        }
        self.initial_count = value;
        self.timer_start_ns = now_ns;
        self.timer_end_ns = match value {
            0 => None,
            _ => now_ns.checked_add(self.period_ns()),
        };
    }

    /// The count-down goes on from where it is at the new speed.
    fn write_divide_configuration(&mut self, value: u32, now_ns: u64) {
        let current = u64::from(self.current_count(now_ns));
        self.divide_configuration = value & 0b1011;
        if self.timer_end_ns.is_some() && self.timer_mode() != TimerMode::Deadline {
            let end = now_ns.saturating_add(current * self.divisor());
            self.timer_end_ns = Some(end);
            self.timer_start_ns = end.saturating_sub(self.period_ns());
        }
    }

    fn current_count(&self, now_ns: u64) -> u32 {
        match self.timer_end_ns {
            Some(end) if self.timer_mode() != TimerMode::Deadline => {
                let left = end.saturating_sub(now_ns).div_ceil(self.divisor());
                u32::try_from(left).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }

    fn arm_deadline(&mut self, deadline: u64, now_ns: u64) {
        self.deadline = deadline;
        self.timer_end_ns = match deadline {
            0 => None,
            _ => {
                let counter = self.time_stamp_counter(now_ns);
                // What is over fires at once.
                now_ns.checked_add(deadline.saturating_sub(counter))
            }
        };
    }

    fn raise_lvt(&mut self, entry: usize) {
        let value = self.lvt[entry];
        if value & LVT_MASKED != 0 {
            return;
        }
        if value as u8 >= 16 {
            self.request(value as u8, false);
        } else if entry == LVT_ERROR {
            self.errors |= ERROR_RECEIVE_ILLEGAL_VECTOR;
        } else {
            self.raise_error(ERROR_RECEIVE_ILLEGAL_VECTOR);
        }
    }

    /// Section 11.5.3: errors are collected, and the LVT's error entry says so.
    fn raise_error(&mut self, error: u32) {
        let is_new = self.errors & error == 0;
        self.errors |= error;
        if is_new {
            self.raise_lvt(LVT_ERROR);
        }
    }
}

const MSR_APIC_BASE: u32 = 0x1b;
const MSR_TSC_ADJUST: u32 = 0x3b;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

#[cfg(test)]
mod tests;
