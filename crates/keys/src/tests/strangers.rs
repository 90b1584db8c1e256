//! Whatever comes before the other side has proved who it is: any bytes, cut anywhere.
//!
//! The same cases run each time; proptest prints the smallest that fails.

use super::{End, hosts, issue, keys, wire};
use crate::session::STRANGER_BYTES;
use crate::{HostDirectory, Keys, LetIn, Refusal, Session, Validity};
use proptest::prelude::*;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io::ErrorKind;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;

/// A host's keys, made once: a case costs a handshake and no more.
static HOST: LazyLock<(TempDir, Keys)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    let keys = keys(&path, LetIn::Site);
    (directory, keys)
});

/// All that a member says in a session, and what it hears: by role, as the client and as the server.
static SAID: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let (mut client_end, mut server_end) = wire(1 << 20);
    let mut client = HOST.1.connect().unwrap();
    let mut server = HOST.1.accept().unwrap();
    let mut said = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        let over = client.handshake(&mut client_end).unwrap();
        said[0].extend(server_end.from.borrow().iter());
        let settled = server.handshake(&mut server_end).unwrap();
        said[1].extend(client_end.from.borrow().iter());
        if over && settled {
            return said;
        }
    }
    panic!("the handshake came to no end");
});

/// What somebody does to bytes on their way.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: usize, bits: u8 },
    Cut { at: usize },
    Insert { at: usize, bytes: Vec<u8> },
    Again { from: usize },
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || proptest::collection::vec(any::<u8>(), 1..300);
    prop_oneof![
        (any::<usize>(), 1u8..).prop_map(|(at, bits)| Change::Flip { at, bits }),
        any::<usize>().prop_map(|at| Change::Cut { at }),
        (any::<usize>(), bytes()).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        any::<usize>().prop_map(|from| Change::Again { from }),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: usize| at % (bytes.len() + 1);
        match change {
            Change::Flip { at, bits } if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
            Change::Flip { .. } => {}
            Change::Cut { at } => bytes.truncate(place(*at)),
            Change::Insert { at, bytes: more } => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Again { from } => {
                let from = place(*from);
                bytes.extend_from_within(from..);
            }
        }
    }
    bytes
}

/// Gives `bytes` to a session, so many at a time: it comes to no end but an error, knows nobody, and holds
/// no more than a stranger may make it hold.
fn never_lets_in(mut session: Session, bytes: &[u8], pieces: &[usize]) {
    let (mut end, _other) = wire(1 << 20);
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    loop {
        let length = pieces.next().map_or(1, |piece| *piece).min(rest.len());
        let (piece, left) = rest.split_at(length);
        rest = left;
        end.from.borrow_mut().extend(piece);
        match session.handshake(&mut end) {
            Ok(over) => assert!(!over, "a stranger came in"),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "that is no error");
                break;
            }
        }
        assert!(session.peer().is_none());
        assert!(session.held_bytes() <= STRANGER_BYTES);
        if rest.is_empty() {
            break;
        }
    }
    assert!(session.peer().is_none());
    drop::<End>(end);
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1usize..2_000, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// To whoever is connected to, and to whoever connects.
    #[test]
    fn any_bytes_cut_anywhere_let_nobody_in(
        bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
        pieces in pieces(),
    ) {
        never_lets_in(HOST.1.accept().unwrap(), &bytes, &pieces);
        never_lets_in(HOST.1.connect().unwrap(), &bytes, &pieces);
    }

    /// Records as TLS has them, of any kind, length and content.
    #[test]
    fn any_records_cut_anywhere_let_nobody_in(
        records in proptest::collection::vec(
            (20u8..25, proptest::collection::vec(any::<u8>(), 0..600), any::<Option<u16>>()),
            1..12,
        ),
        pieces in pieces(),
    ) {
        let mut bytes = Vec::new();
        for (kind, content, length) in &records {
            let length = length.unwrap_or(content.len() as u16);
            bytes.extend([*kind, 3, 3]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(content);
        }
        never_lets_in(HOST.1.accept().unwrap(), &bytes, &pieces);
        never_lets_in(HOST.1.connect().unwrap(), &bytes, &pieces);
    }

    /// What a member once said, as it was or changed on the way.
    #[test]
    fn a_members_words_changed_and_cut_anywhere_let_nobody_in(
        changes in proptest::collection::vec(change(), 0..4),
        pieces in pieces(),
    ) {
        let [client, server] = &*SAID;
        never_lets_in(HOST.1.accept().unwrap(), &changed(client.clone(), &changes), &pieces);
        never_lets_in(HOST.1.connect().unwrap(), &changed(server.clone(), &changes), &pieces);
    }
}

/// Somebody with a certificate that it has seen, and with a key that is not the certificate's.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl Impostor {
    fn client(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
    ) -> ClientConnection {
        let key = ring::sign::any_supported_type(key).unwrap();
        let shown = Arc::new(CertifiedKey::new(vec![certificate], key));
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Impostor(shown.clone())))
            .with_client_cert_resolver(Arc::new(Impostor(shown)));
        config.alpn_protocols = vec![b"understudy-replica".to_vec()];
        let name = ServerName::try_from("anybody.invalid").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }
}

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Impostor {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What somebody hears who shows a certificate without having its key, and why the server refuses.
fn shown_without_its_key(
    server: &Keys,
    certificate: &HostDirectory,
) -> (AlertDescription, Refusal) {
    let other = tempfile::tempdir().unwrap();
    let other = HostDirectory::read(&issue(&other, "somebody", Validity::days(10))).unwrap();
    let mut client = Impostor::client(certificate.der.clone(), &other.key);
    let mut session = server.accept().unwrap();
    let (mut client_end, mut server_end) = wire(1 << 20);
    let mut refusal = None;
    for _ in 0..20 {
        while client.wants_write() {
            client.write_tls(&mut client_end).unwrap();
        }
        if refusal.is_none()
            && let Err(error) = session.handshake(&mut server_end)
        {
            refusal = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref())
                .cloned();
        }
        while let Ok(1..) = client.read_tls(&mut client_end) {}
        if let Err(error) = client.process_new_packets() {
            let rustls::Error::AlertReceived(alert) = error else {
                panic!("{error}");
            };
            return (alert, refusal.unwrap());
        }
    }
    panic!("nobody refused")
}

/// Whoever holds a copy of a certificate, which is no secret, does not learn whether its host is let in, and
/// is remembered as nobody.
#[test]
fn whoever_has_no_key_is_not_told_whether_its_certificates_host_is_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b, c] = ["hosta", "hostb", "hostc"].map(|host| {
        let directory = issue(&directory, host, Validity::days(10));
        (
            keys(&directory, hosts(&["hosta", "hostb"])),
            HostDirectory::read(&directory).unwrap(),
        )
    });
    let member = shown_without_its_key(&a.0, &b.1);
    let other = shown_without_its_key(&a.0, &c.1);
    assert_eq!(member, other);
    assert_eq!(member.0, AlertDescription::DecryptError);
    assert!(matches!(member.1, Refusal::Unproven(_)), "{:?}", member.1);
}
