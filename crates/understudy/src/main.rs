//! The program: command line, vcpu thread, event loop, network switch, arbiter, status.
fn main() {}
