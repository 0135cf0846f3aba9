//! Fabric's MSP folder on disk: `cacerts/`, `tlscacerts/`, `signcerts/`, `keystore/` and `config.yaml`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::certificate::MAX_CERTIFICATE_BYTES;
use crate::key::{MAX_KEY_BYTES, PrivateKey};
use crate::{Certificate, Issued, MspError, Role, private};

/// The most files that are looked at in one of the folder's directories.
const MAX_FILES: usize = 64;

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everybody (mode 0644).
    Everybody,
    /// Only the owner (mode 0600).
    Owner,
}

/// Writes one identity's folder. Files that exist are replaced, each in one step; everything is on disk on return.
pub fn write(path: &Path, ca_pem: &str, tls_ca_pem: &str, identity: &Issued) -> Result<(), MspError> {
    write_file(&path.join("cacerts/ca.pem"), ca_pem.as_bytes(), Readers::Everybody)?;
    write_file(&path.join("tlscacerts/tlsca.pem"), tls_ca_pem.as_bytes(), Readers::Everybody)?;
    write_file(&path.join("config.yaml"), node_ous().as_bytes(), Readers::Everybody)?;
    // The key comes before the certificate: a folder with a certificate is a folder that can sign.
    write_file(&path.join("keystore/priv_sk"), identity.key_pem.as_bytes(), Readers::Owner)?;
    write_file(
        &path.join("signcerts/cert.pem"),
        identity.certificate_pem.as_bytes(),
        Readers::Everybody,
    )
}

/// Reads the signing certificate and the key that belongs to it, both PEM.
pub(crate) fn read_signing_pair(path: &Path) -> Result<(Vec<u8>, Vec<u8>), MspError> {
    let certificate_path = signing_certificate(path)?;
    let certificate_pem = read_certificate(&certificate_path)?;
    let certificate = Certificate::from_pem(&certificate_pem)?;
    let mut unusable = None;
    for key_path in list(&path.join("keystore"))? {
        let key_pem = read_key(&key_path)?;
        match PrivateKey::from_pem(&key_pem) {
            Ok(key) if key.public_key() == certificate.public_key() => return Ok((certificate_pem, key_pem)),
            Ok(_) => {}
            Err(error) => unusable = Some((key_path, error)),
        }
    }
    // With no other key there, the one that can't be parsed is the likely culprit.
    Err(match unusable {
        Some((path, source)) => MspError::KeyFile {
            path,
            source: Box::new(source),
        },
        None => MspError::Folder {
            path: path.to_owned(),
            reason: format!("keystore/ holds no P-256 key that belongs to {}", certificate_path.display()),
        },
    })
}

/// Finds the one signing certificate of a folder.
pub fn signing_certificate(path: &Path) -> Result<PathBuf, MspError> {
    let mut certificates = list(&path.join("signcerts"))?;
    match (certificates.pop(), certificates.len()) {
        (Some(one), 0) => Ok(one),
        (last, before) => Err(MspError::Folder {
            path: path.to_owned(),
            reason: format!(
                "signcerts/ holds {} files, exactly one is expected",
                before + usize::from(last.is_some())
            ),
        }),
    }
}

