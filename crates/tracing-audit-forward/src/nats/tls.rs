//! TLS: the certificate of the server and its name are verified.

use std::{path::Path, sync::Arc};

use async_nats::ConnectOptions;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{failure::setup, url::Target};
use crate::sink::SinkError;

/// Sets the trusted certificates and the client certificate of a connection. Files are read each time, so
/// certificates may be replaced while a program runs.
pub(super) fn prepare(options: ConnectOptions, target: &Target) -> Result<ConnectOptions, SinkError> {
    let of_system = rustls_native_certs::load_native_certs();
    let is_without_system = !of_system.errors.is_empty();
    let mut roots = RootCertStore::empty();
    match &target.root_certificates {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unreadable("certificates", path, &error))?;
            }
            if roots.is_empty() {
                return Err(setup(format!("{} has no certificate", path.display())));
            }
            // `async-nats` reads the system's certificates whatever the configuration, and fails if they
            // cannot be read. This avoids it.
            if is_without_system && target.client_certificate.is_none() {
                return Ok(options.add_root_certificates(path.clone()));
            }
        }
        None => drop(roots.add_parsable_certificates(of_system.certs)),
    }
    let cannot_begin = |error: rustls::Error| setup(format!("cannot prepare TLS: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(cannot_begin)?
        .with_root_certificates(roots);
    let config = match &target.client_certificate {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(cannot_begin)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(options.tls_client_config(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| unreadable("certificates", path, &error))
}

fn unreadable(what: &str, path: &Path, error: &dyn std::error::Error) -> SinkError {
    setup(format!("cannot read the {what} in {}: {error}", path.display()))
}
