use crate::interpreter::environment::Environment;
/// Breaks.
pub type Sabotage = fn(&mut Environment);
