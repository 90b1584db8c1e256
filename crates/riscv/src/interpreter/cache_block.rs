//! Zicbom and Zicboz (unprivileged specification, "CMO Extensions").
//!
//! Whatever the guest or a device stores is seen by all at once, so cleaning, flushing and invalidating
//! a block do nothing but what an access would: they may fault, and set A.

use super::block::DecodedOp;
use super::environment::Environment;
use crate::hart::csr::envcfg;
use crate::hart::trap::Exception;
use crate::hart::{Hart, Privilege};
use crate::isa::Op;

/// Whether `menvcfg` and `senvcfg` allow the instruction in the present mode. (An invalidation that is to
/// be carried out as a flush is none the less the same.)
pub fn is_allowed(hart: &Hart, op: Op) -> bool {
    let field = match op {
        Op::CboZero => envcfg::CBZE,
        Op::CboInval => envcfg::CBIE,
        _ => envcfg::CBCFE,
    };
    let (machine, supervisor) = (hart.csr.menvcfg & field != 0, hart.csr.senvcfg & field != 0);
    match hart.privilege {
        Privilege::Machine => true,
        Privilege::Supervisor => machine,
        Privilege::User => machine && supervisor,
    }
}

/// Executes an instruction that [`is_allowed`].
pub fn execute(environment: &mut Environment, op: &DecodedOp) -> Result<(), Exception> {
    let address = environment.hart.x.get(op.rs1);
    if op.op == Op::CboZero {
        environment.zero_block(address)
    } else {
        environment.manage_block(address)
    }
}
