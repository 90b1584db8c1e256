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

/// Memory writes to these 1 MiB are interrupt messages (SDM volume 3, section 11.11.1).
const MESSAGE_BASE: u64 = 0xfee0_0000;
const MESSAGE_SIZE: u64 = 0x10_0000;
const ADDRESS_LOGICAL: u64 = 1 << 2;
const DATA_LEVEL: u32 = 1 << 15;

impl InterruptMessage {
    /// What a device's write to memory means to the local APICs (sections 11.11.1 and 11.11.2); nothing
    /// elsewhere, and of a reserved delivery mode. The redirection hint is not asked: a message of the fixed
    /// mode goes to all that it addresses.
    pub fn of_write(address: u64, data: u32) -> Option<InterruptMessage> {
        if address.wrapping_sub(MESSAGE_BASE) >= MESSAGE_SIZE {
            return None;
        }
        Some(InterruptMessage {
            destination: (address >> 12) as u8,
            is_logical: address & ADDRESS_LOGICAL != 0,
            mode: DeliveryMode::decode(data >> 8)?,
            vector: data as u8,
            // The end of a level is told to an I/O APIC, and this is none.
            is_level: data & DATA_LEVEL != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_11_11_a_write_of_a_device_is_a_message() {
        let message = InterruptMessage::of_write(0xfee0_3004, 0x4141).unwrap();
        let expected = InterruptMessage {
            destination: 3,
            is_logical: true,
            mode: DeliveryMode::LowestPriority,
            vector: 0x41,
            is_level: false,
        };
        assert_eq!(message, expected);
        let message = InterruptMessage::of_write(0xfeef_f000, 0xc030).unwrap();
        assert_eq!((message.destination, message.vector), (0xff, 0x30));
        assert!(message.is_level && !message.is_logical);
        assert_eq!(message.mode, DeliveryMode::Fixed);
    }

    #[test]
    fn section_11_11_writes_elsewhere_and_of_reserved_modes_are_none() {
        for address in [0, 0xfedf_fffc, 0xfef0_0000, 0x1_fee0_0000, u64::MAX] {
            assert_eq!(InterruptMessage::of_write(address, 0x30), None);
        }
        assert_eq!(InterruptMessage::of_write(0xfee0_0000, 0x330), None);
    }
}
