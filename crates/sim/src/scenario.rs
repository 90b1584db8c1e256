//! What a seed's world is like: chosen once, at the beginning.

use crate::checker::{host, machine};
use crate::network::Link;
use crate::random::Random;
use crate::unlike::{MACHINE_MEMORY, Unlike};
use replication::config::PairConfig;
use replication::configuration::{Build, Configuration};
use replication::cursor::BatchConfig;
use replication::failure_detector::DetectorConfig;
use replication::lag::{LagConfig, LagPolicy};
use replication::message::{Greeting, LifeId};
use replication::mutation::Mutations;
use replication::startup::StartupConfig;
use replication::succession::{Durability, RunId};
use std::time::Duration;

/// A millisecond, in nanoseconds.
pub const MS: u64 = 1_000_000;

/// The longest way between two nodes, one way, in nanoseconds.
pub const MAX_DELAY: u64 = 200 * MS;

/// Speeds, sizes and tempers of one world.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Hosts.
    pub nodes: usize,
    /// When faults end and calm begins, in nanoseconds.
    pub calm_from: u64,
    /// Faults at random times.
    pub faults: u64,
    /// Percentage of delicate moments at which something is struck.
    pub strike_percent: u64,
    /// Length of a vcpu's quantum.
    pub quantum: u64,
    /// The primary's instructions in a millisecond.
    pub speed: u64,
    /// The backup's speed in hundredths of the primary's.
    pub replay_percent: u64,
    /// The guest's instructions for one input.
    pub work_per_input: u64,
    /// Instructions between outputs that nobody asked for.
    pub output_spacing: u64,
    /// Between clock records of an idle guest.
    pub idle_wake: u64,
    /// Between digest records.
    pub digest_interval: u64,
    /// Most time between the vcpu thread and the event loop.
    pub channel_delay: u64,
    /// Percentage of inputs that need this host's disk.
    pub disk_percent: u64,
    /// Pieces of a snapshot, and time between two.
    pub chunks: u64,
    /// Time between two pieces.
    pub chunk_time: u64,
    /// Time to make a machine of a snapshot.
    pub restore_time: u64,
    /// When a flush is complete.
    pub durability: Durability,
    /// Most time that a sync or the writing of a marker takes.
    pub sync_time: u64,
    /// That is done on the event loop, which does nothing else meanwhile.
    pub restore_blocks: bool,
    /// In the calm the outside asks nothing for so long, and the guest idles.
    pub quiet: u64,
    /// The hosts are far from each other, and the way changes: whether that slows the guest is
    /// looked at.
    pub is_far: bool,
    /// From each node to the other, one way.
    pub delays: Vec<u64>,
    /// The nodes' clocks: what each says at the beginning, and thousandths of its speed.
    pub clocks: Vec<(u64, u64)>,
    /// Whether the guest ends the machine in between.
    pub power_off: bool,
    /// The network when nothing is wrong.
    pub link: Link,
    /// So many of the hosts, the last ones, are spares.
    pub spares: usize,
    /// In what one host is unlike the others.
    pub unlike: Unlike,
    batch: BatchConfig,
    lag: LagConfig,
    /// Bytes of records that a log keeps for whoever comes back.
    log_bytes: usize,
}

impl Scenario {
    /// Chooses; worlds of `hosts` hosts if that is given.
    pub fn choose(random: &mut Random, hosts: Option<usize>) -> Scenario {
        let speed = random.pick(&[500, 2_000, 10_000]);
        let ms = |n: u64| n * MS;
        let is_far = random.percent(20);
        let near = random.pick(&[MS / 20, MS / 2, ms(10)]);
        let nodes = random.pick(&[2, 2, 2, 2, 3, 3, 4, 5]);
        let nodes = hosts.unwrap_or(nodes);
        let delays = (0..nodes).map(|_| {
            if is_far {
                random.between(0, MAX_DELAY)
            } else {
                near
            }
        });
        let delays: Vec<u64> = delays.collect();
        let restore_time = ms(random.pick(&[0, 0, 10, 10, 300, 300, 1_400, 6_000]));
        let quiet = if random.percent(6) { ms(7_000) } else { 0 };
        let digest_interval = ms(random.pick(&[50, 300]));
        let mut clock = || (random.between(0, 1 << 50), random.between(990, 1010));
        let clocks: Vec<(u64, u64)> = (0..nodes).map(|_| clock()).collect();
        let mut scenario = Scenario {
            nodes,
            calm_from: ms(random.between(1_500, 5_000)),
            faults: random.between(1, 6),
            strike_percent: random.pick(&[0, 0, 5, 20]),
            quantum: random.pick(&[MS, ms(2), ms(5)]),
            speed,
            replay_percent: random.pick(&[60, 110, 300, 300]),
            work_per_input: speed * random.pick(&[1, 5, 60]),
            output_spacing: speed * random.pick(&[3, 20, 200]),
            idle_wake: match quiet {
                0 => ms(random.pick(&[10, 60, 200])),
                _ => ms(60_000),
            },
            digest_interval: if quiet == 0 {
                digest_interval
            } else {
                ms(60_000)
            },
            channel_delay: random.pick(&[0, MS / 5, ms(3)]),
            disk_percent: random.pick(&[0, 0, 20]),
            chunks: random.pick(&[0, 1, 8, 30]),
            chunk_time: random.pick(&[0, ms(2), ms(20)]),
            durability: random.pick(&[Durability::Primary, Durability::Both]),
            sync_time: random.pick(&[MS, ms(20), ms(400)]),
            restore_time,
            restore_blocks: restore_time < ms(2_000) && random.percent(40),
            quiet,
            is_far,
            delays,
            clocks,
            power_off: random.percent(8),
            link: Link {
                cut: false,
                delay: near,
                jitter: random.pick(&[0, MS / 2, ms(15)]),
                byte_time: random.pick(&[0, 8, 1000]),
            },
            spares: 0,
            unlike: Unlike::None,
            batch: BatchConfig {
                delay: Duration::from_millis(random.pick(&[0, 5, 20])),
                bytes: random.pick(&[1, 200, 32 << 10]),
                idle_instructions: random.pick(&[0, speed]),
            },
            lag: LagConfig {
                policy: LagPolicy::Slow,
                limit: Duration::from_millis(500),
                target: Duration::from_millis(random.pick(&[30, 100])),
                bytes_in_flight: random.pick(&[300, 8 << 20]),
                held_outputs: random.pick(&[20, 4096]),
            },
            log_bytes: random.pick(&[100, 4_000, 8 << 20, 8 << 20]),
        };
        scenario.choose_lag_policy();
        // As with the policy.
        let has_spare = scenario.nodes >= 3 && scenario.clocks[1].0 & 3 == 0;
        scenario.spares = usize::from(has_spare);
        scenario.unlike = Unlike::choose(&scenario);
        scenario
    }

