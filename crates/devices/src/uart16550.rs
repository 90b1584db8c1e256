//! A 16550A UART at the speed of light: what is written to it is transmitted at once.
//!
//! Registers as in the National Semiconductor PC16550D data sheet, sections 8.1 to 8.10. What the
//! guest does not read waits in a queue that is longer than the chip's 16 bytes, so that a paste
//! is not lost.

use machine::input::Console;
use machine::output::Outputs;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Input bytes that wait at most; what comes on top is lost, as on a line without flow control.
pub const RECEIVE_QUEUE_BYTES: usize = 4096;

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
const IER_LINE_STATUS: u8 = 1 << 2;

const IIR_NONE: u8 = 0x01;
const IIR_TRANSMITTER_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE_STATUS: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFO_ENABLED: u8 = 0xc0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_RESET_RECEIVER: u8 = 1 << 1;

const LCR_DIVISOR_LATCH: u8 = 1 << 7;

const MCR_LOOPBACK: u8 = 1 << 4;

const LSR_DATA_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_TRANSMITTER_EMPTY: u8 = 1 << 5 | 1 << 6;

/// Carrier, data set ready and clear to send: somebody listens.
const MSR_CONNECTED: u8 = 0xb0;

/// The UART's registers and its receive queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uart16550 {
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: u16,
    overrun: bool,
    /// The transmitter became empty since the interrupt was last acknowledged.
    transmitter_interrupt: bool,
    received: VecDeque<u8>,
}

impl Uart16550 {
    /// Level of the interrupt line.
    pub fn interrupt(&self) -> bool {
        self.interrupt_identification() != IIR_NONE
    }

