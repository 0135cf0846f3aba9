//! The package that tells a peer where its chaincode is served: what `peer lifecycle chaincode install` takes.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use flate2::{Compression, GzBuilder};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::PackageError;

/// The longest label, in characters; it becomes part of file names on the peer.
const MAX_LABEL: usize = 100;
/// The longest address, in characters.
const MAX_ADDRESS: usize = 300;

/// How a peer reaches the chaincode's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `HOST:PORT` as the peer dials it. Fabric's own builder fills in what stands between `{{` and `}}`, so that one package can serve
    /// several peers.
    pub address: String,
    /// How long the peer tries.
    pub dial_timeout: Duration,
    /// Whether it speaks TLS.
    pub tls: Option<ConnectionTls>,
}

/// How a peer speaks TLS to the chaincode's server; everything is PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionTls {
    /// The authority that vouches for the server's certificate.
    pub root: String,
    /// The certificate and the key that the peer shows where the server asks for one.
    pub client: Option<(String, String)>,
}

impl fmt::Debug for ConnectionTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectionTls")
            .field("mutual", &self.client.is_some())
            .finish_non_exhaustive()
    }
}

/// A package as it is installed.
#[derive(Clone, PartialEq, Eq)]
pub struct Package {
    /// The file's bytes, a `.tgz`.
    pub bytes: Vec<u8>,
    /// The package id: the label and the SHA-256 of the bytes.
    pub id: String,
}

impl fmt::Debug for Package {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Package").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct ConnectionFile<'a> {
    address: &'a str,
    dial_timeout: String,
    tls_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_auth_required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_cert: Option<&'a str>,
}

#[derive(Serialize)]
struct MetadataFile<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    label: &'a str,
}

/// Makes the package of a label and a connection. The same input gives the same bytes, and so the same package id.
pub fn package(label: &str, connection: &Connection) -> Result<Package, PackageError> {
    check_label(label)?;
    check_address(&connection.address)?;
    let tls = connection.tls.as_ref();
    if let Some(tls) = tls {
        check_pem("authority of the server's certificate", &tls.root, &["CERTIFICATE"])?;
        if let Some((certificate, key)) = &tls.client {
            check_pem("client certificate", certificate, &["CERTIFICATE"])?;
            check_pem("client key", key, &["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"])?;
        }
    }
    let client = tls.and_then(|tls| tls.client.as_ref());
    let file = ConnectionFile {
        address: &connection.address,
        dial_timeout: format!("{}s", connection.dial_timeout.as_secs()),
        tls_required: tls.is_some(),
        client_auth_required: client.map(|_| true),
        client_key: client.map(|(_, key)| key.as_str()),
        client_cert: client.map(|(certificate, _)| certificate.as_str()),
        root_cert: tls.map(|tls| tls.root.as_str()),
    };
    let code = archive(&[("connection.json", &json("connection.json", &file)?)]).map_err(PackageError::Archive)?;
    let metadata = json("metadata.json", &MetadataFile { kind: "ccaas", label })?;
    let bytes = archive(&[("metadata.json", &metadata), ("code.tar.gz", &code)]).map_err(PackageError::Archive)?;
    let id = format!("{label}:{}", hex::encode(Sha256::digest(&bytes)));
    Ok(Package { bytes, id })
}

fn json<T: Serialize>(file: &'static str, value: &T) -> Result<Vec<u8>, PackageError> {
    let mut bytes = serde_json::to_vec(value).map_err(|source| PackageError::Json { file, source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A gzipped tar archive that says nothing of when, where and by whom it was made. Its blocks are stored, not compressed: how a library
/// compresses changes with its version, and with it the package id would.
fn archive(files: &[(&str, &[u8])]) -> std::io::Result<Vec<u8>> {
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::none());
    let mut builder = Builder::new(gzip);
    for (name, content) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content)?;
    }
    let mut gzip = builder.into_inner()?;
    gzip.flush()?;
    gzip.finish()
}

fn check_label(label: &str) -> Result<(), PackageError> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
    let begins = label.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || !label.chars().all(known) || label.len() > MAX_LABEL {
        return Err(PackageError::Label(label.chars().take(MAX_LABEL).collect()));
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), PackageError> {
    let wrong = || PackageError::Address(address.chars().take(MAX_ADDRESS).collect());
    if address.len() > MAX_ADDRESS || address.chars().any(char::is_control) {
        return Err(wrong());
    }
    // What stands between braces is only known on the peer.
    if address.contains("{{") && address.contains("}}") {
        return Ok(());
    }
    if is_address(address) { Ok(()) } else { Err(wrong()) }
}

