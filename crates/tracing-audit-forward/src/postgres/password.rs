//! The source of the password: the URL, else `PGPASSWORD`, else a password file.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use tokio_postgres::config::{Config, Host};

use super::url::Target;
use crate::sink::SinkError;

/// Returns the settings for connecting. Files are read each time, so that a password may change while a
/// program runs.
pub(super) fn with_password(target: &Target) -> Result<Config, SinkError> {
    let mut config = target.config.clone();
    if config.get_password().is_some() {
        return Ok(config);
    }
    if let Some(password) = env::var_os("PGPASSWORD").filter(|password| !password.is_empty()) {
        config.password(password.into_encoded_bytes());
        return Ok(config);
    }
    let (path, is_named) =
        match target.password_file.clone().or_else(|| env::var_os("PGPASSFILE").map(PathBuf::from)) {
            Some(path) => (path, true),
            None => match env::var_os("HOME") {
                Some(home) => (Path::new(&home).join(".pgpass"), false),
                None => return Ok(config),
            },
        };
    let text = match read_private(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => return Ok(config),
        Err(error) => {
            let reason = format!("cannot read the password file {}: {error}", path.display());
            return Err(SinkError::Setup { reason });
        }
    };
    if let Some(password) = places(&config).iter().find_map(|place| find(&text, place)) {
        config.password(password);
    }
    Ok(config)
}

/// Reads a file, and refuses it if others may read it, as libpq does.
fn read_private(path: &Path) -> io::Result<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other("others have access to it; its mode must be 0600 or less"));
        }
    }
    fs::read_to_string(path)
}

/// Returns the texts to look up in the file: host, port, database, user.
fn places(config: &Config) -> Vec<[String; 4]> {
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    let ports = config.get_ports();
    let names: Vec<String> = if config.get_hosts().is_empty() {
        config.get_hostaddrs().iter().map(ToString::to_string).collect()
    } else {
        let name = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            // As libpq does for the default socket directory.
            #[cfg(unix)]
            Host::Unix(_) => "localhost".to_owned(),
        };
        config.get_hosts().iter().map(name).collect()
    };
    let place = |(at, name): (usize, String)| {
        let port = ports.get(at).or_else(|| ports.first()).copied().unwrap_or(5432);
        [name, port.to_string(), database.to_owned(), user.to_owned()]
    };
    names.into_iter().enumerate().map(place).collect()
}

/// Returns the password in the first matching line: `host:port:database:user:password`, where `*` matches
/// everything and a backslash escapes the next character.
fn find(text: &str, place: &[String; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.chars();
        for wanted in place {
            let (is_any, field) = next_field(&mut rest)?;
            if !is_any && field != *wanted {
                return None;
            }
        }
        // The password may contain a colon.
        let mut password = String::new();
        while let Some(letter) = rest.next() {
            password.push(if letter == '\\' { rest.next()? } else { letter });
        }
        Some(password)
    })
}

/// Returns the text before the next colon, and whether it is a `*` without a backslash. `None` if there is no
/// colon.
fn next_field(rest: &mut std::str::Chars<'_>) -> Option<(bool, String)> {
    let mut field = String::new();
    let is_any = rest.as_str().starts_with("*:");
    loop {
        match rest.next()? {
            ':' => return Some((is_any, field)),
            '\\' => field.push(rest.next()?),
            letter => field.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let place = ["db.example", "5432", "audit", "mia"].map(str::to_owned);
        assert_eq!(find(text, &place).as_deref(), expected);
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        check("db.example:5432:audit:mia:a:b\\\\c\\:d", Some("a:b\\c:d"));
        check("# db.example:5432:audit:mia:no\nother:*:*:*:no\n*:*:*:mia:yes\n*:*:*:*:late", Some("yes"));
        check("\\*:5432:audit:mia:no", None);
        check("db.example:5433:audit:mia:no", None);
        check("db.example:5432:audit", None);
        check("", None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, "*:*:*:*:Secr3t").unwrap();
        let url = format!("postgres://mia@db.example/audit?passfile={}", path.display());
        let target: Target = url.parse().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = with_password(&target).unwrap_err().to_string();
        assert!(error.contains("0600") && !error.contains("Secr3t"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(with_password(&target).unwrap().get_password(), Some(&b"Secr3t"[..]));
        fs::remove_file(&path).unwrap();
        with_password(&target).unwrap_err();
    }
}
