//! TLS and credentials.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tracing_audit_forward::{Postgres, Sink as _, SinkError};

use crate::{
    records::events,
    server::{PASSWORD, Server, skip, succeed},
    store,
};

#[track_caller]
fn check_setup(url: &str, text: &str) {
    let store = Postgres::new(url);
    let outcome = store.and_then(|mut store| store.offer(&events(1)));
    let Err(error @ SinkError::Setup { reason }) = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(text), "{reason}");
    assert!(!format!("{error:?}").contains(PASSWORD) && !reason.contains("Wr0ng"), "{reason}");
}

#[test]
fn a_password_is_in_no_error() {
    let Some(server) = Server::start("a_password_is_in_no_error") else { return };
    let mut right = store(&server);
    check_setup(&server.url("boss", "Wr0ng"), "password authentication failed for user \"boss\"");
    check_setup(&server.url("boss", ""), "password missing");
    assert!(!format!("{right:?} {:?}", Postgres::builder(&server.boss())).contains(PASSWORD));
    right.offer(&events(1)).unwrap();
    assert!(!format!("{right:?}").contains(PASSWORD));
}

#[test]
fn a_password_file_is_read_when_a_connection_is_made() {
    let Some(server) = Server::start("a_password_file_is_read_when_a_connection_is_made") else { return };
    drop(store(&server));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pass");
    let url = format!("{}?passfile={}", server.url("boss", ""), path.display());
    check_setup(&url, "cannot read the password file");
    let mut store = Postgres::new(&url).unwrap();
    fs::write(&path, format!("127.0.0.1:{}:*:boss:{PASSWORD}\n", server.port())).unwrap();
    check_setup(&url, "0600");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    store.offer(&events(1)).unwrap();
    fs::write(&path, "*:*:*:*:Wr0ng").unwrap();
    check_setup(&url, "authentication failed");
}

#[test]
fn the_certificate_and_the_name_of_a_server_are_verified() {
    const NAME: &str = "the_certificate_and_the_name_of_a_server_are_verified";
    let Some(mut server) = Server::start(NAME) else { return };
    if Command::new("openssl").arg("version").output().is_err() {
        return skip(NAME, "there is no openssl");
    }
    drop(store(&server));
    let url = |parameters: &str| format!("{}?{parameters}", server.boss());
    check_setup(&url("sslmode=require"), "server does not support TLS");
    check_setup(&url("sslmode=verify-full&sslrootcert=/does/not/exist"), "cannot read the certificates");

    let dir = tempfile::tempdir().unwrap();
    let authority = certificates(dir.path(), "IP:127.0.0.1");
    install(&mut server, dir.path());
    let url = |parameters: &str| format!("{}?{parameters}", server.boss());
    let trusted = url(&format!("sslmode=verify-full&sslrootcert={authority}"));
    let mut store = Postgres::new(&trusted).unwrap();
    store.offer(&events(1)).unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'tracing-audit-forward'";
    assert_eq!(server.sql(encrypted), "1");
    // Every mode verifies the certificate.
    for mode in ["allow", "prefer", "require", "verify-ca", "verify-full"] {
        check_setup(&url(&format!("sslmode={mode}")), "certificate");
    }
    Postgres::builder(&url("sslmode=require"))
        .dangerously_accept_any_certificate()
        .build()
        .unwrap()
        .offer(&events(1))
        .unwrap();

    // A client with a certificate.
    server.stop();
    let hba = server.data().join("pg_hba.conf");
    fs::write(&hba, "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n").unwrap();
    server.set(&["ssl=on", "ssl_ca_file=server-ca.crt"]);
    // The check whether the server answers uses a connection without a certificate: a second line lets `psql`
    // in.
    fs::write(&hba, "hostnossl all all 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n").unwrap();
    server.run();
    check_setup(&trusted, "");
    let (certificate, key) = (dir.path().join("server.crt"), dir.path().join("server.key"));
    let known = format!("{trusted}&sslcert={}&sslkey={}", certificate.display(), key.display());
    Postgres::new(&known).unwrap().offer(&events(1)).unwrap();

    // A certificate for another name.
    server.stop();
    let authority = certificates(dir.path(), "DNS:db.example");
    install(&mut server, dir.path());
    check_setup(
        &format!("{}?sslmode=verify-full&sslrootcert={authority}", server.boss()),
        "certificate not valid for name",
    );
}

/// Installs this certificate on the server, and starts it.
fn install(server: &mut Server, dir: &Path) {
    server.stop();
    let data = server.data();
    for (from, to) in
        [("server.crt", "server.crt"), ("server.key", "server.key"), ("ca.crt", "server-ca.crt")]
    {
        fs::copy(dir.join(from), data.join(to)).unwrap();
        fs::set_permissions(data.join(to), fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = server.user() {
            succeed(Command::new("chown").arg(user).arg(data.join(to)));
        }
    }
    server.set(&["ssl=on"]);
    server.run();
}

/// Creates `server.crt` and `server.key` for this name, and returns the path of the authority that signed it.
fn certificates(dir: &Path, name: &str) -> String {
    let path = |file: &str| dir.join(file).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| succeed(Command::new("openssl").args(arguments));
    let (ca, ca_key) = (path("ca.crt"), path("ca.key"));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(
        &[
            &["req", "-x509"],
            &key[..],
            &["-keyout", &ca_key, "-out", &ca, "-subj", "/CN=authority", "-days", "2"],
        ]
        .concat(),
    );
    let (request, extensions) = (path("server.csr"), path("extensions"));
    openssl(
        &[&["req"], &key[..], &["-keyout", &path("server.key"), "-out", &request, "-subj", "/CN=server"]]
            .concat(),
    );
    fs::write(&extensions, format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n")).unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &extensions,
        "-out",
        &path("server.crt"),
    ]);
    ca
}
