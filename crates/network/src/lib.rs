//! The guest's network: a layer-2 switch with a gateway, which needs no root and outlives the
//! replicas, or a TAP device on the host's bridge.
//!
//! Replicas connect to either through [`NetworkAttachment`]. At a failover the new primary announces
//! the guest's MAC address with a broadcast frame, and the switch moves the address to its port at
//! once.
//!
//! It knows nothing of machines or replicas, and who may speak from `keys`. What every event loop needs, a [`PollSet`] and
//! non-blocking [`Stream`]s, is here as well.
#![deny(unsafe_code)] // allowed in `tap` only

mod address;
mod attachment;
mod door;
mod fabric;
mod frame_stream;
mod gateway;
mod greeting;
mod mac_table;
mod notices;
mod options;
mod pcap;
mod poll_set;
mod secure_stream;
mod status;
mod stream;
mod subnet;
mod switch;
mod switch_port;
#[allow(unsafe_code)] // two ioctls, TUNSETIFF and TUNSETOFFLOAD, that no safe wrapper offers
mod tap;

pub use address::{MAX_SOCKET_PATH_BYTES, SwitchAddress, SwitchAddressError};
pub use attachment::NetworkAttachment;
pub use door::Door;
pub use frame_stream::{FrameLengthError, MAX_FRAME_LENGTH, MIN_FRAME_LENGTH};
pub use options::{
    ConnectionLimits, Forward, ForwardError, Protocol, StaticLease, StaticLeaseError, SwitchOptions,
};
pub use pcap::Capture;
pub use poll_set::{PollSet, Readiness};
pub use secure_stream::SecureStream;
pub use status::{
    ForwardStatus, GatewayStatus, LeaseStatus, NoticeStatus, PortStatus, SwitchStatus,
};
pub use stream::{Stream, ready_or_none};
pub use subnet::{Subnet, SubnetError};
pub use switch::{Switch, SwitchError, run};
pub use switch_port::{SwitchPort, SwitchRefused};
pub use tap::Tap;
