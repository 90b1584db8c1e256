//! The outside world of a live machine: its network and its consoles.

use crate::config::{Attachment, NetworkEnd, RemoteSwitch};
use environment::frames::FramePort;
use keys::{Keys, KeysError, LetIn, Purpose, Refusal};
use machine::input::{Console, Input};
use machine::output::Output;
use network::{NetworkAttachment, PollSet, SwitchAddress, SwitchAddressError, SwitchRefused};
use std::fs::File;
use std::io::{self, Write};
use thiserror::Error;

/// Frames taken from the network in one go, so that a flood leaves time for everything else.
const FRAMES_A_TURN: usize = 256;
/// Between two attempts to reach a network that is not there, in nanoseconds.
const RETRY_NS: u64 = 200_000_000;
/// A switch that has let this host in may still turn it away, by what it thinks of its certificate:
/// one that has not by then, in nanoseconds, is back.
const SETTLED_NS: u64 = 500_000_000;
/// A switch that does not answer for this long is tried anew, in nanoseconds.
const ANSWER_NS: u64 = 5_000_000_000;

/// Where console output goes.
#[derive(Debug, Default)]
pub struct ConsoleSink {
    /// Standard output as well.
    pub to_stdout: bool,
    /// A file.
    pub file: Option<File>,
}

impl ConsoleSink {
    /// Prints bytes. A full disk or a closed terminal must not stop the machine.
    pub fn print(&mut self, bytes: &[u8]) {
        if self.to_stdout {
            let mut stdout = io::stdout().lock();
            let _printed = stdout.write_all(bytes).and_then(|()| stdout.flush());
        }
        if let Some(file) = &mut self.file {
            let _printed = file.write_all(bytes);
        }
    }
}

/// The guest's network: an attachment that is made when its other end is there, and again when it
/// breaks.
#[derive(Debug)]
pub struct Network {
    end: NetworkEnd,
    /// For a switch of another host.
    keys: Option<Keys>,
    attachment: Option<Attached>,
    /// Since when there is an attachment.
    attached_at_ns: u64,
    /// An attachment that the other side has not taken yet, and when it is given up.
    attempt: Option<(NetworkAttachment, u64)>,
    retry_at_ns: u64,
    /// Why there is none, or was none of late.
    trouble: Option<String>,
    /// That it is away was told.
    told: bool,
}

/// What people should know of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNews {
    /// It is out of reach, and why. It is tried again.
    Lost(String),
    /// It is there again.
    Back,
}

/// What the other end is.
#[derive(Debug)]
enum Attached {
    /// A switch or a device.
    Host(NetworkAttachment),
    /// A world, which takes and gives frames as wholes.
    Simulated(Box<dyn FramePort>),
}

impl Attached {
    fn has_frame(&self) -> bool {
        match self {
            Attached::Host(attachment) => attachment.has_frame(),
            Attached::Simulated(port) => port.has_frame(),
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Attached::Host(attachment) => attachment.wants_write(),
            Attached::Simulated(_) => false,
        }
    }

    fn enqueue(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Attached::Host(attachment) => attachment.enqueue(frame),
            Attached::Simulated(port) => {
                port.send(frame);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Attached::Host(attachment) => attachment.flush(),
            Attached::Simulated(_) => Ok(()),
        }
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Attached::Host(attachment) => attachment.receive(),
            Attached::Simulated(port) => Ok(port.receive()),
        }
    }
}

