//! Runs a virtual machine so that it lives through the death of its host.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    abort_on_panic();
    understudy::command_line::main()
}

/// A broken invariant in one thread must not leave the others running: a primary without its
/// event loop, say, would look alive.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
