//! A loop keeps what it knows of pages in host registers: tag and addend of its sites.

use super::emitter::Emitter;
use super::groups::log_size;
use super::integer::is_rare;
use super::layout::*;
use super::lending::uses;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};

/// Host registers that are used so at most: each costs something before and behind the loop.
const MOST: usize = 6;

/// A site of which a loop keeps something.
#[derive(Clone, Copy, Debug)]
pub struct KeptSite {
    /// Number of the instruction that checks it.
    pub index: usize,
    /// Its address.
    pub site: usize,
    /// Holds its addend.
    pub addend: HostRegister,
    /// Holds its tag as it is compared, without the key of the context.
    pub tag: Option<HostRegister>,
}

impl Emitter<'_> {
    /// Before a loop: keeps sites in the host registers that the piece has no use for. Where the key
    /// of the context may change within the piece, none.
    pub(super) fn keep_sites(&mut self) {
        let ops = &self.piece.ops;
        if ops.iter().any(|op| is_rare(op.op)) {
            return;
        }
        let uses = uses(ops);
        let is_free = |guest: u8| uses[usize::from(guest)] == 0 && self.registers.is_home(guest);
        let free: Vec<u8> = PINNED.iter().map(|(guest, _)| *guest).collect();
        let free: Vec<u8> = free.into_iter().filter(|&guest| is_free(guest)).collect();
        let leads = |&index: &usize| {
            let is_member = self
                .groups
                .group(index)
                .is_some_and(|(_, group)| group.first != index);
            log_size(ops[index].op).is_some() && !is_member
        };
        let indices: Vec<usize> = (0..ops.len()).filter(leads).collect();
        let mut hosts = Vec::new();
        for owner in free.into_iter().take(MOST.min(2 * indices.len())) {
            hosts.extend(self.displace(owner));
        }
        let tags = hosts.split_off(hosts.len().min(indices.len()));
        for (number, (index, addend)) in indices.into_iter().zip(hosts).enumerate() {
            self.kept.push(KeptSite {
                index,
                site: self.cache.add_site(),
                addend,
                tag: tags.get(number).copied(),
            });
        }
        self.load_kept();
    }

    /// What is kept of the site that the instruction checks.
    pub(super) fn kept(&self, index: usize) -> Option<KeptSite> {
        self.kept.iter().copied().find(|kept| kept.index == index)
    }

    /// Loads what is kept. Keeps all other registers.
    pub(super) fn load_kept(&mut self) {
        for kept in std::mem::take(&mut self.kept) {
            dynasm!(self.asm; .arch x64; mov Rq(kept.addend), [extern kept.site + 8]);
            if let Some(tag) = kept.tag {
                dynasm!(self.asm; .arch x64
                    ; mov Rq(tag), [extern kept.site]
                    ; xor Rq(tag), [rbp + SITE_KEY]
                );
            }
            self.kept.push(kept);
        }
    }

    /// Takes the host register of `owner`, whose value stays in the hart.
    fn displace(&mut self, owner: u8) -> Option<HostRegister> {
        let host = self.registers.displace(owner)?;
        dynasm!(self.asm; .arch x64; mov [BYTE rbp + x(owner)], Rq(host));
        Some(host)
    }
}