/// The network cannot be reached.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The switch does not take this machine.
    #[error("network.switch: {0}")]
    Switch(io::Error),
    /// It is no switch's address.
    #[error("network.switch: {0}")]
    Address(#[from] SwitchAddressError),
    /// The switch is another host's than the one that was named.
    #[error("network.switch_host: {0}")]
    SwitchHost(SwitchRefused),
    /// The switch and this host do not know each other's keys.
    #[error("network.keys: {0}")]
    SwitchKeys(SwitchRefused),
    /// The keys for a switch of another host.
    #[error("network.keys: {0}")]
    Keys(#[from] KeysError),
    /// The TAP device cannot be used.
    #[error("network.tap: {0}")]
    Tap(io::Error),
}

impl NetworkError {
    /// Of a switch that could not be reached, or does not take this machine.
    fn of_switch(error: io::Error) -> NetworkError {
        let inner = error.get_ref();
        let refused = inner.and_then(|inner| inner.downcast_ref::<SwitchRefused>());
        match refused.cloned() {
            None => NetworkError::Switch(error),
            Some(refused) if matches!(refused.refusal, Refusal::NotAMember(..)) => {
                NetworkError::SwitchHost(refused)
            }
            Some(refused) => NetworkError::SwitchKeys(refused),
        }
    }
}

impl Network {
    /// Of this configuration. A switch is not waited for: the first [`Network::reconnect`] begins to
    /// connect. A TAP device is this host's own, and attached at once.
    ///
    /// # Errors
    /// What no waiting makes good: an address that is none, keys that cannot be read, no such device.
    pub fn open(end: &NetworkEnd) -> Result<Network, NetworkError> {
        let keys = match &end.attachment {
            Attachment::RemoteSwitch(switch) => {
                let let_in = LetIn::Hosts([switch.host.clone()].into());
                Some(Keys::open(&switch.keys, Purpose::Switch, let_in)?)
            }
            Attachment::Switch(_) | Attachment::Tap(_) => None,
        };
        let attachment = match (&end.attachment, environment::current()) {
            (_, Some(simulation)) => Some(Attached::Simulated(simulation.attach(end.mac))),
            (Attachment::Tap(name), None) => {
                let tap = NetworkAttachment::tap(name).map_err(NetworkError::Tap)?;
                Some(Attached::Host(tap))
            }
            (
                Attachment::Switch(address)
                | Attachment::RemoteSwitch(RemoteSwitch { address, .. }),
                None,
            ) => {
                address.parse::<SwitchAddress>()?;
                None
            }
        };
        Ok(Network {
            end: end.clone(),
            keys,
            attachment,
            attached_at_ns: 0,
            attempt: None,
            retry_at_ns: 0,
            trouble: None,
            told: false,
        })
    }

    /// As [`Network::open`], but waits for the switch: five seconds at most. For a person who waits.
    ///
    /// # Errors
    /// As there; or the switch cannot be reached.
    pub fn connect(end: &NetworkEnd) -> Result<Network, NetworkError> {
        let mut network = Network::open(end)?;
        if network.attachment.is_none() {
            let (address, serves) = (end.attachment.place(), Some(end.mac));
            let attachment = NetworkAttachment::switch(address, serves, network.keys.as_ref());
            let attachment = attachment.map_err(NetworkError::of_switch)?;
            network.attachment = Some(Attached::Host(attachment));
        }
        Ok(network)
    }

    /// Adds what to wait for, connected or on the way there.
    pub fn interests<'fd, Token>(&'fd self, set: &mut PollSet<'fd, Token>, token: Token) {
        match (&self.attachment, &self.attempt) {
            (Some(Attached::Host(attachment)), _) => {
                set.add(attachment.fd(), token, true, attachment.wants_write());
            }
            // The loop asks it whether it has a frame.
            (Some(Attached::Simulated(_)), _) => {}
            (None, Some((attempt, _))) => {
                set.add(attempt.fd(), token, true, attempt.wants_write());
            }
            (None, None) => {}
        }
    }

    /// The keys for a switch of another host.
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Whether a frame waits in this process, so that polling would not tell.
    pub fn has_frame(&self) -> bool {
        self.attachment.as_ref().is_some_and(Attached::has_frame)
    }

    /// When [`Network::reconnect`] and [`Network::news`] should be called, on the monotonic clock.
    pub fn retry_at_ns(&self) -> Option<u64> {
        if self.attachment.is_some() {
            return self.told.then_some(self.attached_at_ns + SETTLED_NS);
        }
        let until = self.attempt.as_ref().map(|(_, until_ns)| *until_ns);
        Some(until.unwrap_or(self.retry_at_ns))
    }

    /// Goes on with connecting, or tries again when it is time to; it never waits. True when it is
    /// connected, again or at last. To be called whenever the event loop has turned.
    pub fn reconnect(&mut self, now_ns: u64) -> bool {
        if self.attachment.is_some() {
            return false;
        }
        if self.attempt.is_none() {
            if now_ns < self.retry_at_ns {
                return false;
            }
            self.retry_at_ns = now_ns + RETRY_NS;
            match begin(&self.end, self.keys.as_ref()) {
                Ok(attempt) => self.attempt = Some((attempt, now_ns + ANSWER_NS)),
                Err(error) => self.failed(&error),
            }
        }
        let Some((mut attempt, until_ns)) = self.attempt.take() else {
            return false;
        };
        match attempt.is_connected() {
            Ok(true) => {
                self.attachment = Some(Attached::Host(attempt));
                self.attached_at_ns = now_ns;
            }
            Ok(false) if now_ns < until_ns => self.attempt = Some((attempt, until_ns)),
            // Again when it is time to.
            Ok(false) => self.trouble = Some(no_answer(&self.end)),
            Err(error) => self.failed(&error),
        }
        self.attachment.is_some()
    }

    /// What people were not told yet: once that it is out of reach, and once that it is back. A switch
    /// that turns this host away only after it had let it in, as TLS 1.3 does, is not back for that.
    pub fn news(&mut self, now_ns: u64) -> Option<NetworkNews> {
        if self.attachment.is_some() && now_ns >= self.attached_at_ns + SETTLED_NS {
            self.trouble = None;
        }
        match (&self.trouble, self.told) {
            (Some(why), false) => {
                self.told = true;
                Some(NetworkNews::Lost(why.clone()))
            }
            (None, true) => {
                self.told = false;
                Some(NetworkNews::Back)
            }
            (Some(_), true) | (None, false) => None,
        }
    }

    /// Why it is out of reach, if it is.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Sends a frame with the next [`Network::flush`]; it is lost while the network is.
    pub fn send(&mut self, frame: &[u8]) {
        if let Some(attachment) = &mut self.attachment {
            let sent = attachment.enqueue(frame);
            self.check(sent);
        }
    }

    /// Writes what was sent, as far as the other side takes it: all of it with one system call.
    pub fn flush(&mut self) {
        if let Some(attachment) = &mut self.attachment
            && attachment.wants_write()
        {
            // Whoever hung up may have said why.
            let flushed = attachment.flush();
            let flushed = flushed.map_err(|error| last_words(attachment).unwrap_or(error));
            self.check(flushed);
        }
    }

    /// Takes frames, and writes what waited.
    pub fn serve(&mut self, mut give: impl FnMut(Vec<u8>)) {
        let Some(attachment) = &mut self.attachment else {
            return;
        };
        let mut result = attachment.flush();
        for _ in 0..FRAMES_A_TURN {
            match attachment.receive() {
                Ok(Some(frame)) => give(frame),
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.check(result);
    }

    /// Tells the network where the guest is now: a reverse ARP request from its address, which
    /// every switch learns from and no station answers (RFC 903; as hypervisors do).
    pub fn announce(&mut self) {
        self.send(&rarp_announcement(self.end.mac));
    }

    /// An error means that the network has gone. It is tried again at once, unless it was tried just
    /// now.
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.attachment = None;
            self.failed(&error);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let (place, text) = (self.end.attachment.place(), error.to_string());
        let names_it = text.contains(place);
        self.trouble = Some(if names_it {
            text
        } else {
            format!("{place}: {text}")
        });
    }
}

/// The error with which an attachment ends that cannot be written to any more, if it says so.
fn last_words(attachment: &mut Attached) -> Option<io::Error> {
    loop {
        match attachment.receive() {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

fn no_answer(end: &NetworkEnd) -> String {
    format!(
        "cannot reach the switch at {}: no answer within {} s; is `understudy switch` running there?",
        end.attachment.place(),
        ANSWER_NS / 1_000_000_000
    )
}

/// Begins to attach, without waiting.
fn begin(end: &NetworkEnd, keys: Option<&Keys>) -> io::Result<NetworkAttachment> {
    let serves = Some(end.mac);
    match &end.attachment {
        Attachment::Switch(_) | Attachment::RemoteSwitch(_) => {
            NetworkAttachment::begin_switch(end.attachment.place(), serves, keys)
        }
        Attachment::Tap(name) => NetworkAttachment::tap(name),
    }
}

/// The outside of one machine.
#[derive(Debug, Default)]
pub struct Outside {
    /// The network, if the machine has one.
    pub network: Option<Network>,
    /// The consoles' output.
    pub console: ConsoleSink,
}

impl Outside {
    /// Writes the frames that were emitted.
    pub fn flush(&mut self) {
        if let Some(network) = &mut self.network {
            network.flush();
        }
    }

    /// Lets an output out: a frame with the next [`Outside::flush`].
    pub fn emit(&mut self, output: &Output) {
        match output {
            Output::NetworkFrame { frame, .. } => {
                if let Some(network) = &mut self.network {
                    network.send(frame);
                }
            }
            Output::ConsoleBytes { bytes, .. } => self.console.print(bytes),
            Output::Disk(_)
            | Output::EntropyRequest { .. }
            | Output::Finish(_)
            | Output::Reboot
            | Output::Trouble(_) => {}
        }
    }

    /// Takes frames from the network as inputs.
    pub fn serve(&mut self, mut give: impl FnMut(Input)) {
        if let Some(network) = &mut self.network {
            network.serve(|frame| give(Input::NetworkFrame { device: 0, frame }));
        }
    }
}

/// Typed bytes as an input.
pub fn typed(bytes: Vec<u8>) -> Input {
    Input::ConsoleBytes {
        console: Console::Uart,
        bytes,
    }
}

fn rarp_announcement(mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(0x8035u16.to_be_bytes()); // RARP
    frame.extend([0, 1, 8, 0, 6, 4]); // Ethernet, IPv4, address lengths
    frame.extend(3u16.to_be_bytes()); // request reverse
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.resize(60, 0); // least length of an Ethernet frame without FCS
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RemoteSwitch;
    use keys::{BlockingSession, Site, Validity};
    use std::time::Duration;

    fn keys_of(site: &Site, host: &str) -> Keys {
        let host = host.parse().unwrap();
        let directory = site.issue(&host, Validity::days(9)).unwrap();
        Keys::open(&directory, Purpose::Switch, LetIn::Site).unwrap()
    }

    /// A listener in a switch's place, and how a replica gets there.
    fn switch(site: &Site) -> (std::net::TcpListener, NetworkEnd) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keys = keys_of(site, "hosta").directory().to_owned();
        let attachment = Attachment::RemoteSwitch(RemoteSwitch {
            address: format!("tcp:{address}"),
            keys,
            host: "switch".parse().unwrap(),
        });
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        (listener, NetworkEnd { attachment, mac })
    }

    /// Takes the next one that connects, on a thread of its own.
    fn take(
        listener: &std::net::TcpListener,
        keys: &Keys,
    ) -> std::thread::JoinHandle<BlockingSession> {
        let (listener, keys) = (listener.try_clone().unwrap(), keys.clone());
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            BlockingSession::accept(&keys, socket, Duration::from_secs(60)).unwrap()
        })
    }

    /// Both calls return although nobody answers: the listener's queue is full, so that the kernel
    /// drops what asks for a connection (listen(2)).
    #[test]
    fn a_switch_that_does_not_answer_is_tried_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let (listener, end) = switch(&site);
        let keys = keys_of(&site, "switch");
        let taken = take(&listener, &keys);
        let mut network = Network::connect(&end).unwrap();
        drop(taken.join().unwrap());
        await_loss(&mut network);
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let filler = std::net::TcpStream::connect(address).unwrap();
        assert!(!network.reconnect(1));
        // The attempt is under way, and is given up after its time, not in the middle of a turn.
        assert_eq!(network.retry_at_ns(), Some(1 + ANSWER_NS));
        assert!(!network.reconnect(2));
        assert_eq!(network.retry_at_ns(), Some(1 + ANSWER_NS));
        assert!(!network.reconnect(1 + ANSWER_NS));
        assert!(network.retry_at_ns().unwrap() <= 1 + ANSWER_NS);
        drop(filler);
    }

    #[test]
    fn a_switch_of_another_host_is_told_of_the_key_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let (listener, end) = switch(&site);
        let other = keys_of(&site, "other");
        let refused = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            BlockingSession::accept(&other, socket, Duration::from_secs(60)).unwrap_err()
        });
        let error = Network::connect(&end).unwrap_err().to_string();
        refused.join().unwrap();
        let key = "network.switch_host: the switch at tcp:127.0.0.1:";
        assert!(error.starts_with(key), "{error}");
        assert!(
            error.contains("it is other, which is not one of switch"),
            "{error}"
        );
        assert!(!error.contains("running there"), "{error}");
    }

    #[test]
    fn a_network_that_is_back_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let (listener, end) = switch(&site);
        let keys = keys_of(&site, "switch");
        let taken = take(&listener, &keys);
        let mut network = Network::connect(&end).unwrap();
        drop(taken.join().unwrap());
        await_loss(&mut network);
        assert!(matches!(network.news(1), Some(NetworkNews::Lost(_))));
        assert_eq!(network.news(1), None);
        let taken = take(&listener, &keys);
        await_connection(&mut network, 2);
        let session = taken.join().unwrap();
        assert!(!network.reconnect(3));
        // It may still turn this host away.
        assert_eq!(network.news(1 + SETTLED_NS), None);
        assert!(network.trouble().is_some());
        assert_eq!(network.retry_at_ns(), Some(2 + SETTLED_NS));
        assert_eq!(network.news(2 + SETTLED_NS), Some(NetworkNews::Back));
        assert_eq!(network.news(2 + SETTLED_NS), None);
        assert_eq!((network.trouble(), network.retry_at_ns()), (None, None));
        drop(session);
    }

    /// Whoever is not there when a replica starts is as one that was lost: said once, with the reason, and
    /// tried again.
    #[test]
    fn a_switch_that_is_not_there_yet_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch.sock");
        let end = NetworkEnd {
            attachment: Attachment::Switch(format!("unix:{}", path.display())),
            mac: [0x52, 0x54, 0, 1, 2, 3],
        };
        let mut network = Network::open(&end).unwrap();
        assert_eq!(network.retry_at_ns(), Some(0));
        assert!(!network.reconnect(1));
        let Some(NetworkNews::Lost(why)) = network.news(1) else {
            panic!("it is told");
        };
        assert!(why.contains("switch.sock"), "{why}");
        assert_eq!(network.trouble(), Some(&*why));
        assert_eq!(network.retry_at_ns(), Some(1 + RETRY_NS));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!network.reconnect(RETRY_NS));
        assert!(network.reconnect(1 + RETRY_NS));
        let later = 1 + RETRY_NS + SETTLED_NS;
        assert_eq!(network.news(later), Some(NetworkNews::Back));
    }

    /// In TLS 1.3 a client is through with its handshake before the other side has looked at its
    /// certificate: being turned away then is no coming back, and no reason to knock without a pause.
    #[test]
    fn a_switch_that_turns_this_host_away_is_told_once_and_not_knocked_at_without_a_pause() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let (listener, end) = switch(&site);
        let keys = keys_of(&site, "switch");
        let nobody = LetIn::Hosts(Default::default());
        let strict = Keys::open(keys.directory(), Purpose::Switch, nobody).unwrap();
        let mut network = Network::open(&end).unwrap();
        let mut now_ns = 1;
        for attempt in 0..2 {
            let (listener, strict) = (listener.try_clone().unwrap(), strict.clone());
            let taken = std::thread::spawn(move || {
                let (socket, _) = listener.accept().unwrap();
                BlockingSession::accept(&strict, socket, Duration::from_secs(60)).is_ok()
            });
            let mut began = false;
            while network.retry_at_ns() != Some(now_ns + RETRY_NS) || !began {
                began = true;
                network.reconnect(now_ns);
                if network.retry_at_ns() == Some(now_ns + RETRY_NS) {
                    break;
                }
                let mut set = PollSet::new();
                network.interests(&mut set, ());
                set.wait(Some(Duration::from_millis(100))).unwrap();
                network.serve(|_| {});
            }
            assert!(!taken.join().unwrap(), "it was let in");
            match (attempt, network.news(now_ns)) {
                (0, Some(NetworkNews::Lost(why))) => assert!(why.contains("named"), "{why}"),
                (1, None) => {}
                (_, other) => panic!("attempt {attempt}: {other:?}"),
            }
            assert!(!network.reconnect(now_ns + RETRY_NS - 1));
            now_ns += RETRY_NS;
        }
    }

    #[test]
    fn what_no_waiting_makes_good_is_an_error_at_once() {
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(120));
        let remote = RemoteSwitch {
            address: "tcp:127.0.0.1:1".into(),
            keys: directory.path().join("none"),
            host: "switch".parse().unwrap(),
        };
        for (attachment, words) in [
            (Attachment::Switch("nonsense".into()), "nonsense"),
            (
                Attachment::Switch(format!("unix:{}", long.display())),
                "107",
            ),
            (Attachment::RemoteSwitch(remote), "none"),
            (Attachment::Tap("a name".into()), "a name"),
        ] {
            let error = Network::open(&NetworkEnd { attachment, mac }).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    fn await_loss(network: &mut Network) {
        while network.trouble().is_none() {
            network.serve(|_| {});
            std::thread::yield_now();
        }
    }

    fn await_connection(network: &mut Network, now_ns: u64) {
        while !network.reconnect(now_ns) {
            let mut set = PollSet::new();
            network.interests(&mut set, ());
            set.wait(None).unwrap();
        }
    }

    #[test]
    fn rfc903_request_reverse_is_a_broadcast_from_the_guest() {
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let frame = rarp_announcement(mac);
        assert_eq!(frame.len(), 60);
        assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &mac[..]));
        assert_eq!(frame[12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    }
}