/// Reads a certificate's file, PEM, and checks that it is a certificate.
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, MspError> {
    let pem = read_bounded(path, MAX_CERTIFICATE_BYTES)?;
    Certificate::from_pem(&pem).map_err(|source| MspError::CertificateFile {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(pem)
}

/// Reads a private key's file, refusing one that others can read.
pub fn read_key(path: &Path) -> Result<Vec<u8>, MspError> {
    private::read(path, "private key", MAX_KEY_BYTES)
}

/// Reads the certificates of one of the folder's directories, PEM, in the order of their names.
pub fn read_certificates(directory: &Path) -> Result<Vec<Vec<u8>>, MspError> {
    list(directory)?
        .iter()
        .map(|path| read_bounded(path, MAX_CERTIFICATE_BYTES))
        .collect()
}

/// Writes a file in one step: a reader sees the old content or the new one, and the new one is on disk on return.
/// Missing directories are made.
pub fn write_file(path: &Path, content: &[u8], readers: Readers) -> Result<(), MspError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_directories(directory)?;
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let new = directory.join(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(MspError::io("replace", &new)(error)),
        _ => {}
    }
    let mode = match readers {
        Readers::Everybody => 0o644,
        Readers::Owner => 0o600,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .map_err(MspError::io("create", &new))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(MspError::io("write", &new))?;
    fs::rename(&new, path).map_err(MspError::io("write", path))?;
    sync_directory(directory)
}

/// Makes a directory and those above it that are missing, for the owner alone and durably.
pub fn create_directories(path: &Path) -> Result<(), MspError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty() && !part.exists())
        .collect();
    for directory in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(MspError::io("create", directory)(error));
            }
            _ => {}
        }
        sync_directory(
            directory
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )?;
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), MspError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(MspError::io("flush", path))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, MspError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(MspError::io("list", directory))? {
        let entry = entry.map_err(MspError::io("list", directory))?;
        // A hidden file is one that a writer left half-written.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_file() {
            paths.push(entry.path());
        }
        if paths.len() > MAX_FILES {
            let reason = format!("it holds more than {MAX_FILES} files");
            return Err(MspError::Folder {
                path: directory.to_owned(),
                reason,
            });
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, MspError> {
    let size = fs::metadata(path).map_err(MspError::io("read", path))?.len();
    if size > limit as u64 {
        let reason = format!("it has {size} bytes, at most {limit} are expected");
        return Err(MspError::Folder {
            path: path.to_owned(),
            reason,
        });
    }
    fs::read(path).map_err(MspError::io("read", path))
}

fn node_ous() -> String {
    let mut text = String::from("NodeOUs:\n  Enable: true\n");
    for role in Role::ALL {
        let unit = role.unit();
        let name = format!("{}{}OUIdentifier", unit[..1].to_ascii_uppercase(), &unit[1..]);
        text.push_str(&format!(
            "  {name}:\n    Certificate: cacerts/ca.pem\n    OrganizationalUnitIdentifier: {unit}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{CertificateAuthority, Enrolment, PemSigner, Signer};

    const NOW: i64 = 1_780_000_000;

    fn folder(path: &Path) -> Issued {
        let ca = CertificateAuthority::create("City", "ca.city", NOW).unwrap();
        let identity = ca
            .enrol(
                "City",
                &Enrolment::Member {
                    name: "charter",
                    role: Role::Client,
                },
                NOW,
            )
            .unwrap();
        write(path, ca.certificate_pem(), ca.certificate_pem(), &identity).unwrap();
        identity
    }

    #[test]
    fn a_written_folder_signs_and_its_key_is_the_owners() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/msp");
        let identity = folder(&path);
        let mode = fs::metadata(path.join("keystore/priv_sk")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let signer = PemSigner::from_msp_dir(&path, "CityMSP").unwrap();
        assert_eq!(signer.certificate_pem(), identity.certificate_pem);
        assert_eq!(signer.certificate().organizational_units(), ["client"]);
        let yaml = fs::read_to_string(path.join("config.yaml")).unwrap();
        assert!(yaml.contains("  ClientOUIdentifier:\n    Certificate: cacerts/ca.pem\n"), "{yaml}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        folder(place.path());
        let key = place.path().join("keystore/priv_sk");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = PemSigner::from_msp_dir(place.path(), "CityMSP").unwrap_err();
        assert!(matches!(error, MspError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn another_identitys_key_is_refused() {
        let place = tempfile::tempdir().unwrap();
        folder(place.path());
        let other = tempfile::tempdir().unwrap();
        let stranger = folder(other.path());
        write_file(&place.path().join("keystore/priv_sk"), stranger.key_pem.as_bytes(), Readers::Owner).unwrap();
        let error = PemSigner::from_msp_dir(place.path(), "CityMSP").unwrap_err();
        assert!(matches!(error, MspError::Folder { .. }), "{error}");
        assert!(!error.to_string().contains("PRIVATE"));
    }
}
