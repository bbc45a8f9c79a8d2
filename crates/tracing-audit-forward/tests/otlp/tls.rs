//! Certificates are verified.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tracing_audit_forward::{Otlp, OtlpBuilder, Sink as _, SinkError};

use crate::{log::with_events, receiver::Receiver};

/// An authority, and a receiver with a certificate of it for this name.
struct Tls {
    dir: TempDir,
    receiver: Receiver,
}

impl Tls {
    #[track_caller]
    fn start(name: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let write = |file: &str, pem: String| {
            let path = dir.path().join(file);
            fs::write(&path, pem).unwrap();
            path.to_str().unwrap().to_owned()
        };
        write("ca.pem", authority.pem());
        let certificate = write("certificate.pem", certificate.pem());
        let key = write("key.pem", key.serialize_pem());
        let receiver = Receiver::start_with(&["--certificate", &certificate, "--key", &key])?;
        Some(Self { dir, receiver })
    }

    fn ca_file(&self) -> std::path::PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn builder(&self) -> OtlpBuilder {
        Otlp::builder(&format!("https://127.0.0.1:{}", self.receiver.port))
    }
}

#[track_caller]
fn check_setup(builder: OtlpBuilder, receiver: &Receiver) {
    let error = builder.build().unwrap().offer(&with_events(1)).unwrap_err();
    assert!(matches!(error, SinkError::Setup { .. }), "{error:?}");
    assert!(receiver.records().is_empty());
}

#[test]
fn a_certificate_of_the_given_authority_is_accepted() {
    let Some(tls) = Tls::start("127.0.0.1") else { return };
    let mut sink = tls.builder().ca_file(tls.ca_file()).build().unwrap();
    let entries = with_events(3);
    sink.offer(&entries).unwrap();
    assert_eq!(tls.receiver.records().len(), entries.len());
}

#[test]
fn a_certificate_of_another_authority_is_not_accepted() {
    let Some(tls) = Tls::start("127.0.0.1") else { return };
    let Some(other) = Tls::start("127.0.0.1") else { return };
    check_setup(tls.builder(), &tls.receiver);
    check_setup(tls.builder().ca_file(other.ca_file()), &tls.receiver);
}

#[test]
fn a_certificate_for_another_name_is_not_accepted() {
    let Some(tls) = Tls::start("receiver.example") else { return };
    check_setup(tls.builder().ca_file(tls.ca_file()), &tls.receiver);
}

#[test]
fn any_certificate_is_accepted_only_on_request_and_with_a_warning() {
    let Some(tls) = Tls::start("receiver.example") else { return };
    let (say, said) = std::sync::mpsc::channel();
    let mut sink = tls
        .builder()
        .dangerously_accept_any_certificate()
        .on_warning(move |warning| say.send(warning.to_owned()).unwrap())
        .build()
        .unwrap();
    assert!(said.try_recv().unwrap().starts_with("DANGER: the certificate of https://127.0.0.1:"));
    sink.offer(&with_events(1)).unwrap();
    assert!(!tls.receiver.records().is_empty());
}

#[test]
fn https_to_a_receiver_of_http_is_a_setup_error() {
    let Some(receiver) = Receiver::start() else { return };
    check_setup(Otlp::builder(&format!("https://127.0.0.1:{}", receiver.port)), &receiver);
}

#[test]
fn a_file_without_certificates_is_refused_when_the_sink_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let file = |content: &str| {
        let path = dir.path().join("ca.pem");
        fs::write(&path, content).unwrap();
        Otlp::builder("https://host").ca_file(path).build().unwrap_err().to_string()
    };
    assert!(file("").starts_with("there is no certificate in "));
    assert!(file("no PEM").starts_with("there is no certificate in "));
    assert!(
        file("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
            .ends_with("is not a PEM file of certificates")
    );
    let missing = Otlp::builder("https://host").ca_file(Path::new("/does/not/exist")).build().unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /does/not/exist: No such file or directory (os error 2)");
}
