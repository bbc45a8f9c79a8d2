//! Every setting of the sink, its default, and its check.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
    unversioned::{
        resolver::DefaultResolver,
        transport::{Connector as _, DefaultConnector},
    },
};

use super::{
    Otlp, censor::Censor, endpoint::Endpoint, environment, headers::Headers, mapping, setup, transport,
    unmask::Unmask,
};
use crate::SinkError;

/// The variables of OpenTelemetry for headers. The second replaces the first if both are set.
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"];

/// The longest timeout. A request that is never answered blocks the sink this long.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// The settings of an [`Otlp`] sink.
#[must_use = "nothing is sent before the sink is built and given to a forwarder"]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct OtlpBuilder {
    endpoint: String,
    headers: Vec<(String, String)>,
    has_headers_of_environment: bool,
    timeout: Duration,
    max_request_bytes: usize,
    resource: Vec<KeyValue>,
    has_resource_of_environment: bool,
    ca_file: Option<PathBuf>,
    has_ca_file_of_environment: bool,
    is_any_certificate_accepted: bool,
    on_warning: Box<dyn FnMut(&str) + Send>,
}

impl OtlpBuilder {
    pub(super) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            headers: Vec::new(),
            has_headers_of_environment: false,
            timeout: Duration::from_secs(10),
            max_request_bytes: 4 * 1024 * 1024,
            resource: Vec::new(),
            has_resource_of_environment: false,
            ca_file: None,
            has_ca_file_of_environment: false,
            is_any_certificate_accepted: false,
            on_warning: Box::new(|_| {}),
        }
    }

    /// Sends a header with each request, e.g. `authorization`. A later value under the same name replaces an earlier
    /// one. Values are never shown. Default: none.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the headers of the environment: `OTEL_EXPORTER_OTLP_LOGS_HEADERS` or, if that is not set,
    /// `OTEL_EXPORTER_OTLP_HEADERS`. [`header`](Self::header) replaces a header of the same name.
    ///
    /// They are sent to whatever endpoint this sink has, so use this only if they are meant for it. Default:
    /// off.
    pub fn headers_from_environment(mut self) -> Self {
        self.has_headers_of_environment = true;
        self
    }

    /// Sets how long a whole request may take, from the resolution of the name to the last byte of the
    /// answer. More than zero, and at most an hour. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the largest request, in bytes of its body. A larger batch is not sent but [`SinkError::Refused`],
    /// so that the forwarder divides it; a single record is always sent. Stay below the limits of the
    /// receiver and of every proxy before it. Default: 4 MiB.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Sets an attribute of the resource, which describes the source of the records, e.g. `service.name`. A
    /// later value under the same name replaces an earlier one. Default: none.
    pub fn resource(mut self, name: &str, value: &str) -> Self {
        self.resource.retain(|attribute| attribute.key != name);
        self.resource.push(mapping::attribute(name, value));
        self
    }

    /// Adds the resource attributes of the environment: those of `OTEL_RESOURCE_ATTRIBUTES`, and
    /// `OTEL_SERVICE_NAME` as `service.name`. [`resource`](Self::resource) replaces an attribute of the same
    /// name. Default: off.
    pub fn resource_from_environment(mut self) -> Self {
        self.has_resource_of_environment = true;
        self
    }

    /// Trusts the certificates of the PEM file in `OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE` or, if that is not
    /// set, in `OTEL_EXPORTER_OTLP_CERTIFICATE`, and no others. [`ca_file`](Self::ca_file) replaces it.
    /// Default: off.
    pub fn ca_file_from_environment(mut self) -> Self {
        self.has_ca_file_of_environment = true;
        self
    }

    /// Trusts the certificates of this PEM file, and no others. It is read when the sink is built. Default: the public
    /// authorities that Mozilla trusts, as they were when the program was built.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.ca_file = Some(path.as_ref().to_owned());
        self
    }

    /// Accepts any certificate. Anybody on the path can then read the records and the headers, and
    /// acknowledge records that no store has. For experiments only: use [`ca_file`](Self::ca_file) to trust
    /// your own authority. Each build with it gives a warning. Default: off.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.is_any_certificate_accepted = true;
        self
    }

    /// Calls this closure with each warning: what the receiver reports without refusing records, and
    /// dangerous settings. It is called on the thread that builds the sink, or on the one that forwards.
    /// Default: warnings are ignored.
    pub fn on_warning(mut self, on_warning: impl FnMut(&str) + Send + 'static) -> Self {
        self.on_warning = Box::new(on_warning);
        self
    }

    /// Builds the sink. Nothing is sent, and the receiver need not be running.
    ///
    /// # Errors
    ///
    /// [`SinkError::Setup`] if a setting cannot be used.
    pub fn build(self) -> Result<Otlp, SinkError> {
        self.build_in(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Builds the sink with the variables of an environment.
    pub(super) fn build_in(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Otlp, SinkError> {
        let endpoint = Endpoint::parse(&self.endpoint)?;
        let resource = self.resource_in(&variable)?;
        let mut headers = Headers::default();
        if let Some(authorization) = &endpoint.authorization {
            headers.set("authorization", authorization.as_bytes())?;
        }
        if self.has_headers_of_environment {
            let set = VARIABLES.into_iter().rev().find_map(|name| Some((name, variable(name)?)));
            if let Some((name, content)) = set {
                headers.set_from_variable(name, &content)?;
            }
        }
        for (name, value) in &self.headers {
            headers.set(name, value.as_bytes())?;
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIMEOUT {
            return Err(setup("the timeout of the OTLP sink is zero, or longer than an hour".to_owned()));
        }
        if self.is_any_certificate_accepted {
            (self.on_warning)(&format!(
                "DANGER: the certificate of {} is not verified: anybody on the path can read records and acknowledge them",
                endpoint.shown
            ));
        }
        if endpoint.is_in_the_clear && !headers.is_empty() {
            (self.on_warning)(&format!("headers are sent to {} unencrypted: use https", endpoint.shown));
        }
        let named = || self.has_ca_file_of_environment.then(|| environment::ca_file(&variable)).flatten();
        let ca_file = self.ca_file.clone().or_else(named);
        let tls = tls(ca_file.as_deref(), self.is_any_certificate_accepted)?;
        let agent = agent(self.timeout, tls, Unmask::new(headers.lines()));
        let censor = Censor::new(endpoint.secrets.iter().cloned().chain(headers.secrets()));
        Ok(Otlp {
            agent,
            url: endpoint.url,
            receiver: endpoint.shown,
            headers,
            resource: Resource { attributes: resource, ..Resource::default() },
            max_request_bytes: self.max_request_bytes,
            censor,
            on_warning: self.on_warning,
        })
    }

    /// Returns the attributes of the resource in an environment.
    fn resource_in(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<KeyValue>, SinkError> {
        let mut builder = Self::new(&self.endpoint);
        if self.has_resource_of_environment {
            for (name, value) in environment::resource(variable)? {
                builder = builder.resource(&name, &value);
            }
        }
        builder.resource.retain(|known| self.resource.iter().all(|attribute| attribute.key != known.key));
        builder.resource.extend_from_slice(&self.resource);
        Ok(builder.resource)
    }
}

impl fmt::Debug for OtlpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the URL nor headers: both may contain credentials.
        f.debug_struct("OtlpBuilder").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn agent(timeout: Duration, tls: TlsConfig, unmask: Unmask) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Records go to the given address, whatever the environment says.
        .proxy(None)
        .user_agent(concat!("tracing-audit-forward/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    Agent::with_parts(config, DefaultConnector::new().chain(unmask), DefaultResolver::default())
}

fn tls(ca_file: Option<&Path>, is_any_certificate_accepted: bool) -> Result<TlsConfig, SinkError> {
    let roots = match ca_file {
        Some(path) => RootCerts::Specific(Arc::new(read_certificates(path)?)),
        None => RootCerts::WebPki,
    };
    Ok(TlsConfig::builder().root_certs(roots).disable_verification(is_any_certificate_accepted).build())
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, SinkError> {
    let pem = fs::read(path).map_err(|error| {
        setup(format!("cannot read {}: {}", path.display(), transport::io_reason(&error)))
    })?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(setup(format!("{} is not a PEM file of certificates", path.display()))),
        }
    }
    if certificates.is_empty() {
        return Err(setup(format!("there is no certificate in {}", path.display())));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[(&str, &str)] = &[
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=general,x-general=1"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-key=logs"),
    ];

    #[track_caller]
    fn check(builder: OtlpBuilder, environment: &[(&str, &str)], expected: &[(&str, &str)]) {
        let variable = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        };
        let sink = builder.build_in(variable).unwrap();
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| format!("\r\n{name}: {value}\r\n").into_bytes()).collect();
        let lines: Vec<_> = sink.headers.lines().into_iter().map(|line| line.real).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn headers_of_the_environment_are_sent_on_request() {
        let builder = || Otlp::builder("http://host");
        check(builder(), BOTH, &[]);
        check(builder().headers_from_environment(), &[], &[]);
        check(builder().headers_from_environment(), BOTH, &[("x-key", "logs")]);
        let general = BOTH.get(..1).unwrap();
        check(builder().headers_from_environment(), general, &[("x-key", "general"), ("x-general", "1")]);
    }

    #[test]
    fn a_header_of_the_program_replaces_one_of_the_environment_and_of_the_url() {
        let builder = Otlp::builder("http://mia:hunter2@host").headers_from_environment();
        let builder = builder.header("X-Key", "own").header("Authorization", "Bearer x");
        check(builder, BOTH, &[("x-key", "own"), ("authorization", "Bearer x")]);
    }

    #[test]
    fn the_resource_of_the_environment_is_sent_on_request_and_yields_to_that_of_the_program() {
        let variable = |name: &str| match name {
            "OTEL_SERVICE_NAME" => Some("shop".to_owned()),
            "OTEL_RESOURCE_ATTRIBUTES" => Some("service.name=other,team=a,zone=b".to_owned()),
            _ => None,
        };
        let check = |builder: OtlpBuilder, expected: &[(&str, &str)]| {
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| mapping::attribute(*name, *value)).collect();
            assert_eq!(builder.build_in(variable).unwrap().resource.attributes, expected);
        };
        let builder = || Otlp::builder("http://host").resource("team", "own");
        check(builder(), &[("team", "own")]);
        check(
            builder().resource_from_environment(),
            &[("zone", "b"), ("service.name", "shop"), ("team", "own")],
        );
    }

    #[test]
    fn the_certificate_of_the_environment_is_read_on_request() {
        let variable = |name: &str| (name == "OTEL_EXPORTER_OTLP_CERTIFICATE").then(|| "no.pem".to_owned());
        Otlp::builder("https://host").build_in(variable).unwrap();
        let builder = || Otlp::builder("https://host").ca_file_from_environment();
        let error = builder().build_in(variable).unwrap_err().to_string();
        assert!(error.starts_with("cannot read no.pem: "), "{error}");
        let error = builder().ca_file("own.pem").build_in(variable).unwrap_err().to_string();
        assert!(error.starts_with("cannot read own.pem: "), "{error}");
    }

    #[test]
    fn credentials_over_an_unencrypted_network_cause_a_warning() {
        let (say, said) = std::sync::mpsc::channel();
        let builder = Otlp::builder("http://mia:hunter2@host:4318");
        builder.on_warning(move |warning| say.send(warning.to_owned()).unwrap()).build().unwrap();
        assert_eq!(said.try_recv().unwrap(), "headers are sent to http://host:4318 unencrypted: use https");
    }
}
