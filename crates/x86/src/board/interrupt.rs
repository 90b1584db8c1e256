//! Interrupt messages, between I/O APIC, devices and local APICs (SDM volume 3, sections 11.6.1 and
//! 11.11).

/// What becomes of a message at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The vector, at every CPU addressed.
    Fixed,
    /// The vector, at one of the CPUs addressed.
    LowestPriority,
    /// System management interrupt.
    SystemManagement,
    /// Non-maskable interrupt.
    NonMaskable,
    /// INIT.
    Init,
    /// Start-up, at page `vector`.
    StartUp,
    /// From an 8259, which this board does not have.
    External,
}

impl DeliveryMode {
    /// From the three bits that all formats share; `None` is reserved.
    pub fn decode(bits: u32) -> Option<DeliveryMode> {
        match bits & 7 {
            0 => Some(DeliveryMode::Fixed),
            1 => Some(DeliveryMode::LowestPriority),
            2 => Some(DeliveryMode::SystemManagement),
            4 => Some(DeliveryMode::NonMaskable),
            5 => Some(DeliveryMode::Init),
            6 => Some(DeliveryMode::StartUp),
            7 => Some(DeliveryMode::External),
            _ => None,
        }
    }
}

/// An interrupt on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// Identity of the local APIC, or a set of logical ones; 0xff is all.
    pub destination: u8,
    /// Whether the destination is logical.
    pub is_logical: bool,
    /// What becomes of it.
    pub mode: DeliveryMode,
    /// Its vector.
    pub vector: u8,
    /// Level-triggered: its end is told to the I/O APIC.
    pub is_level: bool,
}
