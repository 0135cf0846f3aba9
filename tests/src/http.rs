//! Plain HTTP over loopback.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Gets a path from an address `host:port`.
///
/// # Errors
/// When nothing answers, or what answers doesn't speak HTTP.
pub fn get(address: &str, path: &str) -> Result<Answer, String> {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.take(4 * 1024 * 1024).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = exchange().map_err(|error| format!("{address}{path}: {error}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no HTTP: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| format!("no status: {head:?}"))?,
        body: body.to_owned(),
    })
}
