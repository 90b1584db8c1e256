//! IEEE 754 arithmetic with RISC-V's rounding modes and flags.
