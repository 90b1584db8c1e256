//! A switch on a thread of the test.

use network::{Forward, Switch, SwitchAddress, SwitchOptions, SwitchStatus};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// A running switch; it ends with the value.
pub struct RunningSwitch {
    pub address: SwitchAddress,
    pub status: SwitchStatus,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl RunningSwitch {
    /// Starts a switch on a Unix socket with forwards to these ports of the guest.
    pub fn start(guest_ports: &[u16], change: impl FnOnce(&mut SwitchOptions)) -> RunningSwitch {
        RunningSwitch::start_late(guest_ports, change, |_| ()).0
    }

    /// As [`Self::start`], with an event loop that gets to run only after `before`.
    pub fn start_late<T>(
        guest_ports: &[u16],
        change: impl FnOnce(&mut SwitchOptions),
        before: impl FnOnce(&SwitchStatus) -> T,
    ) -> (RunningSwitch, T) {
        let directory = tempfile::tempdir().unwrap();
        let address = SwitchAddress::Unix(directory.path().join("switch.sock"));
        let forward = |port: &u16| -> Forward { format!("0:{port}").parse().unwrap() };
        let mut options = SwitchOptions {
            listen: vec![address.clone()],
            forwards: guest_ports.iter().map(forward).collect(),
            ..SwitchOptions::default()
        };
        change(&mut options);
        let mut switch = Switch::open(&options).unwrap();
        let status = switch.status();
        let done = before(&status);
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || switch.run(stopped.as_fd()).unwrap());
        let running = RunningSwitch {
            address,
            status,
            stop,
            thread: Some(thread),
            _directory: directory,
        };
        (running, done)
    }

    /// The host's side of the forward with this index.
    pub fn forward(&self, index: usize) -> SocketAddr {
        self.status.forwards[index].host.parse().unwrap()
    }
}

impl Drop for RunningSwitch {
    fn drop(&mut self) {
        self.stop.write_all(&[0]).unwrap();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the switch ended in order");
        }
    }
}
