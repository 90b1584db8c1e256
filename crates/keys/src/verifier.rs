//! Looks at the certificate that the other side shows.

use crate::certificate::{Fingerprint, Unverified, host_name, verify};
use crate::error::Refusal;
use crate::keys::LetIn;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use webpki::KeyUsage;

/// So many certificates are remembered: a machine has few members.
const REMEMBERED: usize = 64;

/// The certificates with which somebody was let in while they held. For as long as this process runs
/// they go on to be good enough: what expires in the night takes no protection away.
#[derive(Debug, Default)]
pub(crate) struct Acquaintances(Mutex<VecDeque<Fingerprint>>);

impl Acquaintances {
    fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.lock().contains(fingerprint)
    }

    fn add(&self, fingerprint: Fingerprint) {
        let mut known = self.lock();
        if known.contains(&fingerprint) {
            return;
        }
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back(fingerprint);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Fingerprint>> {
        // One call each: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets in whom the site's authorities know and this process wants.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) authorities: Vec<TrustAnchor<'static>>,
    pub(crate) let_in: LetIn,
    pub(crate) acquaintances: Arc<Acquaintances>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Whether the authority says who this is. Nothing is proved by it: certificates are no secrets.
    fn check(
        &self,
        der: &CertificateDer<'_>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Refusal> {
        let at = |time| verify(der, &self.authorities, &self.algorithms, time, usage);
        let refusal = |unverified| match unverified {
            Unverified::Refused(refusal) => refusal,
            Unverified::Expired { not_after } => Refusal::Expired { not_after, now },
            // It holds at no moment.
            Unverified::NotYet { .. } => Refusal::Unproven("its certificate never holds".into()),
        };
        let fingerprint = Fingerprint::of(der);
        let held = match at(now) {
            // The authority has said who this is; that a clock is behind changes nothing in it.
            Err(Unverified::NotYet { not_before }) => at(not_before),
            Err(Unverified::Expired { not_after }) if self.acquaintances.has(&fingerprint) => {
                at(not_after)
            }
            held => held,
        };
        held.map_err(refusal)
    }

    /// Whether the other side has the certificate's private key, and then whether it is let in: who has
    /// not proved to be that host is not told whom this one lets in.
    fn check_key(
        &self,
        message: &[u8],
        der: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = verify_tls13_signature(message, der, signed, &self.algorithms)?;
        self.check_name(der).map_err(Refusal::into_tls)?;
        Ok(valid)
    }

    fn check_name(&self, der: &CertificateDer<'_>) -> Result<(), Refusal> {
        let fingerprint = Fingerprint::of(der);
        let name = host_name(der)?;
        if !self.let_in.has(&name) {
            return Err(Refusal::NotAMember(
                name.to_string(),
                self.let_in.to_string(),
            ));
        }
        self.acquaintances.add(fingerprint);
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, now, KeyUsage::server_auth())
            .map(|()| ServerCertVerified::assertion())
            .map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_key(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A stranger need not know whose hosts are let in.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, now, KeyUsage::client_auth())
            .map(|()| ClientCertVerified::assertion())
            .map_err(Refusal::into_tls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_key(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
