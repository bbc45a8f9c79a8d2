//! The URL of a database, and the parameters that only this crate knows.

use std::{path::PathBuf, str::FromStr};

use tokio_postgres::config::{Config, Host, SslMode};

use crate::{address::percent_decoded, sink::SinkError};

/// A database, as its URL names it. Only `config` contains a password, and it does not print it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    /// The certificates to trust; `None`: those that the system trusts.
    pub(super) root_certificates: Option<PathBuf>,
    /// The client's certificate and its key.
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) password_file: Option<PathBuf>,
}

impl FromStr for Target {
    type Err = SinkError;

    fn from_str(url: &str) -> Result<Self, SinkError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(bad("it does not begin with postgres://"));
        }
        // As in `tokio-postgres`: everything before the first @ is user and password.
        let behind_password = url.find('@').unwrap_or_default();
        let at =
            url.bytes().skip(behind_password).position(|byte| byte == b'?').map(|at| at + behind_password);
        let (address, query) = at.and_then(|at| url.split_at_checked(at)).unwrap_or((url, ""));
        let query = query.trim_start_matches('?');
        let mut ours = Ours::default();
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !ours.take(name, value)? {
                others.push(parameter);
            }
        }
        let rest =
            if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) };
        // The cause may contain a part of the URL, and with it a part of the password.
        let mut config =
            rest.parse::<Config>().map_err(|_| bad("see the documentation of PostgreSQL, 34.1.1.2"))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(bad("it names no host"));
        }
        config.ssl_mode(ours.ssl_mode(&config)?);
        let client_certificate = match (ours.certificate, ours.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(bad("only one of sslcert and sslkey is given")),
        };
        let root_certificates = ours.root_certificates.filter(|path| path.as_os_str() != "system");
        Ok(Self { config, root_certificates, client_certificate, password_file: ours.password_file })
    }
}

/// The parameters that `tokio-postgres` does not know, or interprets differently.
#[derive(Default)]
struct Ours {
    mode: Option<String>,
    root_certificates: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    password_file: Option<PathBuf>,
}

impl Ours {
    /// Takes a parameter. Returns whether it is one of these.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, SinkError> {
        let value = percent_decoded(value).ok_or_else(|| bad("its percent-encoding is invalid"))?;
        match name {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.root_certificates = Some(value.into()),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            "passfile" => self.password_file = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the TLS mode. Every mode except `disable` is `verify-full`: the weaker modes of libpq accept
    /// any server.
    fn ssl_mode(&self, config: &Config) -> Result<SslMode, SinkError> {
        match self.mode.as_deref() {
            Some("disable") => Ok(SslMode::Disable),
            None if is_on_this_machine(config) => Ok(SslMode::Disable),
            None | Some("allow" | "prefer" | "require" | "verify-ca" | "verify-full") => Ok(SslMode::Require),
            Some(_) => Err(bad("sslmode is not known")),
        }
    }
}

/// Returns whether all hosts are on this machine.
fn is_on_this_machine(config: &Config) -> bool {
    let is_here = |host: &Host| match host {
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    let addresses = config.get_hostaddrs();
    if addresses.is_empty() {
        config.get_hosts().iter().all(is_here)
    } else {
        addresses.iter().all(std::net::IpAddr::is_loopback)
    }
}

fn bad(why: &str) -> SinkError {
    let reason = format!(
        "the URL of the database cannot be used: {why}; it is \
         postgres://user@host:port/database?parameter=value, with special characters percent-encoded"
    );
    SinkError::Setup { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        url.parse::<Target>().unwrap().config.get_ssl_mode()
    }

    #[test]
    fn only_this_machine_is_contacted_without_tls() {
        for here in ["localhost", "127.0.0.1:5433", "[::1]", "%2Frun%2Fpostgresql", "localhost,127.1.2.3"] {
            assert_eq!(mode(&format!("postgres://u@{here}/d")), SslMode::Disable, "{here}");
            assert_eq!(
                mode(&format!("postgres://u@{here}/d?sslmode=verify-full")),
                SslMode::Require,
                "{here}"
            );
        }
        for there in ["db.example", "10.0.0.1", "localhost,db.example", "localhost.example"] {
            for parameters in ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=require&connect_timeout=3"]
            {
                assert_eq!(mode(&format!("postgres://u@{there}/d{parameters}")), SslMode::Require, "{there}");
            }
            assert_eq!(mode(&format!("postgres://u@{there}/d?sslmode=disable")), SslMode::Disable);
        }
        assert_eq!(mode("postgres://u@localhost/d?hostaddr=10.0.0.1"), SslMode::Require);
        assert_eq!(mode("postgres://u@db.example/d?hostaddr=127.0.0.1"), SslMode::Disable);
    }

    #[test]
    fn file_parameters_are_accepted() {
        let url = "postgresql://u:p@h/d?passfile=%2Fa%20b&sslrootcert=/ca.pem&sslcert=c&sslkey=k&target_session_attrs=read-write";
        let target: Target = url.parse().unwrap();
        assert_eq!(target.password_file.unwrap().to_str(), Some("/a b"));
        assert_eq!(target.root_certificates.unwrap().to_str(), Some("/ca.pem"));
        assert!(target.client_certificate.is_some());
        let target: Target = "postgres://u:a?b&c@h/d?sslrootcert=/ca.pem".parse().unwrap();
        assert_eq!(target.config.get_password(), Some(&b"a?b&c"[..]));
        assert!(target.root_certificates.is_some());
        let target: Target = "postgres://u@h/d?sslrootcert=system".parse().unwrap();
        assert_eq!(target.root_certificates, None);
    }

    #[test]
    fn no_error_contains_a_password() {
        for bad in [
            "postgres://u:Secr3t@h:port/d",
            "postgres://u:Secr3t@h/d?Secr3t=1",
            "postgres://u:Secr3t@h/d?sslmode=Secr3t",
            "postgres://u:Secr3t@h/d?passfile=Secr3t%",
            "postgres://u:Secr3t@h/d?sslcert=a",
            "host=h password=Secr3t",
            "postgres:///d?user=u&password=Secr3t",
        ] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("Secr3t"), "{error}");
        }
        let target: Target = "postgres://u:Secr3t@h/d".parse().unwrap();
        assert!(!format!("{target:?}").contains("Secr3t"));
    }
}
