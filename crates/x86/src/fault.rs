//! What an instruction can raise (SDM volume 3, 6.15).

/// An exception, on its way to the IDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the IDT.
    pub vector: u8,
    /// What is pushed after the return address, for the exceptions that have one.
    pub error_code: Option<u32>,
    /// The linear address that goes to CR2 (page faults only).
    pub address: u64,
}

/// #DE.
pub const DIVIDE_ERROR: u8 = 0;
/// #DB.
pub const DEBUG: u8 = 1;
/// An interrupt that cannot be masked.
pub const NONMASKABLE: u8 = 2;
/// #BP.
pub const BREAKPOINT: u8 = 3;
/// #UD.
pub const INVALID_OPCODE: u8 = 6;
/// #NM.
pub const DEVICE_NOT_AVAILABLE: u8 = 7;
/// #DF.
pub const DOUBLE_FAULT: u8 = 8;
/// #TS.
pub const INVALID_TSS: u8 = 10;
/// #NP.
pub const SEGMENT_NOT_PRESENT: u8 = 11;
/// #SS.
pub const STACK_FAULT: u8 = 12;
/// #GP.
pub const GENERAL_PROTECTION: u8 = 13;
/// #PF.
pub const PAGE_FAULT: u8 = 14;
/// #MF.
pub const X87_FAULT: u8 = 16;
/// #AC.
pub const ALIGNMENT_CHECK: u8 = 17;
/// #XM.
pub const SIMD_FAULT: u8 = 19;

impl Fault {
    /// An exception without an error code.
    pub const fn plain(vector: u8) -> Fault {
        Fault {
            vector,
            error_code: None,
            address: 0,
        }
    }

    /// An exception with an error code.
    pub const fn with_code(vector: u8, error_code: u32) -> Fault {
        Fault {
            vector,
            error_code: Some(error_code),
            address: 0,
        }
    }

    /// #PF at a linear address.
    pub const fn page(address: u64, error_code: u32) -> Fault {
        Fault {
            vector: PAGE_FAULT,
            error_code: Some(error_code),
            address,
        }
    }

    /// #GP(0).
    pub const GENERAL_PROTECTION: Fault = Fault::with_code(GENERAL_PROTECTION, 0);
    /// #SS(0).
    pub const STACK: Fault = Fault::with_code(STACK_FAULT, 0);
    /// #UD.
    pub const INVALID_OPCODE: Fault = Fault::plain(INVALID_OPCODE);
    /// #NM.
    pub const DEVICE_NOT_AVAILABLE: Fault = Fault::plain(DEVICE_NOT_AVAILABLE);
    /// #DE.
    pub const DIVIDE_ERROR: Fault = Fault::plain(DIVIDE_ERROR);
    /// #MF: an unmasked x87 exception is pending.
    pub const X87: Fault = Fault::plain(X87_FAULT);
    /// #XM: an unmasked SSE floating-point exception (with CR4.OSXMMEXCPT clear the CPU turns it
    /// into #UD).
    pub const SIMD: Fault = Fault::plain(SIMD_FAULT);
}
