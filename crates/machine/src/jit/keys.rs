//! Numbers that say whether what compiled code remembers of translations is still true.

use crate::hart::Hart;

/// Keys of site caches: bits 3 to 11 of a tag. Zero is in no tag that matches.
const FIRST_SITE_KEY: u64 = 1;
const LAST_SITE_KEY: u64 = 511;
const SITE_KEY_SHIFT: u32 = 3;
/// Contexts that are remembered at a time.
const CONTEXTS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Context {
    hart: u32,
    context: u64,
    generation: u64,
}

/// The bit of a context of data that `sstatus.SUM` is.
pub const SUM_OF_CONTEXT: u64 = 1 << 54;

struct KnownSite {
    context: Context,
    key: u64,
    /// XORed with the key: that of the same context with the other SUM, if it is known too.
    sum_difference: u64,
}

impl KnownSite {
    fn set(&self, hart: &mut Hart) {
        hart.compiled.site_key = self.key;
        hart.compiled.sum_difference = self.sum_difference;
    }
}

/// Gives each context of loads and stores (hart, address space, mode) a key of its own, and a new
/// one whenever a translation was dropped.
#[derive(Default)]
pub struct SiteKeys {
    known: Vec<KnownSite>,
    last: u64,
}

/// All site caches have to be emptied: the keys begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SitesAreStale;

impl SiteKeys {
    /// Sets the key of `hart` for its present context.
    #[inline]
    pub fn refresh(&mut self, hart: &mut Hart) -> Result<(), SitesAreStale> {
        let context = Context {
            hart: hart.id,
            context: hart.tlb.data_context,
            generation: hart.tlb.data_generation,
        };
        let mut known = self.known.iter();
        if let Some(index) = known.position(|known| known.context == context) {
            self.known[index].set(hart);
            self.known.swap(index, index / 2);
            return Ok(());
        }
        self.add(hart, context)
    }

    #[cold]
    fn add(&mut self, hart: &mut Hart, context: Context) -> Result<(), SitesAreStale> {
        self.known.retain(|known| {
            known.context.hart != context.hart || known.context.generation == context.generation
        });
        if self.known.len() == CONTEXTS {
            self.known.clear();
        }
        let wraps = self.last == LAST_SITE_KEY;
        if wraps {
            self.known.clear();
        }
        self.last = if wraps { FIRST_SITE_KEY } else { self.last + 1 };
        let key = self.last << SITE_KEY_SHIFT;
        let mut added = KnownSite {
            context,
            key,
            sum_difference: 0,
        };
        let other = Context {
            context: context.context ^ SUM_OF_CONTEXT,
            ..context
        };
        let mut known = self.known.iter_mut();
        if let Some(known) = known.find(|known| known.context == other) {
            added.sum_difference = known.key ^ key;
            known.sum_difference = known.key ^ key;
        }
        added.set(hart);
        self.known.push(added);
        if wraps { Err(SitesAreStale) } else { Ok(()) }
    }
}

/// Gives each context of fetches a number of its own, and a new one whenever a translation or code
/// was dropped. No number is used twice.
#[derive(Default)]
pub struct JumpKeys {
    known: Vec<(Context, u64)>,
    last: u64,
    drops: u64,
}

impl JumpKeys {
    /// Sets the key of `hart` for its present context; `drops` changes when code was dropped.
    #[inline]
    pub fn refresh(&mut self, hart: &mut Hart, drops: u64) {
        if self.drops != drops {
            self.known.clear();
            self.drops = drops;
        }
        let context = Context {
            hart: hart.id,
            context: hart.tlb.fetch_context,
            generation: hart.tlb.fetch_generation,
        };
        if let Some((_, key)) = self.known.iter().find(|(known, _)| *known == context) {
            hart.compiled.jump_key = *key;
            return;
        }
        self.known.retain(|(known, _)| {
            known.hart != context.hart || known.generation == context.generation
        });
        if self.known.len() == CONTEXTS {
            self.known.clear();
        }
        self.last += 1;
        self.known.push((context, self.last));
        hart.compiled.jump_key = self.last;
    }
}
