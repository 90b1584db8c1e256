//! `understudy switch`.

use crate::exit::{ExitStatus, Failure};
use clap::Args;
use keys::{HostName, Keys, LetIn, Purpose};
use network::{
    ConnectionLimits, Forward, Protocol, StaticLease, Subnet, SwitchAddress, SwitchOptions,
};
use replica::StopSignals;
use replica::key_watch::KeyWatch;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Run a network switch with a gateway, without root, that outlives the replicas.
///
/// Guests get 10.0.2.15 and up by DHCP, reach the world through 10.0.2.2, and are reached through
/// forwards of host ports; --subnet chooses another network, with the same last numbers. Prints where
/// it listens when it is ready; SIGTERM ends it.
#[derive(Debug, Args)]
pub struct Switch {
    /// Where replicas connect: unix:/path or tcp:127.0.0.1:7500; may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    listen: Vec<SwitchAddress>,
    /// The directory of this host's keys, for listening at tcp: (`understudy keys issue`)
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// A host that is let in at tcp:; may be repeated (default: all hosts of the site)
    #[arg(long, value_name = "HOST", requires = "keys")]
    member: Vec<HostName>,
    /// The guests' network: its second address is the gateway, its third the DNS relay, its fifteenth
    /// the first guest
    #[arg(long, value_name = "NETWORK/PREFIX", default_value_t)]
    subnet: Subnet,
    /// Lead a host port to a guest port: 127.0.0.1:6379=10.0.2.15:6379 or 6379:6379, of UDP as
    /// udp:53:53; host port 0 is any free one; may be repeated
    #[arg(long, value_name = "[udp:]HOST=GUEST")]
    forward: Vec<Forward>,
    /// Always give this guest this address: MAC=ADDRESS; may be repeated
    #[arg(long, value_name = "MAC=ADDRESS")]
    lease: Vec<StaticLease>,
    /// No gateway: only connect the ports
    #[arg(long)]
    no_gateway: bool,
    /// Let whoever is connected reach this host's own loopback services, at the gateway's address
    #[arg(long)]
    allow_host_loopback: bool,
    /// TCP connections to guests at the same time; more are reset
    #[arg(long, value_name = "COUNT", default_value_t = ConnectionLimits::default().inwards)]
    max_inward_connections: usize,
    /// TCP connections from guests at the same time; more are reset
    #[arg(long, value_name = "COUNT", default_value_t = ConnectionLimits::default().outwards)]
    max_outward_connections: usize,
    /// Where DNS requests go (default: this host's resolver)
    #[arg(long, value_name = "ADDRESS:PORT")]
    resolver: Option<SocketAddr>,
    /// Keep the switch's state in this file, as JSON
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
    /// Write all frames to this file, in the format of pcap
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

impl Switch {
    fn keys(&self) -> Result<Option<Keys>, Failure> {
        let let_in = match &self.member[..] {
            [] => LetIn::Site,
            members => LetIn::Hosts(members.iter().cloned().collect()),
        };
        let open = |path: &PathBuf| Keys::open(path, Purpose::Switch, let_in);
        self.keys
            .as_ref()
            .map(open)
            .transpose()
            .map_err(Failure::usage)
    }

    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let keys = self.keys()?;
        let watch = |keys: &Keys| {
            KeyWatch::start(keys.clone(), Vec::new(), |news| {
                // Whoever closed standard error does not want to know.
                let _written = writeln!(std::io::stderr(), "{}: {}", news.event, news.detail);
            })
        };
        let _watch = keys.as_ref().map(watch).transpose()?;
        let options = SwitchOptions {
            listen: self.listen,
            keys,
            forwards: self.forward,
            gateway: !self.no_gateway,
            subnet: self.subnet,
            host_loopback: self.allow_host_loopback,
            connections: ConnectionLimits {
                inwards: self.max_inward_connections,
                outwards: self.max_outward_connections,
            },
            resolver: self.resolver,
            static_leases: self.lease,
            status_file: self.status_file,
            pcap: self.pcap,
        };
        let signals = StopSignals::catch()?;
        network::run(&options, signals.fd(), |status| {
            let mut text = format!("listening at {}\n", status.listen.join(", "));
            for forward in &status.forwards {
                let udp = if forward.protocol == Protocol::Udp.to_string() {
                    "udp:"
                } else {
                    ""
                };
                text.push_str(&format!(
                    "{udp}{} leads to {}\n",
                    forward.host, forward.guest
                ));
            }
            let mut stdout = std::io::stdout().lock();
            // Whoever closed it does not want to know.
            let _printed = stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush());
        })
        .map_err(Failure::usage)?;
        Ok(ExitStatus::Success)
    }
}
