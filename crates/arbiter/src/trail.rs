//! The way from one arbiter to the next: a life may be moved to another store while its machine runs, and
//! whoever asks at the one before is led on. `docs/protocol.md`, "Another arbiter".
//!
//! The key of leaving generation G is at the store in which generation G lives. One of kind `moved` says
//! that the next generation lives in another. Two rules make that safe, and both are kept here, below
//! everything that asks: no key is ever created in the same store after one of kind `moved`; and the next
//! store is used only once it holds all keys of the machine, up to that one.

use crate::Store;
use replication::succession::{
    ArrivalId, Destination, Entry, Generation, Key, LifeNumber, Outcome, Request, parse_arrival,
};

/// Opens the arbiter of this address, by what this host's configuration says about it. An error is a text
/// for people: what has to be in the configuration.
pub type OpenStore = Box<dyn FnMut(&str) -> Result<Box<dyn Store>, String> + Send>;

/// A store, and those that follow it.
pub struct Trail {
    here: Box<dyn Store>,
    open: OpenStore,
    /// The key by which the life has left this store, and where it is now.
    ahead: Option<(Entry, Destination)>,
    /// A key that is here, and after which keys are created here.
    settled: Option<Key>,
    /// Another arbiter that was asked something.
    other: Option<(String, Box<dyn Store>)>,
}

impl Trail {
    /// Begins at this store.
    pub fn new(here: Box<dyn Store>, open: OpenStore) -> Trail {
        Trail {
            here,
            open,
            ahead: None,
            settled: None,
            other: None,
        }
    }

