//! Asking a server of Terraform Cloud's API: one token, one pace, bounded answers.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use state::ids::SecretName;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::CloudConfig;

/// The largest answer that is read, in bytes: plans are large.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// The most of an answer's complaints that is told.
const MAX_WORDS: usize = 1024;
/// How often something is asked again, and what is waited before the first of these times.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// The longest that a server is left alone for because it asks for it, before the next pass is left to try.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How many requests are made in a second before the server has said how many it takes.
const PACE: u32 = 20;
/// The part of what a server takes that is used, in hundredths: the token's user may want to ask, too.
const SHARE: u32 = 66;

/// A request has come to nothing.
#[derive(Debug, Error)]
pub(crate) enum CloudError {
    /// Nobody answers.
    #[error("{address} does not answer ({why}): {what}")]
    Silent { address: String, what: String, why: String },
    /// The token is none.
    #[error("{address} does not take the token (401): put one that is valid into the secret {secret}")]
    Token { address: String, secret: SecretName },
    /// It is not there, or may not be seen: which of the two, nobody can tell.
    #[error("{address} does not show {what} (404): it is gone, or the token may not see it")]
    Unseen { address: String, what: String },
    /// It is refused.
    #[error("{address} refuses {what} ({status}): {words}")]
    Refused {
        address: String,
        what: String,
        status: StatusCode,
        words: String,
    },
    /// There were too many requests.
    #[error("{address} takes no more requests for now (429): {what}")]
    Limited { address: String, what: String },
    /// The answer is none.
    #[error("{address} answers what can't be read: {what}: {why}")]
    Answer { address: String, what: String, why: String },
}

impl CloudError {
    /// Whether it was refused as something that can't be done now.
    pub(crate) fn is(&self, code: StatusCode) -> bool {
        match self {
            Self::Refused { status, .. } => *status == code,
            Self::Unseen { .. } => code == StatusCode::NOT_FOUND,
            _ => false,
        }
    }
}

/// A server, as a member sees it.
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) address: String,
    secret: SecretName,
    pace: Mutex<Pace>,
}

/// When the next request may be made.
struct Pace {
    next: Instant,
    between: Duration,
}

/// What is asked.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// The path below the API's, or a whole address that the server gave.
    pub(crate) path: &'a str,
    pub(crate) body: Option<Body<'a>>,
    /// In words.
    pub(crate) what: &'a str,
}

/// What is sent.
pub(crate) enum Body<'a> {
    Json(&'a Value),
    Bytes(&'a [u8]),
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str, what: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            what,
        }
    }

    pub(crate) fn post(path: &'a str, body: &'a Value, what: &'a str) -> Self {
        Self {
            method: Method::POST,
            path,
            body: Some(Body::Json(body)),
            what,
        }
    }
}

impl Client {
    /// Nothing is asked yet.
    pub(crate) fn new(config: &CloudConfig) -> Result<Self, reqwest::Error> {
        // The process's choice of cryptography, unless something has made it already: there is one in this workspace.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(config.timeout_seconds))
            .redirect(reqwest::redirect::Policy::limited(3))
            .user_agent(concat!("charter/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            address: config.address.trim_end_matches('/').to_owned(),
            secret: config.token.clone(),
            pace: Mutex::new(Pace {
                next: Instant::now(),
                between: Duration::from_secs(1) / PACE,
            }),
        })
    }

