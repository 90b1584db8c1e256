//! The layers of an image as files: `IMAGE.overlay-00000001`, the younger with the greater numbers.
//!
//! A loss of power may undo the removal of a file. So they go one after the other, each durably: on the
//! way to the image the oldest first, for what is left can be merged again; and never one that others
//! lie over which are gone.

use super::extents::Content;
use super::layer::{Layer, LayerHead, PIECE_BYTES};
use super::{LayerId, OverlayError, SECTOR_BYTES, directory};
use crate::disk::{Disk, standing};
use environment::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Between the image's name and the number.
const INFIX: &str = ".overlay-";
/// In the place of the number: what a machine writes that replays its journal.
const REPLAY: &str = "replay";

fn named(base: &Path, what: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(INFIX);
    name.push(what);
    name.into()
}

/// Where the layer of this number is.
pub(super) fn path_of(base: &Path, number: u64) -> PathBuf {
    named(base, &format!("{number:08}"))
}

/// Whether this is the name of a layer of that.
pub fn is_layer(path: &Path, base: &Path) -> bool {
    let prefix = named(base, "").into_os_string().into_encoded_bytes();
    path.as_os_str().as_encoded_bytes().starts_with(&prefix)
}

/// What there is beside an image: the layers' files, the oldest first, whether they count or not; and
/// that of a replay.
struct Beside {
    numbered: Vec<(u64, PathBuf)>,
    replay: Option<PathBuf>,
}

fn look_beside(base: &Path) -> Result<Beside, OverlayError> {
    let directory = directory(base);
    let failed = |source| OverlayError::io(directory, source);
    let prefix = named(Path::new(base.file_name().unwrap_or_default()), "");
    let prefix = prefix.to_string_lossy().into_owned();
    let mut beside = Beside {
        numbered: Vec::new(),
        replay: None,
    };
    for name in fs::names(directory).map_err(failed)? {
        let Some(rest) = name.strip_prefix(&prefix) else {
            continue;
        };
        if rest == REPLAY {
            beside.replay = Some(directory.join(&name));
        } else if let Ok(number) = rest.parse() {
            beside.numbered.push((number, directory.join(&name)));
        }
    }
    beside.numbered.sort_unstable();
    Ok(beside)
}

/// The layers that count, the oldest first, and the files of those that do not.
struct Chain {
    layers: Vec<(PathBuf, LayerHead)>,
    idle: Vec<PathBuf>,
}

fn chain(base: &Path) -> Result<Chain, OverlayError> {
    let Beside { numbered, replay } = look_beside(base)?;
    let mut idle: Vec<PathBuf> = replay.into_iter().collect();
    let mut layers = Vec::new();
    let last = numbered.last().map(|(number, _)| *number);
    for (number, path) in numbered {
        match Layer::look(&path)? {
            Some(head) if head.number == number => layers.push((path, head)),
            Some(_) => {
                let why = "it has the name of another overlay".to_owned();
                return Err(OverlayError::damaged(&path, why));
            }
            // The youngest may have been about to be made.
            None if Some(number) == last => idle.push(path),
            None => {
                let why = "it ends before it says what it is".to_owned();
                return Err(OverlayError::damaged(&path, why));
            }
        }
    }
    let replacing = layers.iter().rev().find(|(_, head)| head.replaces > 0);
    if let Some((
        _,
        LayerHead {
            number, replaces, ..
        },
    )) = replacing
    {
        let (number, replaces) = (*number, *replaces);
        let is_idle = |head: &LayerHead| (replaces..number).contains(&head.number);
        let (old, count) = layers.into_iter().partition(|(_, head)| is_idle(head));
        layers = count;
        idle.extend(old.into_iter().map(|(path, _): (PathBuf, LayerHead)| path));
    }
    Ok(Chain { layers, idle })
}

/// Removes files one after the other, each durably.
pub(super) fn remove_in_order(paths: &[PathBuf]) -> Result<(), OverlayError> {
    for path in paths {
        standing::forget(path);
        let removed = fs::remove_file(path).and_then(|()| fs::sync_directory(directory(path)));
        removed.map_err(|source| OverlayError::io(path, source))?;
    }
    Ok(())
}

/// Writes what a layer has into the image.
pub(super) fn write_into(layer: &Layer, image: &Disk) -> Result<(), OverlayError> {
    let mut buffer = vec![0; PIECE_BYTES as usize];
    for stretch in layer.extents().all() {
        let (from, to) = (stretch.from * SECTOR_BYTES, stretch.to * SECTOR_BYTES);
        let Some(Content::At(begin)) = stretch.content else {
            let zeroed = image.medium.zero(from, to - from);
            zeroed.map_err(|source| OverlayError::io(&layer.path, source))?;
            continue;
        };
        let mut at = from;
        while at < to {
            let bytes = &mut buffer[..(to - at).min(PIECE_BYTES) as usize];
            let moved = layer
                .read(begin + (at - from), bytes)
                .and_then(|()| image.medium.write(bytes, at));
            moved.map_err(|source| OverlayError::io(&layer.path, source))?;
            at += bytes.len() as u64;
        }
    }
    Ok(())
}

