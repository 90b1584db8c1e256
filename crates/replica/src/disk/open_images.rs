//! Which qcow2 images this process has open.
//!
//! A disk is made durable by whoever has it, and by whoever writes down beside it what it is worth and knows
//! only its name. Of a raw image the kernel has everything that was written; of a qcow2 image some of it, the
//! tables, is in the memory of the one who has it open. An image is open once: it is locked.

use qcow2::Image;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What is known of an image.
enum Known {
    Open(Weak<Image>),
    /// It was closed, and not everything of it is in the file.
    Lost(String),
}

static IMAGES: Mutex<BTreeMap<PathBuf, Known>> = Mutex::new(BTreeMap::new());

fn images() -> MutexGuard<'static, BTreeMap<PathBuf, Known>> {
    IMAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It was opened, to be written to.
pub(super) fn opened(path: &Path, image: &Arc<Image>) {
    images().insert(path.into(), Known::Open(Arc::downgrade(image)));
}

/// It is about to be closed: nobody has it from here on. Brings what is in memory to the file.
pub(super) fn closing(path: &Path, image: &Image) {
    let mut images = images();
    match image.flush() {
        Ok(()) => images.remove(path),
        Err(error) => images.insert(path.into(), Known::Lost(error.to_string())),
    };
}

/// Makes what was written to an image durable, if it is open here; `None` if it is not.
pub(super) fn sync(path: &Path) -> Option<io::Result<()>> {
    // Held until it is done, so that nobody finds an image open that he has just closed.
    match images().get(path)? {
        Known::Open(image) => Some(image.upgrade()?.flush()),
        Known::Lost(why) => Some(Err(io::Error::other(format!(
            "not all of the image was written when it was closed: {why}"
        )))),
    }
}
