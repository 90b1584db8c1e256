//! Runs a virtual machine so that it lives through the death of its host.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    replica::panic::end_process_on_panic();
    understudy::command_line::main()
}
