//! A world with a member whose key is in a token.

use std::path::PathBuf;
use std::process::Command;

use msp::{Certificate, Issued, folder, sshsig};
use tests::{Ended, Repository, Running, World, command, wait};

/// The token's PIN: a word that nothing else contains.
pub(crate) const PIN: &str = "27182818284";
/// The token's label.
pub(crate) const TOKEN: &str = "city-hsm";

/// The module, or a line that tells what is missing.
fn module() -> Option<PathBuf> {
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    let found = known.iter().map(PathBuf::from).find(|path| path.exists());
    let tool = Command::new("softhsm2-util").arg("--version").output().is_ok();
    let found = found.filter(|_| tool);
    if found.is_none() {
        println!("missing: SoftHSM (Debian package softhsm2); nothing was tried on a token");
    }
    found
}

/// The smart city, with an empty token.
pub(crate) struct Town {
    pub(crate) world: World,
    module: PathBuf,
}

impl Town {
    /// Brings the smart city up with keys in files, as `up` makes them, and prepares a token.
    pub(crate) fn new() -> Option<Self> {
        let module = module()?;
        let world = World::smart_city();
        let tokens = world.root().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        world.give("SOFTHSM2_CONF", world.file("softhsm2.conf", &conf));
        let town = Self { world, module };
        town.tool(&["--init-token", "--free", "--label", TOKEN, "--so-pin", "so-314159", "--pin", PIN]);
        folder::write_file(
            &town.folder().join("secrets/pin"),
            format!("{PIN}\n").as_bytes(),
            folder::Readers::Owner,
        )
        .unwrap();
        Some(town)
    }

    /// The folder of the city's Charter.
    pub(crate) fn folder(&self) -> PathBuf {
        self.world.member("city")
    }

    pub(crate) fn store(&self) -> Repository {
        self.world.store("city")
    }

    fn tool(&self, words: &[&str]) {
        let mut tool = self.world.bare_command("softhsm2-util");
        tool.args(words);
        command::run(tool, wait::DEADLINE).exits(0);
    }

    /// Moves a key into the token.
    pub(crate) fn import(&self, issued: &Issued, label: &str, id: &str) {
        let path = self.world.root().join("import.pem");
        folder::write_file(&path, issued.key_pem.as_bytes(), folder::Readers::Owner).unwrap();
        let file = path.display().to_string();
        self.tool(&["--import", &file, "--token", TOKEN, "--label", label, "--id", id, "--pin", PIN]);
        std::fs::remove_file(path).unwrap();
    }

    /// Puts a certificate beside the city's configuration, and takes its key files away for good.
    pub(crate) fn certify(&self, issued: &Issued) {
        let path = self.folder().join("identity/hsm.pem");
        folder::write_file(&path, issued.certificate_pem.as_bytes(), folder::Readers::Everybody).unwrap();
        let keystore = self.folder().join("identity/msp/keystore");
        if keystore.exists() {
            std::fs::remove_dir_all(keystore).unwrap();
        }
    }

    /// Has the city sign with the token. `more` are lines of `[ledger.signer.pkcs11]` instead of the usual ones.
    pub(crate) fn configure(&self, more: &[(&str, &str)]) {
        let path = self.world.config("city");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut text = text.split("[ledger.signer.pkcs11]").next().unwrap().trim_end().to_owned();
        let module = self.module.display().to_string();
        let usual = [
            ("module", module.as_str()),
            ("token", TOKEN),
            ("key", "charter"),
            ("pin_file", "secrets/pin"),
            ("certificate", "identity/hsm.pem"),
        ];
        text.push_str("\n\n[ledger.signer.pkcs11]\n");
        for (name, value) in usual
            .iter()
            .filter(|(name, _)| !more.iter().any(|(other, _)| other == name))
            .chain(more)
        {
            // A line that is to be left out.
            if !value.is_empty() {
                text.push_str(&format!("{name} = \"{value}\"\n"));
            }
        }
        std::fs::write(path, text).unwrap();
    }

    /// A `charter` command for the city.
    pub(crate) fn charter(&self, words: &[&str]) -> Ended {
        let config = self.world.config("city").display().to_string();
        self.world.charter(&[words, &["--config", &config]].concat())
    }

    pub(crate) fn serve(&self) -> Running {
        self.world.serve("city")
    }
}

pub(crate) fn fingerprint(issued: &Issued) -> String {
    sshsig::fingerprint(certificate(issued).public_key())
}

pub(crate) fn certificate(issued: &Issued) -> Certificate {
    Certificate::from_pem(issued.certificate_pem.as_bytes()).unwrap()
}
