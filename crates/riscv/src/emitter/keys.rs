//! Numbers that say whether what compiled code remembers of translations is still true.

use crate::hart::{Hart, Privilege};

/// Keys of site caches: bits 3 to 11 of a tag. Zero is in no tag that matches.
const FIRST_SITE_KEY: u64 = 1;
const LAST_SITE_KEY: u64 = 511;
const SITE_KEY_SHIFT: u32 = 3;
/// Contexts that are remembered at a time.
const CONTEXTS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Context {
    context: u64,
    generation: u64,
}

impl Context {
    fn of_data(hart: &Hart, context: u64) -> Context {
        Context {
            context,
            generation: hart.tlb.data_generation(context),
        }
    }
}

/// The key of a context. Contexts that were asked for of late are looked for first: modes take
/// turns, and those of address spaces that are gone stay until the list is full.
#[inline]
fn find(known: &mut [(Context, u64)], context: Context) -> Option<u64> {
    let at = known.iter().position(|(known, _)| *known == context)?;
    let key = known[at].1;
    if at > 2 {
        known.swap(at, at / 2);
    }
    Some(key)
}

/// Gives each context of loads and stores (address space, mode) a key of its own, and a new
/// one whenever a translation was dropped.
#[derive(Default)]
pub struct SiteKeys {
    known: Vec<(Context, u64)>,
    last: u64,
}

/// All site caches have to be emptied: the keys begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SitesAreStale;

impl SiteKeys {
    /// Sets the key of `hart` for its present context, and what changes if `sstatus.SUM` does.
    #[inline]
    pub fn refresh(&mut self, hart: &mut Hart) -> Result<(), SitesAreStale> {
        let context = Context::of_data(hart, hart.tlb.data_context);
        let (key, result) = match find(&mut self.known, context) {
            Some(key) => (key, Ok(())),
            None => self.add(hart, context),
        };
        hart.compiled.site_key = key;
        hart.compiled.sum_difference = 0;
        if hart.privilege == Privilege::Supervisor {
            let other = hart.tlb.data_context ^ hart.tlb.sum_difference;
            if let Some(other) = find(&mut self.known, Context::of_data(hart, other)) {
                hart.compiled.sum_difference = other ^ key;
            }
        }
        result
    }

    #[cold]
    fn add(&mut self, hart: &Hart, context: Context) -> (u64, Result<(), SitesAreStale>) {
        self.known
            .retain(|(known, _)| known.generation == hart.tlb.data_generation(known.context));
        if self.known.len() == CONTEXTS {
            self.known.clear();
        }
        let wraps = self.last == LAST_SITE_KEY;
        if wraps {
            self.known.clear();
        }
        self.last = if wraps { FIRST_SITE_KEY } else { self.last + 1 };
        let key = self.last << SITE_KEY_SHIFT;
        self.known.push((context, key));
        (key, if wraps { Err(SitesAreStale) } else { Ok(()) })
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
            context: hart.tlb.fetch_context,
            generation: hart.tlb.fetch_generation(hart.tlb.fetch_context),
        };
        if let Some(key) = find(&mut self.known, context) {
            hart.compiled.jump_key = key;
            return;
        }
        self.known
            .retain(|(known, _)| known.generation == hart.tlb.fetch_generation(known.context));
        if self.known.len() == CONTEXTS {
            self.known.clear();
        }
        self.last += 1;
        self.known.push((context, self.last));
        hart.compiled.jump_key = self.last;
    }
}
