//! Signatures in OpenSSH's format, which plain git verifies (`gpg.format = ssh`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha512};

use crate::{Certificate, MspError, Signer};

/// The namespace in which git signs.
pub const GIT_NAMESPACE: &str = "git";

const MAGIC: &[u8] = b"SSHSIG";
const KEY_TYPE: &str = "ecdsa-sha2-nistp256";
const CURVE: &str = "nistp256";
const HASH: &str = "sha512";
const LINE: usize = 70;

/// Signs a message (for git: a commit's buffer) and returns the armored signature.
pub fn sign(signer: &dyn Signer, namespace: &str, message: &[u8]) -> Result<String, MspError> {
    let mut signed = MAGIC.to_vec();
    push_header(&mut signed, namespace);
    push_string(&mut signed, &Sha512::digest(message));
    let der = signer.sign(&signed)?;
    let signature = p256::ecdsa::Signature::from_der(&der).map_err(|_| MspError::Signature("it is not DER"))?;
    let (r, s) = signature.split_bytes();
    let mut numbers = Vec::with_capacity(74);
    push_mpint(&mut numbers, r.as_slice());
    push_mpint(&mut numbers, s.as_slice());
    let mut blob = Vec::with_capacity(104);
    push_string(&mut blob, KEY_TYPE.as_bytes());
    push_string(&mut blob, &numbers);

    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&1u32.to_be_bytes());
    push_string(&mut body, &public_key_blob(signer.certificate()));
    push_header(&mut body, namespace);
    push_string(&mut body, &blob);
    Ok(armor(&body))
}

/// The largest armored signature that is read, in bytes.
const MAX_ARMORED: usize = 4096;

/// Checks an armored signature of a message with a certificate's key: what `git log --show-signature` says Good to.
pub fn verify(certificate: &Certificate, namespace: &str, message: &[u8], armored: &str) -> Result<(), MspError> {
    let wrong = MspError::Signature;
    if armored.len() > MAX_ARMORED {
        return Err(wrong("it is too long"));
    }
    let base64: String = armored.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let body = STANDARD.decode(base64).map_err(|_| wrong("it is not base64"))?;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&1u32.to_be_bytes());
    push_string(&mut header, &public_key_blob(certificate));
    push_header(&mut header, namespace);
    let rest = body
        .strip_prefix(header.as_slice())
        .ok_or(wrong("it is of another key, namespace or hash"))?;
    let (blob, rest) = take_string(rest).ok_or(wrong("it is cut short"))?;
    let (kind, blob) = take_string(blob).ok_or(wrong("it is cut short"))?;
    let (numbers, more) = take_string(blob).ok_or(wrong("it is cut short"))?;
    if kind != KEY_TYPE.as_bytes() || !rest.is_empty() || !more.is_empty() {
        return Err(wrong("it is not one of ECDSA on P-256"));
    }
    let number = |bytes| take_string(bytes).and_then(|(number, rest)| Some((padded(number)?, rest)));
    let (r, rest) = number(numbers).ok_or(wrong("its numbers are too long or cut short"))?;
    let (s, _) = number(rest).ok_or(wrong("its numbers are too long or cut short"))?;
    let signature = p256::ecdsa::Signature::from_scalars(r, s).map_err(|_| wrong("its numbers are out of range"))?;
    let mut signed = MAGIC.to_vec();
    push_header(&mut signed, namespace);
    push_string(&mut signed, &Sha512::digest(message));
    crate::verify(certificate, &signed, signature.to_der().as_bytes())
}

fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// A number of at most 32 bytes, without the zero byte that keeps it positive, with the zero bytes that it needs.
fn padded(number: &[u8]) -> Option<[u8; 32]> {
    let number = number.strip_prefix(&[0]).unwrap_or(number);
    let mut out = [0; 32];
    let start = out.len().checked_sub(number.len())?;
    out[start..].copy_from_slice(number);
    Some(out)
}

/// Returns a certificate's key as a line of an OpenSSH public key file, without a comment.
pub fn public_key_line(certificate: &Certificate) -> String {
    format!("{KEY_TYPE} {}", STANDARD.encode(public_key_blob(certificate)))
}

/// Returns a line of an allowed-signers file that lets `principal` sign commits with a certificate's key.
///
/// A principal with a character that would end the field, or act as a pattern, is refused.
pub fn allowed_signers_line(principal: &str, certificate: &Certificate) -> Result<String, MspError> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_.@+:/".contains(character);
    if principal.is_empty() || !principal.chars().all(plain) {
        let reason = format!("«{principal}» is not a plain name");
        return Err(MspError::Issue {
            action: "write an allowed-signers line",
            reason,
        });
    }
    Ok(format!(
        "{principal} namespaces=\"{GIT_NAMESPACE}\" {}",
        public_key_line(certificate)
    ))
}