/// Whether a text is `HOST:PORT`, with an IPv6 address in brackets.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let named = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    named && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn check_pem(what: &'static str, text: &str, kinds: &[&str]) -> Result<(), PackageError> {
    // A placeholder that Fabric's own builder fills in on the peer, so that a key needn't travel in the package.
    let placeholder = text.trim().starts_with("{{") && text.trim().ends_with("}}");
    let of_kind = kinds
        .iter()
        .any(|kind| text.contains(&format!("-----BEGIN {kind}-----")) && text.contains(&format!("-----END {kind}-----")));
    if placeholder || of_kind {
        Ok(())
    } else {
        Err(PackageError::Pem(what))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn plain(address: &str) -> Connection {
        Connection {
            address: address.into(),
            dial_timeout: Duration::from_secs(10),
            tls: None,
        }
    }

    /// The files of an archive: name, mode, time, owner and content.
    fn files(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(GzDecoder::new(bytes));
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(header.entry_type(), EntryType::Regular);
                assert_eq!(
                    (
                        header.mode().unwrap(),
                        header.mtime().unwrap(),
                        header.uid().unwrap(),
                        header.gid().unwrap()
                    ),
                    (0o644, 0, 0, 0)
                );
                let name = entry.path().unwrap().display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (name, content)
            })
            .collect()
    }

    fn parsed(content: &[u8]) -> serde_json::Value {
        serde_json::from_slice(content).unwrap()
    }

    #[test]
    fn a_package_holds_what_a_peer_looks_for() {
        let package = package("charter_1.0", &plain("charter.city.example:9999")).unwrap();
        let outer = files(&package.bytes);
        assert_eq!(
            outer.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["metadata.json", "code.tar.gz"]
        );
        assert_eq!(parsed(&outer[0].1), serde_json::json!({"type": "ccaas", "label": "charter_1.0"}));
        let inner = files(&outer[1].1);
        assert_eq!(inner.len(), 1);
        assert_eq!(inner[0].0, "connection.json");
        assert_eq!(
            parsed(&inner[0].1),
            serde_json::json!({"address": "charter.city.example:9999", "dial_timeout": "10s", "tls_required": false})
        );
    }

    #[test]
    fn the_package_id_changes_with_the_input_only() {
        let one = package("charter", &plain("localhost:9999")).unwrap();
        assert_eq!(one, package("charter", &plain("localhost:9999")).unwrap());
        // A new version of a library that changes these bytes would make every installed package another one: see to it that it doesn't.
        assert_eq!(one.id, "charter:d9b8021987b4a97af6882805ea0bbea867a962b3e74e27caa906b324c68ef609");
        assert_ne!(one.id, package("charter", &plain("localhost:9998")).unwrap().id);
    }

    #[test]
    fn tls_goes_into_the_package() {
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        let mut connection = plain("{{.peer}}.chaincode:9999");
        connection.tls = Some(ConnectionTls {
            root: pem("CERTIFICATE"),
            client: Some((pem("CERTIFICATE"), pem("PRIVATE KEY"))),
        });
        assert!(!format!("{connection:?}").contains("AAAA"), "a key is in no log");
        let made = package("charter", &connection).unwrap();
        let written = parsed(&files(&files(&made.bytes)[1].1)[0].1);
        assert_eq!(
            written,
            serde_json::json!({
                "address": "{{.peer}}.chaincode:9999", "dial_timeout": "10s", "tls_required": true, "client_auth_required": true,
                "client_key": pem("PRIVATE KEY"), "client_cert": pem("CERTIFICATE"), "root_cert": pem("CERTIFICATE"),
            })
        );
        let swapped = ConnectionTls {
            root: pem("CERTIFICATE"),
            client: Some((pem("PRIVATE KEY"), pem("CERTIFICATE"))),
        };
        connection.tls = Some(swapped);
        assert!(matches!(
            package("charter", &connection),
            Err(PackageError::Pem("client certificate"))
        ));
    }

    #[test]
    fn labels_and_addresses_that_a_peer_would_not_take_are_refused() {
        for label in ["", "-a", ".a", "a b", "a:b", "a/b", "é", &"a".repeat(101)] {
            assert!(matches!(package(label, &plain("a:1")), Err(PackageError::Label(_))), "{label:?}");
        }
        for address in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:b",
            "http://a:1",
            "a b:1",
            "::1:7",
            "a:1\n",
        ] {
            assert!(
                matches!(package("a", &plain(address)), Err(PackageError::Address(_))),
                "{address:?}"
            );
        }
        for address in ["localhost:1", "127.0.0.1:65535", "[::1]:7052", "{{.peer}}_cc:9999"] {
            assert!(package("a", &plain(address)).is_ok(), "{address:?}");
        }
    }
}
