//! The server's REST API over TLS; only the fleet's own CA is trusted.

use std::time::Duration;

use reqwest::{Certificate, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::settings::Settings;

/// What can go wrong between here and the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody has signed in.
    #[error("not signed in; begin with: flotilla login --server https://HOST:8443 --ca CA.pem")]
    NotSignedIn,
    /// The CA file or address can't be used.
    #[error("cannot connect to {server} with this CA")]
    Setup {
        /// Address.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Plain HTTP or no address.
    #[error("{server:?} is not an address like https://fleet.example:8443; only https is spoken")]
    NotHttps {
        /// What was given.
        server: String,
    },
    /// The CA file holds no certificate.
    #[error("the CA file holds no PEM certificate")]
    NoCertificate,
    /// No answer.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("{message} ({code}, HTTP {status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code.
        code: String,
        /// One sentence.
        message: String,
        /// The role that it is about, with code `expired`.
        role: Option<String>,
    },
    /// The answer isn't what the API promises.
    #[error("the server's answer to {url} is not JSON")]
    Answer {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
    project: String,
}

impl Client {
    /// For the server that `flotilla login` remembered; `project` overrides its project.
    ///
    /// # Errors
    /// When nobody has signed in, or the remembered CA is damaged.
    pub(crate) fn signed_in(project: Option<&str>) -> anyhow::Result<Self> {
        let settings = Settings::load()?.ok_or(ClientError::NotSignedIn)?;
        let mut client = Self::new(&settings.server, &settings.ca)?;
        client.token = Some(settings.token);
        client.project = project.map_or(settings.project, str::to_owned);
        Ok(client)
    }

    /// For a server that trusts nobody yet.
    ///
    /// # Errors
    /// When the CA isn't a certificate.
    pub(crate) fn new(server: &str, ca_pem: &str) -> Result<Self, ClientError> {
        if !server.starts_with("https://") {
            return Err(ClientError::NotHttps { server: server.to_owned() });
        }
        let setup = |source| ClientError::Setup { server: server.to_owned(), source };
        let ca = Certificate::from_pem_bundle(ca_pem.as_bytes()).map_err(setup)?;
        if ca.is_empty() {
            return Err(ClientError::NoCertificate);
        }
        // Installed once per process; a second call changes nothing.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only(ca)
            .https_only(true)
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_mins(2))
            .user_agent(concat!("flotilla/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(setup)?;
        Ok(Self {
            http,
            server: server.trim_end_matches('/').to_owned(),
            token: None,
            project: String::new(),
        })
    }

    /// The same server, as nobody.
    pub(crate) fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The project that commands work on.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// A request below `/api/v1`; `path` begins with a slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A path below the project.
    pub(crate) fn in_project(&self, path: &str) -> String {
        format!("/projects/{}{path}", self.project)
    }

    /// Sends a request and refuses every answer but success.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let sent = request.send().await;
        let response = sent.map_err(|source| {
            let url = source.url().map_or_else(|| self.server.clone(), ToString::to_string);
            ClientError::Unreachable { url, source: source.without_url() }
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    /// Sends a request and parses the JSON of the answer; no content is `null`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, ClientError> {
        let response = self.send(request).await?;
        if response.status() == reqwest::StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let url = response.url().to_string();
        response.json().await.map_err(|source| ClientError::Answer { url, source: source.without_url() })
    }

    /// `GET` below the project.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(self.request(Method::GET, &self.in_project(path))).await
    }

    /// `POST` of JSON below the project.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(self.request(Method::POST, &self.in_project(path)).json(body)).await
    }

    /// Every item of a list, page after page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request =
                self.request(Method::GET, &self.in_project(path)).query(query).query(&[("limit", "500")]);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page = self.json(request).await?;
            all.extend_from_slice(crate::output::items(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(all),
            }
        }
    }
}

async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let reason = status.canonical_reason().unwrap_or("refused");
    ClientError::Refused {
        status: status.as_u16(),
        code: text("/error/code").unwrap_or_else(|| "unknown".into()),
        message: text("/error/message").unwrap_or_else(|| format!("the server answered {reason}")),
        role: text("/error/details/role"),
    }
}