    /// Bytes from the line.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.modem_control & MCR_LOOPBACK != 0 {
            return; // the receiver is disconnected from the line
        }
        for &byte in bytes {
            self.receive_byte(byte);
        }
    }

    /// Reads the register at `offset`.
    pub fn read(&mut self, offset: u64) -> u8 {
        let divisor_latch = self.line_control & LCR_DIVISOR_LATCH != 0;
        match offset {
            0 if divisor_latch => self.divisor as u8,
            0 => self.received.pop_front().unwrap_or(0),
            1 if divisor_latch => (self.divisor >> 8) as u8,
            1 => self.interrupt_enable,
            2 => self.read_interrupt_identification(),
            3 => self.line_control,
            4 => self.modem_control,
            5 => self.read_line_status(),
            6 => self.modem_status(),
            7 => self.scratch,
            _ => 0,
        }
    }

    /// Writes the register at `offset`.
    pub fn write(&mut self, offset: u64, value: u8, outputs: &mut Outputs) {
        let divisor_latch = self.line_control & LCR_DIVISOR_LATCH != 0;
        match offset {
            0 if divisor_latch => self.divisor = self.divisor & 0xff00 | u16::from(value),
            0 => self.transmit(value, outputs),
            1 if divisor_latch => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            1 => {
                let value = value & 0x0f;
                let newly = value & !self.interrupt_enable;
                self.transmitter_interrupt |= newly & IER_TRANSMITTER_EMPTY != 0;
                self.interrupt_enable = value;
            }
            2 => self.write_fifo_control(value),
            3 => self.line_control = value,
            4 => self.modem_control = value & 0x1f,
            7 => self.scratch = value,
            _ => {} // line and modem status are read-only
        }
    }

    fn receive_byte(&mut self, byte: u8) {
        if self.received.len() < RECEIVE_QUEUE_BYTES {
            self.received.push_back(byte);
        } else {
            self.overrun = true;
        }
    }

    fn transmit(&mut self, byte: u8, outputs: &mut Outputs) {
        if self.modem_control & MCR_LOOPBACK != 0 {
            self.receive_byte(byte);
        } else {
            outputs.console_byte(Console::Uart, byte);
        }
        self.transmitter_interrupt = true;
    }

    fn write_fifo_control(&mut self, value: u8) {
        // Section 8.3: switching the FIFOs on or off clears them.
        let switched = (value ^ self.fifo_control) & FCR_ENABLE != 0;
        if switched || value & FCR_RESET_RECEIVER != 0 {
            self.received.clear();
            self.overrun = false;
        }
        self.fifo_control = if value & FCR_ENABLE != 0 {
            value & 0xc9
        } else {
            0
        };
    }

    /// Received bytes at which the interrupt changes from "timeout" to "data available".
    fn trigger_level(&self) -> usize {
        match self.fifo_control >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    /// Section 8.5: the pending interrupt of the highest priority, without the FIFO bits.
    fn interrupt_identification(&self) -> u8 {
        let enabled = |bit: u8| self.interrupt_enable & bit != 0;
        if enabled(IER_LINE_STATUS) && self.overrun {
            IIR_LINE_STATUS
        } else if enabled(IER_RECEIVED) && !self.received.is_empty() {
            // The line is infinitely fast: fewer bytes than the trigger level time out at once.
            if self.received.len() >= self.trigger_level() {
                IIR_RECEIVED
            } else {
                IIR_TIMEOUT
            }
        } else if enabled(IER_TRANSMITTER_EMPTY) && self.transmitter_interrupt {
            IIR_TRANSMITTER_EMPTY
        } else {
            IIR_NONE
        }
    }

    fn read_interrupt_identification(&mut self) -> u8 {
        let identification = self.interrupt_identification();
        if identification == IIR_TRANSMITTER_EMPTY {
            self.transmitter_interrupt = false;
        }
        let fifo = if self.fifo_control & FCR_ENABLE != 0 {
            IIR_FIFO_ENABLED
        } else {
            0
        };
        identification | fifo
    }

    fn read_line_status(&mut self) -> u8 {
        let mut status = LSR_TRANSMITTER_EMPTY;
        if !self.received.is_empty() {
            status |= LSR_DATA_READY;
        }
        if std::mem::take(&mut self.overrun) {
            status |= LSR_OVERRUN;
        }
        status
    }

    /// Section 8.7: in loopback the modem's outputs are its inputs.
    fn modem_status(&self) -> u8 {
        let control = self.modem_control;
        if control & MCR_LOOPBACK == 0 {
            return MSR_CONNECTED;
        }
        (control & 0x0c) << 4 | (control & 0x02) << 3 | (control & 0x01) << 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::output::Output;

    fn write(uart: &mut Uart16550, offset: u64, value: u8) {
        uart.write(offset, value, &mut Outputs::default());
    }

    #[test]
    fn section_8_1_divisor_latch_hides_data_and_interrupt_enable() {
        let mut uart = Uart16550::default();
        uart.receive(b"x");
        write(&mut uart, 1, 0x05);
        write(&mut uart, 3, 0x83);
        write(&mut uart, 0, 0x34);
        write(&mut uart, 1, 0x12);
        assert_eq!((uart.read(0), uart.read(1)), (0x34, 0x12));
        write(&mut uart, 3, 0x03);
        assert_eq!((uart.read(0), uart.read(1)), (b'x', 0x05));
    }

    #[test]
    fn section_8_4_written_bytes_leave_in_order_and_the_transmitter_is_always_empty() {
        let mut uart = Uart16550::default();
        let mut outputs = Outputs::default();
        for &byte in b"ok\n" {
            assert_eq!(uart.read(5), 0x60);
            uart.write(0, byte, &mut outputs);
        }
        let sent = Output::ConsoleBytes {
            console: Console::Uart,
            bytes: b"ok\n".to_vec(),
        };
        assert_eq!(outputs.take(), [sent]);
    }

    #[test]
    fn section_8_5_transmitter_empty_is_raised_by_enabling_and_by_writing_cleared_by_reading() {
        let mut uart = Uart16550::default();
        write(&mut uart, 1, 0x02);
        assert!(uart.interrupt());
        assert_eq!(uart.read(2), 0x02);
        assert!(!uart.interrupt());
        assert_eq!(uart.read(2), 0x01);
        write(&mut uart, 0, b'a');
        assert!(uart.interrupt());
        write(&mut uart, 1, 0x00);
        assert!(!uart.interrupt());
    }

    #[test]
    fn section_8_5_received_data_outranks_the_transmitter_and_lasts_until_read() {
        let mut uart = Uart16550::default();
        write(&mut uart, 2, 0x81); // FIFO on, trigger at 8
        write(&mut uart, 1, 0x03);
        uart.receive(b"abcdefgh");
        assert_eq!(uart.read(2), 0xc4);
        assert_eq!(uart.read(0), b'a');
        assert_eq!(uart.read(2), 0xcc);
        while uart.read(5) & 1 != 0 {
            uart.read(0);
        }
        assert_eq!(uart.read(2), 0xc2);
        assert_eq!(uart.read(2), 0xc1);
    }

    #[test]
    fn section_8_6_an_overrun_is_reported_once() {
        let mut uart = Uart16550::default();
        write(&mut uart, 1, 0x04);
        uart.receive(&[7; RECEIVE_QUEUE_BYTES]);
        assert!(!uart.interrupt());
        uart.receive(b"x");
        assert_eq!(uart.read(2), 0x06);
        assert_eq!(uart.read(5), 0x63);
        assert_eq!(uart.read(5), 0x61);
        assert!(!uart.interrupt());
    }

    #[test]
    fn section_8_7_loopback_answers_the_probe_of_linux() {
        let mut uart = Uart16550::default();
        let mut outputs = Outputs::default();
        assert_eq!(uart.read(6), 0xb0);
        uart.write(4, 0x1a, &mut outputs);
        assert_eq!(uart.read(6) & 0xf0, 0x90);
        uart.write(0, 0x55, &mut outputs);
        uart.receive(b"not heard");
        assert_eq!(uart.read(0), 0x55);
        assert_eq!(uart.read(5) & 1, 0);
        assert!(outputs.is_empty());
    }

    #[test]
    fn section_8_3_resetting_the_receiver_clears_it() {
        let mut uart = Uart16550::default();
        write(&mut uart, 2, 0x01);
        uart.receive(b"abc");
        write(&mut uart, 2, 0x03);
        assert_eq!(uart.read(5) & 1, 0);
        uart.receive(b"abc");
        write(&mut uart, 2, 0x00);
        assert_eq!(uart.read(5) & 1, 0);
        assert_eq!(uart.read(2), 0x01);
    }
}