fn open(path: PathBuf, head: LayerHead, image: &Disk) -> Result<Layer, OverlayError> {
    if head.image_bytes != image.length() {
        let why = format!(
            "it belongs to an image of {} bytes, and {} has {}",
            head.image_bytes,
            image.path.display(),
            image.length()
        );
        return Err(OverlayError::damaged(&path, why));
    }
    Layer::open(path, head)
}

/// Merges these into the image, durably, and removes them.
fn merge(layers: Vec<(PathBuf, LayerHead)>, image: &Disk) -> Result<(), OverlayError> {
    if layers.is_empty() {
        return Ok(());
    }
    // All of them are read before anything is written.
    let opened: Result<Vec<Layer>, OverlayError> = layers
        .into_iter()
        .map(|(path, head)| open(path, head, image))
        .collect();
    let opened = opened?;
    for layer in &opened {
        write_into(layer, image)?;
    }
    let synced = image.medium.sync_all();
    synced.map_err(|source| OverlayError::io(&image.path, source))?;
    let paths: Vec<PathBuf> = opened.into_iter().map(|layer| layer.path).collect();
    remove_in_order(&paths)
}

/// Makes the image what the disk is, for a machine that starts from it.
///
/// # Errors
/// A layer is damaged, or the disk fails.
pub fn merge_all(base: &Path, image: &Disk) -> Result<(), OverlayError> {
    let Chain { layers, idle } = chain(base)?;
    remove_in_order(&idle)?;
    merge(layers, image)
}

/// Removes whatever lies beside an image that is about to be overwritten.
///
/// # Errors
/// The disk fails.
pub fn remove_all(base: &Path) -> Result<(), OverlayError> {
    let Beside { numbered, replay } = look_beside(base)?;
    let paths: Vec<PathBuf> = numbered.into_iter().map(|(_, path)| path).collect();
    remove_in_order(&paths)?;
    remove_in_order(&replay.into_iter().collect::<Vec<PathBuf>>())
}

/// Whether the layer that begins with this snapshot is there: then the image is as it was at it, or can
/// be made so.
///
/// # Errors
/// It is not, or the disk fails.
pub fn has_layer(base: &Path, id: LayerId) -> Result<(), OverlayError> {
    let is_its = |(_, head): &(PathBuf, LayerHead)| head.id == id;
    match chain(base)?.layers.iter().any(is_its) {
        true => Ok(()),
        false => Err(OverlayError::NotAtSnapshot { image: base.into() }),
    }
}

/// A disk as it was at a journal's snapshot, and the layer for what is written from there on. What was
/// there is kept until the replay is over: it is the disk as long as the machine is not live.
#[derive(Debug)]
pub struct Begun {
    layer: Layer,
}

/// Makes the image as it was at the snapshot of this name.
///
/// # Errors
/// It cannot be known any more, a layer is damaged, or the disk fails.
pub fn begin_again(base: &Path, image: &Disk, id: LayerId) -> Result<Begun, OverlayError> {
    let Chain { layers, idle } = chain(base)?;
    let place = layers.iter().position(|(_, head)| head.id == id);
    let Some(place) = place else {
        return Err(OverlayError::NotAtSnapshot { image: base.into() });
    };
    remove_in_order(&idle)?;
    let mut older = layers;
    let younger = older.split_off(place);
    merge(older, image)?;
    let last = younger.last().map_or(0, |(_, head)| head.number);
    let head = LayerHead {
        id,
        number: last + 1,
        replaces: younger[0].1.number,
        image_bytes: image.length(),
    };
    let path = named(base, REPLAY);
    let layer = Layer::create(path.clone(), head);
    let layer = layer.map_err(|source| OverlayError::io(&path, source))?;
    Ok(Begun { layer })
}

/// The layer of a replay takes the place of those that were there: everything of the machine is in it.
pub(super) fn commit(layer: &mut Layer, base: &Path) -> Result<(), OverlayError> {
    let LayerHead {
        number, replaces, ..
    } = layer.head;
    let path = path_of(base, number);
    let renamed = layer.flush().and_then(|()| {
        layer.rename(path.clone())?;
        fs::sync_directory(directory(&path))
    });
    renamed.map_err(|source| OverlayError::io(&path, source))?;
    let replaced = look_beside(base)?.numbered.into_iter();
    let replaced = replaced.filter(|(other, _)| (replaces..number).contains(other));
    let paths: Vec<PathBuf> = replaced.map(|(_, path)| path).collect();
    remove_in_order(&paths)
}

impl Begun {
    /// The layer, and its number among the layers.
    pub(super) fn into_layer(self) -> (Layer, u64) {
        let number = self.layer.head.number;
        (self.layer, number)
    }
}

/// Makes the layer that follows, durably, name and all.
pub(super) fn create(base: &Path, head: LayerHead) -> io::Result<Layer> {
    let path = path_of(base, head.number);
    let layer = Layer::create(path.clone(), head)?;
    fs::sync_directory(directory(&path))?;
    Ok(layer)
}