    fn lead(&mut self, request: &Request) -> Result<Outcome, String> {
        self.follow()?;
        match request {
            Request::Create {
                after: Some(after), ..
            } => self.stand_behind(after)?,
            Request::Create { key, .. } => self.begins_here(key)?,
            _ => {}
        }
        let outcome = self.here.answer(request);
        match (request, &outcome) {
            (Request::Read { key }, Outcome::Holds(content)) => self.notice(key, content)?,
            (Request::Create { key, content, .. }, Outcome::Created) => {
                self.notice(key, content)?;
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// Looks at the key after which one is to be created, and goes where keys are created after it.
    fn stand_behind(&mut self, after: &Key) -> Result<(), String> {
        loop {
            self.follow()?;
            if self.settled.as_ref() == Some(after) {
                return Ok(());
            }
            let (key, content) = match self.read(after)? {
                Some(content) => (after.clone(), content),
                // It may have moved before that. Otherwise the store will say itself that it is missing.
                None => match self.newest_before(after)? {
                    Some(found) => found,
                    None => return Ok(()),
                },
            };
            parse(&key, &content)?;
            self.notice(&key, &content)?;
            if key != *after && self.ahead.is_none() {
                return Ok(());
            }
        }
    }

    /// The last key of this life that is here, below one that is not: a key is here only if all before it
    /// are.
    fn newest_before(&mut self, missing: &Key) -> Result<Option<(Key, Vec<u8>)>, String> {
        let (mut absent, mut found) = (missing.generation.0, None);
        let mut low = 0;
        while low < absent {
            let key = missing.of(Generation(low + (absent - low) / 2));
            match self.read(&key)? {
                Some(content) => {
                    low = key.generation.0 + 1;
                    found = Some((key, content));
                }
                None => absent = key.generation.0,
            }
        }
        Ok(found)
    }

    /// A first life begins only where no machine of this name is to arrive.
    fn begins_here(&mut self, key: &Key) -> Result<(), String> {
        match self.read(&Key::arrival(&key.machine))? {
            None => Ok(()),
            Some(_) if self.read(key)?.is_some() => Ok(()),
            Some(_) => Err(format!(
                "{}: {} was to move here from another arbiter: start it where it is, or remove {} if that \
                 was given up",
                self.here.name(),
                key.machine,
                Key::arrival(&key.machine).object_name()
            )),
        }
    }

    fn read(&mut self, key: &Key) -> Result<Option<Vec<u8>>, String> {
        read(&mut *self.here, key)
    }

    /// What a key holds that is here.
    fn notice(&mut self, key: &Key, content: &[u8]) -> Result<(), String> {
        let Ok(entry) = Entry::parse(key, content) else {
            return Ok(());
        };
        let Some(to) = entry.moved_to.clone() else {
            self.settled = Some(key.clone());
            return Ok(());
        };
        if self.is_here(&to, &entry)? {
            self.settled = Some(key.clone());
        } else {
            self.ahead = Some((entry, to));
        }
        Ok(())
    }

    /// Whether this is the store that it moved to, or one to which it has come back since.
    fn is_here(&mut self, to: &Destination, entry: &Entry) -> Result<bool, String> {
        let own = self.arrival(&entry.key)?;
        Ok(own == Some(to.arrival) || self.read(&entry.next_key())?.is_some())
    }

    fn arrival(&mut self, key: &Key) -> Result<Option<ArrivalId>, String> {
        let arrival = Key::arrival(&key.machine);
        let content = self.read(&arrival)?;
        Ok(content.and_then(|content| parse_arrival(&arrival, &content)))
    }

    /// Goes on to the store where the life is now.
    fn follow(&mut self) -> Result<(), String> {
        while let Some((entry, to)) = self.ahead.clone() {
            let machine = &entry.key.machine;
            let advice = |why: String| {
                format!(
                    "the life of {machine} has moved to another arbiter: write `arbiter = {:?}` (and what it \
                     takes, in a section [arbiter] or [next_arbiter]) into this host's configuration; {why}",
                    to.address
                )
            };
            let mut next = (self.open)(&to.address).map_err(advice)?;
            arrive(&mut *self.here, &mut *next, &entry, &to).map_err(advice)?;
            self.here = next;
            self.settled = Some(entry.key);
            self.ahead = None;
        }
        Ok(())
    }

    fn elsewhere(&mut self, address: &str, request: &Request) -> Result<Outcome, String> {
        let mut store = match self.other.take() {
            Some((open, store)) if open == address => store,
            _ => (self.open)(address)?,
        };
        let outcome = store.answer(request);
        // One that gave no answer is opened anew next time.
        if !matches!(outcome, Outcome::Unknown(_)) {
            self.other = Some((address.to_owned(), store));
        }
        Ok(outcome)
    }
}

impl Store for Trail {
    fn name(&self) -> String {
        self.here.name()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let outcome = match request {
            Request::Elsewhere { address, request } => self.elsewhere(address, request),
            request => self.lead(request),
        };
        outcome.unwrap_or_else(Outcome::Unknown)
    }
}

fn read(store: &mut dyn Store, key: &Key) -> Result<Option<Vec<u8>>, String> {
    match store.answer(&Request::Read { key: key.clone() }) {
        Outcome::Holds(content) => Ok(Some(content)),
        Outcome::Absent => Ok(None),
        Outcome::Unknown(why) => Err(why),
        other => Err(format!("{other:?} is no answer to reading a key")),
    }
}

/// What a key holds, if it was read as a whole.
fn parse(key: &Key, content: &[u8]) -> Result<Entry, String> {
    Entry::parse(key, content)
        .map_err(|error| format!("the key {} cannot be read: {error}", key.object_name()))
}

/// Sees to it that `new` has all keys of the machine up to `moved`, which is in `old`. Anybody may do that,
/// at any time, again: keys never change, so that whoever comes second finds what it would have written.
///
/// The last key is created first and the first one last: who looks for the newest finds nothing before
/// everything is there, so no generation that was left at `old` is ever open at `new`.
fn arrive(
    old: &mut dyn Store,
    new: &mut dyn Store,
    moved: &Entry,
    to: &Destination,
) -> Result<(), String> {
    let arrival = Key::arrival(&moved.key.machine);
    let found = read(new, &arrival)?;
    if found.and_then(|content| parse_arrival(&arrival, &content)) != Some(to.arrival) {
        return Err(format!(
            "{} is not the arbiter to which it moved: it is another, or was emptied",
            new.name()
        ));
    }
    // Created only by somebody who had arrived.
    if read(new, &moved.next_key())?.is_some() {
        return Ok(());
    }
    for (key, content) in history(old, moved)?.into_iter().rev() {
        let create = Request::Create {
            key: key.clone(),
            after: Some(arrival.clone()),
            content: content.clone(),
        };
        match new.answer(&create) {
            Outcome::Created => continue,
            Outcome::NotCreated => {}
            Outcome::Unknown(why) => return Err(why),
            other => return Err(format!("{other:?} is no answer to creating a key")),
        }
        if read(new, &key)? != Some(content) {
            return Err(format!(
                "{} has another history of {}: {} differs",
                new.name(),
                key.machine,
                key.object_name()
            ));
        }
    }
    Ok(())
}

/// All keys up to `moved`, in order.
fn history(store: &mut dyn Store, moved: &Entry) -> Result<Vec<(Key, Vec<u8>)>, String> {
    let mut keys = Vec::new();
    let mut key = Key::power_on(&moved.key.machine, LifeNumber(1));
    loop {
        match read(store, &key)? {
            Some(content) => {
                // What was not read as a whole must not be what the other one has for good.
                parse(&key, &content)?;
                let is_last = key == moved.key;
                keys.push((key.clone(), content));
                if is_last {
                    return Ok(keys);
                }
                key = key.of(key.generation.next());
            }
            None if key.life < moved.key.life && key.generation > Generation(0) => {
                key = Key::power_on(&key.machine, key.life.next());
            }
            None => return Err(format!("{}: {}", store.name(), key.missing())),
        }
    }
}
