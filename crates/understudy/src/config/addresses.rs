//! Where another host listens: `"192.0.2.7:7400"`, or of a host with several networks
//! `["10.1.0.2:7400", "10.2.0.2:7400"]`.

use replica::PeerAddresses;
use replica::peer_addresses::MAX_ADDRESSES;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The addresses of one host, from one to [`MAX_ADDRESSES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddresses(pub PeerAddresses);

impl From<String> for HostAddresses {
    fn from(address: String) -> HostAddresses {
        HostAddresses(address.into())
    }
}

impl Serialize for HostAddresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_one() {
            true => serializer.serialize_str(self.0.first()),
            false => serializer.collect_seq(self.0.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for HostAddresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HostAddresses, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = HostAddresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address such as \"192.0.2.7:7400\", or a list of all addresses of one host",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<HostAddresses, E> {
                Ok(text.to_owned().into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HostAddresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(address) = list.next_element::<String>()? {
                    addresses.push(address);
                }
                let count = addresses.len();
                PeerAddresses::new(addresses)
                    .map(HostAddresses)
                    .ok_or_else(|| {
                        A::Error::custom(format!(
                            "{count} addresses of one host: there are from 1 to {MAX_ADDRESSES}"
                        ))
                    })
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}