fn public_key_blob(certificate: &Certificate) -> Vec<u8> {
    let mut blob = Vec::with_capacity(104);
    push_string(&mut blob, KEY_TYPE.as_bytes());
    push_string(&mut blob, CURVE.as_bytes());
    push_string(&mut blob, certificate.public_key());
    blob
}

/// Pushes namespace, the empty reserved field and the hash's name, which stand in the signed and the written form.
fn push_header(out: &mut Vec<u8>, namespace: &str) {
    push_string(out, namespace.as_bytes());
    push_string(out, b"");
    push_string(out, HASH.as_bytes());
}

fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("every field is a short string or a digest");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn push_mpint(out: &mut Vec<u8>, bytes: &[u8]) {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let mut number = Vec::with_capacity(bytes.len() + 1);
    if bytes.get(first).is_some_and(|byte| byte & 0x80 != 0) {
        number.push(0);
    }
    number.extend_from_slice(&bytes[first..]);
    push_string(out, &number);
}

fn armor(body: &[u8]) -> String {
    let encoded = STANDARD.encode(body);
    let mut text = String::from("-----BEGIN SSH SIGNATURE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str("-----END SSH SIGNATURE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;
    use crate::{CertificateAuthority, Enrolment, PemSigner, Role};

    fn signer() -> PemSigner {
        let ca = CertificateAuthority::create("City", "ca.city", 1_780_000_000).unwrap();
        let issued = ca
            .enrol(
                "City",
                &Enrolment::Member {
                    name: "charter",
                    role: Role::Client,
                },
                1_780_000_000,
            )
            .unwrap();
        PemSigner::new("CityMSP", issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    fn git(repository: &Path, arguments: &[&str]) -> Output {
        Command::new("git")
            .args(arguments)
            .current_dir(repository)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", repository)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap()
    }

    #[test]
    fn git_says_good() {
        let place = tempfile::tempdir().unwrap();
        let repository = place.path();
        // Several keys and messages: r and s need a leading zero byte about half the time, and are short rarely.
        for round in 0..6 {
            let signer = signer();
            assert!(git(repository, &["init", "-q"]).status.success());
            let tree = git(repository, &["mktree"]).stdout;
            let tree = String::from_utf8(tree).unwrap();
            let person = format!("charter <charter@city.example> {} +0000", 1_780_000_000 + round);
            let buffer = format!("tree {}\nauthor {person}\ncommitter {person}\n\nround {round}\n", tree.trim());
            let signature = sign(&signer, GIT_NAMESPACE, buffer.as_bytes()).unwrap();
            verify(signer.certificate(), GIT_NAMESPACE, buffer.as_bytes(), &signature).unwrap();
            assert!(verify(signer.certificate(), GIT_NAMESPACE, b"another commit", &signature).is_err());
            assert!(verify(signer.certificate(), "file", buffer.as_bytes(), &signature).is_err());
            assert!(verify(self::signer().certificate(), GIT_NAMESPACE, buffer.as_bytes(), &signature).is_err());
            let (head, message) = buffer.split_once("\n\n").unwrap();
            let signed = format!("{head}\ngpgsig {}\n\n{message}", signature.trim_end().replace('\n', "\n "));
            std::fs::write(repository.join("commit"), signed).unwrap();
            let id = git(repository, &["hash-object", "-t", "commit", "-w", "commit"]);
            assert!(id.status.success(), "{id:?}");
            let id = String::from_utf8(id.stdout).unwrap();
            let allowed = allowed_signers_line("charter@city.example", signer.certificate()).unwrap();
            std::fs::write(repository.join("allowed"), allowed + "\n").unwrap();
            let shown = git(
                repository,
                &[
                    "-c",
                    "gpg.ssh.allowedSignersFile=allowed",
                    "log",
                    "--show-signature",
                    "-1",
                    id.trim(),
                ],
            );
            let text = String::from_utf8_lossy(&shown.stdout) + String::from_utf8_lossy(&shown.stderr);
            assert!(text.contains("Good \"git\" signature for charter@city.example"), "{text}");
        }
    }

    #[test]
    fn principals_cannot_smuggle_options() {
        let signer = signer();
        for name in ["", "a b", "*", "a,b", "a\nb", "!a"] {
            assert!(allowed_signers_line(name, signer.certificate()).is_err(), "{name:?}");
        }
    }
}