    /// In some worlds members that lag are let go. Backups keep up there but for the faults, or they would
    /// be let go for ever, and all is well only when all follow; and guests have something to do.
    fn choose_lag_policy(&mut self) {
        // What a clock says is as good as any other number.
        self.lag.policy = match self.clocks[0].0 & 15 {
            0..=2 => LagPolicy::Drop,
            3 => LagPolicy::DropAny,
            _ => return,
        };
        self.replay_percent = 300;
        self.lag.bytes_in_flight = 8 << 20;
        self.lag.held_outputs = 4096;
        self.link.byte_time = self.link.byte_time.min(8);
        self.work_per_input = self.work_per_input.max(5 * self.speed);
    }

    /// How the process `run` on a node starts.
    pub fn startup(&self, node: usize, run: u64, mutations: Mutations) -> StartupConfig {
        let life = LifeId(u128::from(run) << 64);
        StartupConfig {
            durability: self.durability,
            peers: self.nodes as u8 - 1,
            is_spare: self.is_spare(node),
            peer_timeout: Duration::from_millis(400),
            mutations,
            ..StartupConfig::new(machine(), host(node), RunId(run.into()), life)
        }
    }

    /// What a node's clock says.
    pub fn clock(&self, node: usize, now: u64) -> Duration {
        let (start, rate) = self.clocks[node];
        Duration::from_nanos(start + now / 1000 * rate + now % 1000 * rate / 1000)
    }

    /// When a node's clock will say `time`.
    pub fn world_time(&self, node: usize, time: Duration) -> u64 {
        let (start, rate) = self.clocks[node];
        let ran = u128::from(
            u64::try_from(time.as_nanos())
                .unwrap_or(u64::MAX)
                .saturating_sub(start),
        );
        u64::try_from((ran * 1000).div_ceil(u128::from(rate))).unwrap_or(u64::MAX)
    }

    /// Whether a host is a spare.
    pub fn is_spare(&self, node: usize) -> bool {
        node + self.spares >= self.nodes
    }

    /// How many backups are wanted.
    pub fn backups(&self) -> usize {
        self.nodes - self.spares - 1
    }

    /// What becomes of members that lag.
    pub fn lag_policy(&self) -> LagPolicy {
        self.lag.policy
    }

    /// Whether the lag alone can be what slows a primary whose backup keeps up.
    pub fn is_roomy(&self) -> bool {
        self.replay_percent >= 300
            && self.lag.bytes_in_flight >= 8 << 20
            && self.lag.held_outputs >= 4096
            && self.link.byte_time < 1000
    }

    /// The configuration of the process `run` on a node.
    pub fn config(&self, node: usize, run: u64, mutations: Mutations) -> PairConfig {
        let greeting = Greeting {
            build: Build::default(),
            semantics_version: 1,
            configuration: Configuration::new(7),
            machine: machine(),
            host: host(node),
            run: RunId(run.into()),
            listen_port: 0,
        };
        PairConfig {
            protocol: self.protocol(node),
            machine_memory: MACHINE_MEMORY,
            watch_interval: Duration::from_millis(500),
            durability: self.durability,
            detector: DetectorConfig {
                join_timeout: Duration::from_secs(2),
                record_timeout: Some(Duration::from_secs(2)),
                stall_timeout: Duration::from_secs(2),
                ..DetectorConfig::default()
            },
            batch: self.batch,
            digest_interval: Duration::from_nanos(self.digest_interval),
            lag: self.lag,
            join_backlog_bytes: 4000,
            log_bytes: self.log_bytes,
            max_members: self.backups(),
            is_spare: self.is_spare(node),
            spare_after: Duration::from_millis(700),
            mutations,
            ..PairConfig::new(greeting)
        }
    }
}
