//! What executes guest instructions. Never visible to the guest.

/// An engine. All of them compute the same state at every instruction count; a pair may run one on
/// each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The reference: a `match` over decoded blocks, on every host.
    Interpreter,
    /// Hot blocks are compiled to the host's instructions, the rest is interpreted.
    #[default]
    Jit,
    /// As [`Engine::Jit`], but whatever compiled code does is interpreted first, for trial, and the
    /// results are compared; a difference is a bug of this program and ends it by a panic that says
    /// all that is known. Slow.
    Paranoid,
}

impl Engine {
    /// All engines.
    pub const ALL: [Engine; 3] = [Engine::Interpreter, Engine::Jit, Engine::Paranoid];
}
