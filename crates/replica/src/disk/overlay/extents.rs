//! Which sectors a layer has, and where in its file they are.

use std::collections::BTreeMap;

/// Where the content of a stretch of sectors is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It is zero.
    Zero,
    /// From this byte of the layer's file on.
    At(u64),
}

impl Content {
    /// Of the sectors after the first so many.
    fn after(self, sectors: u64) -> Content {
        match self {
            Content::Zero => Content::Zero,
            Content::At(offset) => Content::At(offset + sectors * super::SECTOR_BYTES),
        }
    }
}

/// A stretch of sectors: what the layer has of it, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub from: u64,
    pub to: u64,
    pub content: Option<Content>,
}

/// Stretches that do not touch each other's sectors, by their first.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtentMap {
    /// The sector after the last, and the content.
    extents: BTreeMap<u64, (u64, Content)>,
}

impl ExtentMap {
    /// These sectors have this content from now on.
    pub fn insert(&mut self, from: u64, to: u64, content: Content) {
        if from >= to {
            return;
        }
        self.cut(from);
        self.cut(to);
        let inside: Vec<u64> = self.extents.range(from..to).map(|(at, _)| *at).collect();
        for at in inside {
            self.extents.remove(&at);
        }
        self.extents.insert(from, (to, content));
    }

    /// Makes two of a stretch that goes over the beginning of this sector.
    fn cut(&mut self, at: u64) {
        let Some((from, (to, content))) = self.extents.range_mut(..at).next_back() else {
            return;
        };
        if *to > at {
            let right = (*to, content.after(at - *from));
            *to = at;
            self.extents.insert(at, right);
        }
    }

    /// These sectors, in stretches, in order.
    pub fn stretches(&self, from: u64, to: u64) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut at = from;
        let before = self.extents.range(..from).next_back();
        let before = before.filter(|(_, (end, _))| *end > from);
        for (begin, (end, content)) in before.into_iter().chain(self.extents.range(from..to)) {
            if at < *begin {
                stretches.push(Stretch {
                    from: at,
                    to: *begin,
                    content: None,
                });
            }
            at = at.max(*begin);
            stretches.push(Stretch {
                from: at,
                to: to.min(*end),
                content: Some(content.after(at - begin)),
            });
            at = to.min(*end);
        }
        if at < to {
            stretches.push(Stretch {
                from: at,
                to,
                content: None,
            });
        }
        stretches
    }

    /// The first sector from this one on that the layer has.
    pub fn next(&self, from: u64) -> Option<u64> {
        let before = self.extents.range(..from).next_back();
        if before.is_some_and(|(_, (to, _))| *to > from) {
            return Some(from);
        }
        self.extents.range(from..).next().map(|(at, _)| *at)
    }

    /// All that the layer has, in order.
    pub fn all(&self) -> impl Iterator<Item = Stretch> + '_ {
        self.extents.iter().map(|(from, (to, content))| Stretch {
            from: *from,
            to: *to,
            content: Some(*content),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECTORS: u64 = 40;

    proptest! {
        /// Against a list of what each sector has.
        #[test]
        fn it_says_of_each_sector_what_was_put_there_last(
            puts in prop::collection::vec((0..SECTORS, 1..SECTORS, any::<bool>()), 0..30),
            (from, length) in (0..SECTORS, 1..SECTORS),
        ) {
            let mut map = ExtentMap::default();
            let mut model = [None; SECTORS as usize];
            for (index, (from, length, is_zero)) in puts.into_iter().enumerate() {
                let to = (from + length).min(SECTORS);
                let base = (index as u64 + 1) << 20;
                let content = if is_zero { Content::Zero } else { Content::At(base) };
                map.insert(from, to, content);
                for sector in from..to {
                    model[sector as usize] = Some(content.after(sector - from));
                }
            }
            let to = (from + length).min(SECTORS);
            let mut at = from;
            for stretch in map.stretches(from, to) {
                prop_assert!(stretch.from == at && stretch.to > at, "{stretch:?} at {at}");
                for sector in stretch.from..stretch.to {
                    let content = stretch.content.map(|content| content.after(sector - stretch.from));
                    prop_assert_eq!(content, model[sector as usize], "sector {}", sector);
                }
                at = stretch.to;
            }
            prop_assert_eq!(at, to.max(from));
            let next = (from..SECTORS).find(|sector| model[*sector as usize].is_some());
            prop_assert_eq!(map.next(from), next);
            let had: u64 = map.all().map(|stretch| stretch.to - stretch.from).sum();
            prop_assert_eq!(had as usize, model.iter().flatten().count());
        }
    }
}
