//! The servers that are measured.

#[cfg(feature = "otlp")]
#[path = "../../tests/otlp/receiver.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "made for tests")]
mod receiver;

#[cfg(feature = "objects")]
#[path = "../../tests/support/s3.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "made for tests"
)]
mod s3;

#[cfg(feature = "postgres")]
#[path = "../../tests/support/postgres.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "made for tests")]
mod server;

#[cfg(feature = "nats")]
#[path = "../../tests/support/nats.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "made for tests")]
#[allow(clippy::panic, clippy::indexing_slicing, reason = "made for tests")]
mod nats;

/// The addresses of the servers; a missing one is not measured.
#[derive(Default)]
pub(crate) struct Urls {
    pub(crate) postgres: Option<String>,
    pub(crate) otlp: Option<String>,
    pub(crate) nats: Option<String>,
}

impl Urls {
    pub(crate) fn of_environment() -> Self {
        let names = ["AUDIT_POSTGRES", "AUDIT_OTLP", "AUDIT_NATS"];
        let [postgres, otlp, nats] = names.map(|name| std::env::var(name).ok());
        Self { postgres, otlp, nats }
    }
}

/// The servers end with this.
pub(crate) struct Services {
    pub(crate) urls: Urls,
    #[cfg(feature = "otlp")]
    _receiver: Option<receiver::Receiver>,
    #[cfg(feature = "objects")]
    s3: Option<s3::Server>,
    #[cfg(feature = "postgres")]
    _server: Option<server::Server>,
    #[cfg(feature = "nats")]
    _nats: Option<nats::Server>,
}

impl Services {
    #[cfg_attr(
        not(any(feature = "nats", feature = "otlp", feature = "postgres")),
        expect(unused_mut, reason = "nothing to start")
    )]
    pub(crate) fn start() -> Self {
        let mut urls = Urls::of_environment();
        #[cfg(feature = "otlp")]
        let receiver = if urls.otlp.is_none() { receiver::Receiver::start_with(&["--store"]) } else { None };
        #[cfg(feature = "otlp")]
        if let Some(receiver) = &receiver {
            urls.otlp = Some(receiver.url());
        }
        #[cfg(feature = "postgres")]
        let server = if urls.postgres.is_none() {
            // The default of a server.
            server::Server::start_with("figures", &["shared_buffers=128MB"])
        } else {
            None
        };
        #[cfg(feature = "postgres")]
        if let Some(server) = &server {
            urls.postgres = Some(server.boss());
        }
        // By default, a server syncs every two minutes.
        #[cfg(feature = "nats")]
        let nats = if urls.nats.is_none() { nats::Server::start_lazy("figures") } else { None };
        #[cfg(feature = "nats")]
        if let Some(server) = &nats {
            urls.nats = Some(server.url("FIGURES"));
        }
        Self {
            urls,
            #[cfg(feature = "otlp")]
            _receiver: receiver,
            #[cfg(feature = "objects")]
            s3: s3::Server::start("figures"),
            #[cfg(feature = "postgres")]
            _server: server,
            #[cfg(feature = "nats")]
            _nats: nats,
        }
    }

    /// A directory here, and the bucket if there is a server.
    #[cfg(feature = "objects")]
    pub(crate) fn archives(&self, dir: &std::path::Path) -> Vec<crate::archive::Archive> {
        let mut archives = vec![crate::archive::Archive::in_directory(dir.join("archive"))];
        archives.extend(self.s3.as_ref().map(|server| {
            let endpoint = format!("http://127.0.0.1:{}", server.port());
            crate::archive::Archive::in_bucket(&endpoint, s3::KEY, s3::SECRET)
        }));
        archives
    }
}
