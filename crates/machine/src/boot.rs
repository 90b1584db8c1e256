use crate::bus::*; use crate::memory::*;
#[derive(Debug, thiserror::Error)] pub enum BootError { #[error(transparent)] Board(#[from] BoardConfigError) }
#[derive(Default)] pub struct BootImages { pub firmware: Option<Vec<u8>>, pub kernel: Option<Vec<u8>>, pub initrd: Option<Vec<u8>>, pub command_line: String }
#[derive(Default)] pub struct IsaDescription;
pub struct BootEntry { pub pc: u64 }
pub fn load(_: &BoardConfig, i: &BootImages, _: &IsaDescription, m: &mut Memory, _: &mut Bus) -> Result<BootEntry, BootError> {
  let e = i.kernel.as_ref().unwrap(); let phoff = u64::from_le_bytes(e[32..40].try_into().unwrap()) as usize; let n = e[56] as usize;
  for k in 0..n { let p = &e[phoff + k*56..]; if p[0] != 1 { continue } let g = |o: usize| u64::from_le_bytes(p[o..o+8].try_into().unwrap());
    m.write(g(24), &e[g(8) as usize..][..g(32) as usize]).unwrap(); }
  Ok(BootEntry { pc: u64::from_le_bytes(e[24..32].try_into().unwrap()) }) }
