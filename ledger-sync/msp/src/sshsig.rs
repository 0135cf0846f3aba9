//! Signatures in OpenSSH's format, which plain git verifies (`gpg.format = ssh`).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256, Sha512};

use crate::{Certificate, MspError, Signer};

/// The namespace in which git signs.
pub const GIT_NAMESPACE: &str = "git";

const MAGIC: &[u8] = b"SSHSIG";
pub(crate) const KEY_TYPE: &str = "ecdsa-sha2-nistp256";
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
    if signed_by(namespace, message, armored)? != certificate.public_key() {
        return Err(MspError::Signature("it is of another key"));
    }
    Ok(())
}

/// Checks an armored signature of a message with the key that it names itself, and returns that key: the public point,
/// uncompressed (65 bytes). Whose key it is, is for the caller to know.
pub fn signed_by(namespace: &str, message: &[u8], armored: &str) -> Result<Vec<u8>, MspError> {
    let wrong = MspError::Signature;
    if armored.len() > MAX_ARMORED {
        return Err(wrong("it is too long"));
    }
    let base64: String = armored.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let body = STANDARD.decode(base64).map_err(|_| wrong("it is not base64"))?;
    let short = || wrong("it is cut short");
    let mut magic = MAGIC.to_vec();
    magic.extend_from_slice(&1u32.to_be_bytes());
    let rest = body.strip_prefix(magic.as_slice()).ok_or(wrong("it is not in OpenSSH's format"))?;
    let (key, rest) = take_string(rest).ok_or_else(short)?;
    let key = blob_key(key).ok_or(wrong("it is not one of ECDSA on P-256"))?;
    let mut header = Vec::new();
    push_header(&mut header, namespace);
    let rest = rest
        .strip_prefix(header.as_slice())
        .ok_or(wrong("it is of another namespace or hash"))?;
    let (blob, rest) = take_string(rest).ok_or_else(short)?;
    let (kind, blob) = take_string(blob).ok_or_else(short)?;
    let (numbers, more) = take_string(blob).ok_or_else(short)?;
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
    crate::verify_key(key, &signed, signature.to_der().as_bytes())?;
    Ok(key.to_vec())
}

/// Takes the public point out of a public key in OpenSSH's encoding.
pub(crate) fn blob_key(blob: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = take_string(blob)?;
    let (curve, rest) = take_string(rest)?;
    let (point, rest) = take_string(rest)?;
    let ours = kind == KEY_TYPE.as_bytes() && curve == CURVE.as_bytes() && rest.is_empty();
    (ours && point.len() == 65 && point[0] == 4).then_some(point)
}

/// Returns a key's fingerprint as OpenSSH and git show it.
pub fn fingerprint(public_key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob_of(public_key))))
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
    blob_of(certificate.public_key())
}

fn blob_of(public_key: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(104);
    push_string(&mut blob, KEY_TYPE.as_bytes());
    push_string(&mut blob, CURVE.as_bytes());
    push_string(&mut blob, public_key);
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

    const NOW: i64 = 1_780_000_000;
    const PERSON: &str = "charter@city.example";

    /// A repository whose allowed signers are in the file `allowed`.
    fn repository() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        assert!(git(place.path(), &["init", "-q"]).status.success());
        place
    }

    fn buffer(repository: &Path, message: &str, at: i64) -> String {
        let tree = git(repository, &["mktree"]).stdout;
        let tree = String::from_utf8(tree).unwrap();
        let person = format!("charter <{PERSON}> {at} +0000");
        format!("tree {}\nauthor {person}\ncommitter {person}\n\n{message}\n", tree.trim())
    }

    /// What git says of a signed commit.
    fn shown(repository: &Path, buffer: &str, signature: &str) -> String {
        let (head, message) = buffer.split_once("\n\n").unwrap();
        let signed = format!("{head}\ngpgsig {}\n\n{message}", signature.trim_end().replace('\n', "\n "));
        std::fs::write(repository.join("commit"), signed).unwrap();
        let id = git(repository, &["hash-object", "-t", "commit", "-w", "commit"]);
        assert!(id.status.success(), "{id:?}");
        let id = String::from_utf8(id.stdout).unwrap();
        let log = [
            "-c",
            "gpg.ssh.allowedSignersFile=allowed",
            "log",
            "--show-signature",
            "-1",
            id.trim(),
        ];
        let shown = git(repository, &log);
        String::from_utf8_lossy(&shown.stdout).into_owned() + &String::from_utf8_lossy(&shown.stderr)
    }

    const GOOD: &str = "Good \"git\" signature for charter@city.example";

    #[test]
    fn git_says_good() {
        let place = repository();
        let repository = place.path();
        // Several keys and messages: r and s need a leading zero byte about half the time, and are short rarely.
        for round in 0..6 {
            let signer = signer();
            let buffer = buffer(repository, &format!("round {round}"), NOW + round);
            let signature = sign(&signer, GIT_NAMESPACE, buffer.as_bytes()).unwrap();
            verify(signer.certificate(), GIT_NAMESPACE, buffer.as_bytes(), &signature).unwrap();
            let key = signed_by(GIT_NAMESPACE, buffer.as_bytes(), &signature).unwrap();
            assert_eq!(key, signer.certificate().public_key());
            assert!(verify(signer.certificate(), GIT_NAMESPACE, b"another commit", &signature).is_err());
            assert!(verify(signer.certificate(), "file", buffer.as_bytes(), &signature).is_err());
            assert!(verify(self::signer().certificate(), GIT_NAMESPACE, buffer.as_bytes(), &signature).is_err());
            let allowed = allowed_signers_line(PERSON, signer.certificate()).unwrap();
            std::fs::write(repository.join("allowed"), allowed + "\n").unwrap();
            let text = shown(repository, &buffer, &signature);
            assert!(text.contains(GOOD) && text.contains(&fingerprint(&key)), "{text}");
        }
    }

    #[test]
    fn a_key_that_was_followed_by_another_signs_nothing_new() {
        let place = repository();
        let repository = place.path();
        let (first, second) = (signer(), signer());
        let mut allowed = crate::allowed::renewed("", PERSON, first.certificate(), NOW).unwrap();
        allowed = crate::allowed::renewed(&allowed, PERSON, second.certificate(), NOW + 100).unwrap();
        std::fs::write(repository.join("allowed"), allowed).unwrap();
        for (signer, at, good) in [
            (&first, NOW + 50, true),
            (&first, NOW + 100, true),
            (&second, NOW + 100, true),
            (&second, NOW + 200, true),
            (&first, NOW + 101, false),
            (&self::signer(), NOW + 50, false),
        ] {
            let buffer = buffer(repository, "status", at);
            let signature = sign(signer, GIT_NAMESPACE, buffer.as_bytes()).unwrap();
            let text = shown(repository, &buffer, &signature);
            assert_eq!(text.contains(GOOD), good, "{at}: {text}");
        }
    }

    #[test]
    fn a_signature_that_is_cut_anywhere_is_refused() {
        let signer = signer();
        let armored = sign(&signer, GIT_NAMESPACE, b"m").unwrap();
        let base64: String = armored.lines().filter(|line| !line.starts_with("-----")).collect();
        let body = STANDARD.decode(base64).unwrap();
        for end in 0..body.len() {
            assert!(signed_by(GIT_NAMESPACE, b"m", &armor(&body[..end])).is_err(), "{end}");
        }
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 1;
            let key = signed_by(GIT_NAMESPACE, b"m", &armor(&changed));
            assert!(key.is_err(), "{at}");
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
