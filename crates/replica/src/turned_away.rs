//! Hosts that are there and with which no session comes about: who does not let whom in, and what to do.

use crate::peer_stream::Membership;
use keys::{HostName, Refusal, Told};
use replication::startup::TurnedAway;
use std::io;

/// What came of speaking with the host at `address`, if one of both did not let the other in. `peer`: who it
/// is, if it has proved that. `None`: nobody is there, or nothing of this site.
pub fn turned_away(
    error: &io::Error,
    address: &str,
    peer: Option<&HostName>,
    membership: &Membership,
) -> Option<TurnedAway> {
    let Membership::Keys(keys) = membership else {
        return None;
    };
    let refusal: &Refusal = error.get_ref()?.downcast_ref()?;
    let own = keys.certificate().name;
    let who = peer.map_or_else(|| format!("somebody at {address}"), HostName::to_string);
    let (host, why) = match refusal {
        // Something else listens there, or nobody was spoken to.
        Refusal::NotTls(_) | Refusal::NoRandomNumbers | Refusal::ByPeer(Told::OtherPurpose) => {
            return None;
        }
        Refusal::ByPeer(Told::NotLetIn) => (
            peer.map(HostName::to_string),
            format!(
                "{who} answers, but lets nobody named {own} in: pair.members there does not list it"
            ),
        ),
        Refusal::ByPeer(told) => (
            peer.map(HostName::to_string),
            format!("{who} answers, but does not let {own} in: {told}"),
        ),
        Refusal::NotAMember(name, _) => (
            Some(name.clone()),
            format!(
                "{name} answers at {address}, but is not let in here: pair.members of this host does \
                 not list it"
            ),
        ),
        Refusal::AnotherSite
        | Refusal::Expired { .. }
        | Refusal::Nameless
        | Refusal::Unproven(_) => (
            None,
            format!("somebody answers at {address}, but is not let in here: {refusal}"),
        ),
    };
    Some(TurnedAway { host, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{Keys, LetIn, Purpose, Site, UnixTime, Validity};
    use std::io::ErrorKind;
    use std::time::Duration;

    /// Each says who answers, who does not let whom in, and where to look.
    #[test]
    fn what_keeps_two_hosts_apart_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let issued = site.issue(&"hostc".parse().unwrap(), Validity::days(9));
        let keys = Keys::open(&issued.unwrap(), Purpose::Replica, LetIn::Site).unwrap();
        let membership = Membership::Keys(keys);
        let hostb: HostName = "hostb".parse().unwrap();
        let told = |refusal: Refusal, peer: Option<&HostName>| {
            let error = io::Error::new(ErrorKind::PermissionDenied, refusal);
            turned_away(&error, "192.0.2.2:7400", peer, &membership)
        };
        let told_by = |by| told(Refusal::ByPeer(by), Some(&hostb)).unwrap();
        let not_let_in = told_by(Told::NotLetIn);
        assert_eq!(not_let_in.host.as_deref(), Some("hostb"));
        assert_eq!(
            not_let_in.why,
            "hostb answers, but lets nobody named hostc in: pair.members there does not list it"
        );
        let expired = told_by(Told::Expired).why;
        assert!(expired.contains("hostb answers") && expired.contains("keys rotate"));
        let stranger = told(Refusal::NotAMember("hostd".into(), "hostc".into()), None).unwrap();
        assert_eq!(stranger.host.as_deref(), Some("hostd"));
        assert!(stranger.why.contains("pair.members of this host"));
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let late = Refusal::Expired {
            not_after: time(0),
            now: time(9),
        };
        for refusal in [late, Refusal::AnotherSite] {
            let told = told(refusal, None).unwrap();
            assert!(told.host.is_none() && told.why.contains("192.0.2.2:7400"));
        }
        for nobody in [
            Refusal::NotTls("HTTP".into()),
            Refusal::ByPeer(Told::OtherPurpose),
        ] {
            assert_eq!(told(nobody, None), None);
        }
        let gone = io::Error::from(ErrorKind::ConnectionRefused);
        assert_eq!(
            turned_away(&gone, "192.0.2.2:7400", None, &membership),
            None
        );
    }
}
