//! What a switch tells about itself.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The status file is written at most this often.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// After an attempt that failed (a full disk), it is tried again after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A switch's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    /// The switch's process.
    pub pid: u32,
    /// Where it listens, as `unix:/path` or `tcp:127.0.0.1:7500`, with real ports.
    pub listen: Vec<String>,
    /// The host ports that lead to guests, with real ports.
    pub forwards: Vec<ForwardStatus>,
    /// Who is connected.
    pub ports: Vec<PortStatus>,
    /// How often an address appeared behind another port than before: once at each failover.
    pub moves: u64,
    /// Frames that were kept for an address while it moved, and delivered.
    pub rescued_frames: u64,
    /// Frames that were dropped because their source address is another port's.
    pub foreign_frames: u64,
    /// What the operator should know, by kind.
    pub events: Vec<NoticeStatus>,
    /// The gateway, if the switch has one.
    pub gateway: Option<GatewayStatus>,
}

/// A kind of event that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeStatus {
    /// Its name.
    pub event: String,
    /// How often.
    pub count: u64,
    /// What was written of it last.
    pub detail: String,
}

/// A forwarded port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where the host listens, as in `127.0.0.1:6379`.
    pub host: String,
    /// Where the guest listens, as in `10.0.2.15:6379`.
    pub guest: String,
    /// Connections accepted (for UDP: clients heard) since the start.
    pub accepted: u64,
}

/// A connected port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port's number, never used again.
    pub id: u64,
    /// Who is connected, as far as the socket tells.
    pub peer: String,
    /// The address that it said it serves: only ports that say so may take an address over.
    pub serves: Option<String>,
    /// The addresses seen behind it.
    pub macs: Vec<String>,
    /// Frames from the port.
    pub frames_in: u64,
    /// Octets of these.
    pub bytes_in: u64,
    /// Octets written to the port, with the length in front of each frame.
    pub bytes_out: u64,
    /// Frames for the port that were dropped because it did not read.
    pub dropped: u64,
}

/// The gateway's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// TCP connections through the gateway, in both directions.
    pub tcp_connections: usize,
    /// Of these, those through forwards, to guests.
    pub tcp_inwards: usize,
    /// Of these, those that guests opened, with those that are being opened.
    pub tcp_outwards: usize,
    /// How many there may be at the same time, to guests.
    pub tcp_inwards_limit: usize,
    /// How many there may be at the same time, from guests.
    pub tcp_outwards_limit: usize,
    /// Connections to guests that were reset because of the limit, since the start.
    pub tcp_inwards_refused: u64,
    /// Connections from guests that were reset because of the limit, since the start.
    pub tcp_outwards_refused: u64,
    /// TCP connections that guests opened since the start.
    pub tcp_outbound: u64,
    /// UDP flows through the gateway, in both directions.
    pub udp_flows: usize,
    /// UDP flows that were closed because all places were taken, since the start.
    pub udp_flows_closed: u64,
    /// The guests' network.
    pub subnet: String,
    /// Addresses given by DHCP.
    pub leases: Vec<LeaseStatus>,
}

/// An address given by DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The guest.
    pub mac: String,
    /// Its address.
    pub address: String,
}

/// No status is longer, with all ports that there can be.
const MOST_BYTES: u64 = 1 << 20;

/// The status file: replaced as a whole, so that a reader never sees half of it, and removed with
/// the switch.
#[derive(Debug)]
pub(crate) struct StatusFile {
    path: PathBuf,
    written: Option<(Instant, SwitchStatus)>,
    /// When writing failed last.
    failed: Option<Instant>,
}

impl StatusFile {
    /// Writes nothing yet. A status that was there is replaced; anything else is kept: its name was a slip.
    ///
    /// # Errors
    /// There is something else, or it cannot be looked at.
    pub(crate) fn open(path: PathBuf) -> io::Result<StatusFile> {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() || !holds_status(&path)? => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "it exists and is no status of a switch: name another file",
                ));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(StatusFile {
            path,
            written: None,
            failed: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When the file may be written again.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        let written = self.written.as_ref();
        let written = written.map(|(when, _)| *when + WRITE_INTERVAL);
        let failed = self.failed.map(|when| when + RETRY_INTERVAL);
        written.max(failed)
    }

    /// Writes the status if it changed and the last time is long enough ago. True while a change
    /// still has to be written.
    pub(crate) fn update(&mut self, status: SwitchStatus, now: Instant) -> io::Result<bool> {
        if self
            .written
            .as_ref()
            .is_some_and(|(_, written)| *written == status)
            && self.failed.is_none()
        {
            return Ok(false);
        }
        if self.not_before().is_some_and(|not_before| now < not_before) {
            return Ok(true);
        }
        self.failed = Some(now);
        let mut text = serde_json::to_vec_pretty(&status)?;
        text.push(b'\n');
        let mut staged = self.path.clone().into_os_string();
        staged.push(".new");
        fs::write(&staged, text)?;
        fs::rename(&staged, &self.path)?;
        self.failed = None;
        self.written = Some((now, status));
        Ok(false)
    }
}

/// Whether a file is a switch's status, of this version or another, or empty.
fn holds_status(path: &Path) -> io::Result<bool> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut text)?;
    let status: Result<serde_json::Value, _> = serde_json::from_slice(&text);
    Ok(text.is_empty()
        || status.is_ok_and(|status| status["listen"].is_array() && status["ports"].is_array()))
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        if self.written.is_some() {
            // Someone else may have removed it: then there is nothing left to do.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_on_change_at_most_five_times_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        let read =
            || -> SwitchStatus { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
        let mut file = StatusFile::open(path.clone()).unwrap();
        let now = Instant::now();
        let status = |moves| SwitchStatus {
            moves,
            ..SwitchStatus::default()
        };
        assert!(!file.update(status(1), now).unwrap());
        assert_eq!(read().moves, 1);
        assert!(file.update(status(2), now + WRITE_INTERVAL / 2).unwrap());
        assert_eq!(read().moves, 1);
        assert!(!file.update(status(2), now + WRITE_INTERVAL).unwrap());
        assert_eq!(read().moves, 2);
        assert!(!file.update(status(2), now + WRITE_INTERVAL).unwrap());
        fs::copy(&path, directory.path().join("left")).unwrap();
        drop(file);
        assert!(!path.exists());
        StatusFile::open(directory.path().join("left")).unwrap();
    }

    /// Finding: a slip of the hand replaced a configuration, and removed it with the switch.
    #[test]
    fn what_is_no_status_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.toml");
        for text in ["name = \"db\"", "{}", "[1]"] {
            fs::write(&path, text).unwrap();
            let error = StatusFile::open(path.clone()).unwrap_err();
            assert!(error.to_string().contains("no status"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(StatusFile::open("/dev/null".into()).is_err());
        assert!(StatusFile::open(directory.path().into()).is_err());
    }
}
