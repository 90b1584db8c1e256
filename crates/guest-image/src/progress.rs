/// What a build reports while it works.
pub trait Progress {
    /// `step` is being done: `done` of `total` units (bytes or pieces; `total` 0 when unknown).
    /// Called again for the same step as it advances; a step is over when `done == total`, or when
    /// another begins.
    fn on_step(&mut self, step: &str, done: u64, total: u64);

    /// Something that the user should know, though the build goes on.
    fn on_note(&mut self, note: &str);
}

/// A progress that nobody looks at.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn on_step(&mut self, _step: &str, _done: u64, _total: u64) {}

    fn on_note(&mut self, _note: &str) {}
}