    /// Asks with a token, and reads the answer's JSON. What only reads is asked again where that may help; what changes something only
    /// where it was surely not heard.
    pub(crate) async fn ask(&self, token: &str, request: &Request<'_>) -> Result<Value, CloudError> {
        let bytes = self.asked(Some(token), request).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.unread(request.what, &error.to_string()))
    }

    /// Asks an address that is its own key: no token goes there.
    pub(crate) async fn blob(&self, request: &Request<'_>) -> Result<Vec<u8>, CloudError> {
        self.asked(None, request).await
    }

    /// Reads what a token shows, as it is.
    pub(crate) async fn bytes(&self, token: &str, request: &Request<'_>) -> Result<Vec<u8>, CloudError> {
        self.asked(Some(token), request).await
    }

    pub(crate) fn unread(&self, what: &str, why: &str) -> CloudError {
        CloudError::Answer {
            address: self.address.clone(),
            what: what.to_owned(),
            why: why.to_owned(),
        }
    }

    /// The address of a path, or one that the server gave, which has to be as safe as its own.
    fn url(&self, path: &str, what: &str) -> Result<Url, CloudError> {
        let whole = match path.starts_with('/') {
            true => format!("{}/api/v2{path}", self.address),
            false => path.to_owned(),
        };
        let url = Url::parse(&whole).map_err(|error| self.unread(what, &error.to_string()))?;
        let safe = url.scheme() == "https" || (url.scheme() == "http" && self.address.starts_with("http://"));
        match safe {
            true => Ok(url),
            false => Err(self.unread(what, "the address that it gives is not encrypted")),
        }
    }

    async fn asked(&self, token: Option<&str>, request: &Request<'_>) -> Result<Vec<u8>, CloudError> {
        let url = self.url(request.path, request.what)?;
        let mut pause = PAUSE;
        for attempt in 1.. {
            self.turn().await;
            let answer = self.once(token, &url, request).await;
            let last = attempt >= TRIES;
            match answer {
                Err(error) => {
                    // Who was never reached has heard nothing.
                    let again = request.method == Method::GET || error.is_connect();
                    if last || !again || error.is_timeout() {
                        return Err(self.silent(request.what, &error));
                    }
                }
                Ok((StatusCode::TOO_MANY_REQUESTS, headers, _)) => {
                    let asked = reset(&headers).unwrap_or(pause);
                    if last || asked > LONGEST_PAUSE {
                        return Err(CloudError::Limited {
                            address: self.address.clone(),
                            what: request.what.to_owned(),
                        });
                    }
                    self.rest(asked).await;
                    continue;
                }
                Ok((status, headers, bytes)) => {
                    self.heard(&headers).await;
                    let again = status.is_server_error() && request.method == Method::GET;
                    if last || !again {
                        return self.judged(status, bytes, request.what);
                    }
                }
            }
            sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop ends by itself")
    }

    async fn once(
        &self,
        token: Option<&str>,
        url: &Url,
        request: &Request<'_>,
    ) -> Result<(StatusCode, HeaderMap, Result<Vec<u8>, String>), reqwest::Error> {
        let mut builder = self.http.request(request.method.clone(), url.clone());
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        builder = match &request.body {
            None => builder,
            Some(Body::Json(value)) => builder.header(CONTENT_TYPE, "application/vnd.api+json").body(value.to_string()),
            Some(Body::Bytes(bytes)) => builder.header(CONTENT_TYPE, "application/octet-stream").body(bytes.to_vec()),
        };
        let mut response = builder.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                return Ok((status, headers, Err(format!("it is longer than {MAX_ANSWER} bytes"))));
            }
        }
        Ok((status, headers, Ok(bytes)))
    }

    fn judged(&self, status: StatusCode, bytes: Result<Vec<u8>, String>, what: &str) -> Result<Vec<u8>, CloudError> {
        let address = self.address.clone();
        let what = what.to_owned();
        match (status, bytes) {
            (status, Ok(bytes)) if status.is_success() => Ok(bytes),
            (status, Err(why)) if status.is_success() => Err(CloudError::Answer { address, what, why }),
            (StatusCode::UNAUTHORIZED, _) => Err(CloudError::Token {
                address,
                secret: self.secret.clone(),
            }),
            (StatusCode::NOT_FOUND, _) => Err(CloudError::Unseen { address, what }),
            (status, bytes) => Err(CloudError::Refused {
                address,
                what,
                status,
                words: words(&bytes.unwrap_or_default()),
            }),
        }
    }

    fn silent(&self, what: &str, error: &reqwest::Error) -> CloudError {
        let mut why = match (error.is_timeout(), error.is_connect()) {
            (true, _) => "it takes too long".to_owned(),
            (false, true) => "it can't be reached".to_owned(),
            (false, false) => "the connection was cut".to_owned(),
        };
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.source().is_none() {
                why = format!("{why}: {error}");
            }
            cause = error.source();
        }
        CloudError::Silent {
            address: self.address.clone(),
            what: what.to_owned(),
            why,
        }
    }

    /// Waits for its turn.
    async fn turn(&self) {
        let at = {
            let mut pace = self.pace.lock().await;
            let at = pace.next.max(Instant::now());
            pace.next = at + pace.between;
            at
        };
        sleep_until(at).await;
    }

    /// Leaves the server alone for as long as it asks for: all requests, not only the one that was refused.
    async fn rest(&self, asked: Duration) {
        let mut pace = self.pace.lock().await;
        pace.next = pace.next.max(Instant::now() + asked);
    }

    /// Keeps to what the server says that it takes.
    async fn heard(&self, headers: &HeaderMap) {
        let limit = headers
            .get("x-ratelimit-limit")
            .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        if let Some(limit) = limit.filter(|limit| *limit > 0) {
            let between = Duration::from_secs(100) / limit.saturating_mul(SHARE);
            self.pace.lock().await.between = between;
        }
    }
}

/// After how long a server wants to be asked again.
fn reset(headers: &HeaderMap) -> Option<Duration> {
    ["x-ratelimit-reset", "retry-after"].into_iter().find_map(|name| {
        let text = headers.get(name)?.to_str().ok()?;
        // Seconds, with digits after the point or without.
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let part: String = part.chars().chain("000".chars()).take(3).collect();
        Some(Duration::from_secs(whole.parse().ok()?) + Duration::from_millis(part.parse().ok()?))
    })
}

/// What a server complains of, in one line.
fn words(bytes: &[u8]) -> String {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let errors = value["errors"].as_array().into_iter().flatten();
    let told = errors.filter_map(|error| error["detail"].as_str().or(error["title"].as_str()).or(error.as_str()));
    let text = told.collect::<Vec<_>>().join("; ");
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_server_wants_to_be_left_alone_is_read() {
        for (name, text, wanted) in [
            ("x-ratelimit-reset", "0.25", Some(Duration::from_millis(250))),
            ("x-ratelimit-reset", "2", Some(Duration::from_secs(2))),
            ("retry-after", "1.5", Some(Duration::from_millis(1_500))),
            ("retry-after", "soon", None),
            ("other", "1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, text.parse().unwrap());
            assert_eq!(reset(&headers), wanted, "{name} {text}");
        }
    }

    #[test]
    fn complaints_are_told_in_a_line() {
        let body = br#"{"errors":[{"title":"invalid","detail":"Name\nis taken"},{"title":"other"},"third"]}"#;
        assert_eq!(words(body), "Name is taken; other; third");
        assert_eq!(words(b"<html>"), "");
    }
}
