//! Signing on a real token: SoftHSM, where it is installed.
//!
//! SoftHSM reads its configuration from the environment of its process, so each test runs itself again in a process of its own,
//! with a token of its own.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use msp::pkcs11::{KeyName, PinSource, Pkcs11Signer, Place, TokenError, TokenName};
use msp::{CertificateAuthority, Enrolment, Issued, MspError, Role, Signer, folder, sshsig, verify};
use sha2::{Digest, Sha256};

const NOW: i64 = 1_780_000_000;
const PIN: &str = "2718281828";
const WORLD: &str = "CHARTER_TEST_TOKEN";

fn module() -> Option<PathBuf> {
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ];
    let found = known.iter().map(PathBuf::from).find(|path| path.exists());
    let tool = Command::new("softhsm2-util").arg("--version").output().is_ok();
    found.filter(|_| tool)
}

/// The folder that the outer run has prepared, with a token in it, and where the member's key is.
struct World {
    folder: PathBuf,
    place: Place,
}

impl World {
    fn open(&self) -> Result<Pkcs11Signer, MspError> {
        self.with(|_| {})
    }

    fn with(&self, change: impl FnOnce(&mut Place)) -> Result<Pkcs11Signer, MspError> {
        let mut place = self.place.clone();
        change(&mut place);
        Pkcs11Signer::open("CityMSP", &std::fs::read(self.folder.join("cert.pem")).unwrap(), place)
    }

    fn error(&self, change: impl FnOnce(&mut Place)) -> (TokenError, String) {
        let error = self.with(change).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains(PIN), "{text}");
        let MspError::Token(error) = error else { panic!("{text}") };
        let text = error.to_string();
        (error, text)
    }

    /// The same module once more, as anything else in the process could have it.
    fn beside(&self) -> (Pkcs11, Slot) {
        let context = Pkcs11::new(&self.place.module).unwrap();
        let slots = context.get_slots_with_initialized_token().unwrap();
        (context, slots[0])
    }
}

fn signs(signer: &Pkcs11Signer) {
    for round in 0..8u8 {
        let message = [round; 100];
        // `verify` refuses the higher of the two possible s, which half of all raw signatures have.
        verify(signer.certificate(), &message, &signer.sign(&message).unwrap()).unwrap();
    }
}

/// Runs a test in a process of its own, or is that process.
fn on_a_token(name: &str, test: impl FnOnce(&World)) {
    let Some(module) = module() else {
        println!("missing: SoftHSM (Debian package softhsm2); not run: {name}");
        return;
    };
    if let Some(folder) = std::env::var_os(WORLD) {
        let folder = PathBuf::from(folder);
        let place = Place {
            module,
            token: TokenName::Label("city".into()),
            key: KeyName {
                label: Some("charter".into()),
                id: None,
            },
            pin: PinSource::File(folder.join("pin")),
        };
        return test(&World { folder, place });
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let issued = prepare(folder);
    for (key, label, id) in [
        (&issued, "charter", "01"),
        (&member(), "stranger", "02"),
        (&member(), "stranger", "03"),
    ] {
        import(folder, key, label, id);
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(WORLD, folder)
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf"))
        .env("CITY_PIN", PIN)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

fn member() -> Issued {
    let ca = CertificateAuthority::create("City", "ca.city", NOW).unwrap();
    let charter = Enrolment::Member {
        name: "charter",
        role: Role::Client,
    };
    ca.enrol("City", &charter, NOW).unwrap()
}

fn prepare(folder: &Path) -> Issued {
    let issued = member();
    std::fs::create_dir(folder.join("tokens")).unwrap();
    let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", folder.join("tokens").display());
    std::fs::write(folder.join("softhsm2.conf"), conf).unwrap();
    std::fs::write(folder.join("cert.pem"), &issued.certificate_pem).unwrap();
    folder::write_file(&folder.join("pin"), format!("{PIN}\n").as_bytes(), folder::Readers::Owner).unwrap();
    tool(
        folder,
        &["--init-token", "--free", "--label", "city", "--so-pin", "so-12345", "--pin", PIN],
    );
    issued
}

fn import(folder: &Path, key: &Issued, label: &str, id: &str) {
    let path = folder.join(format!("{id}.pem"));
    folder::write_file(&path, key.key_pem.as_bytes(), folder::Readers::Owner).unwrap();
    let file = path.display().to_string();
    tool(
        folder,
        &["--import", &file, "--token", "city", "--label", label, "--id", id, "--pin", PIN],
    );
    std::fs::remove_file(path).unwrap();
}

fn tool(folder: &Path, words: &[&str]) {
    let run = Command::new("softhsm2-util")
        .args(words)
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{words:?}: {run:?}");
}

#[test]
fn a_token_signs_what_a_key_file_would() {
    on_a_token("a_token_signs_what_a_key_file_would", |world| {
        let signer = world.open().unwrap();
        signs(&signer);
        assert_eq!(signer.msp_id(), "CityMSP");
        let armored = sshsig::sign(&signer, sshsig::GIT_NAMESPACE, b"tree").unwrap();
        sshsig::verify(signer.certificate(), sshsig::GIT_NAMESPACE, b"tree", &armored).unwrap();
        let shown = format!("{signer:?}");
        assert!(shown.contains("charter") && !shown.contains(PIN), "{shown}");
        // Two signers share the token, and the one that goes doesn't log the other out.
        let id = world.with(|place| place.key.id = Some(vec![1])).unwrap();
        signs(&id);
        drop(id);
        signs(&signer);
        let slot = world.beside().1.id();
        signs(&world.with(|place| place.token = TokenName::Slot(slot)).unwrap());
        signs(&world.with(|place| place.pin = PinSource::Environment("CITY_PIN".into())).unwrap());
    });
}

#[test]
fn many_threads_sign_at_once() {
    on_a_token("many_threads_sign_at_once", |world| {
        let signer = world.open().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| signs(&signer));
            }
        });
    });
}

#[test]
fn lost_sessions_and_a_lost_module_are_replaced() {
    on_a_token("lost_sessions_and_a_lost_module_are_replaced", |world| {
        let (signer, other) = (world.open().unwrap(), world.open().unwrap());
        let (context, slot) = world.beside();
        for _ in 0..3 {
            // Logging out in one session does so in all of them.
            context.open_ro_session(slot).unwrap().logout().unwrap();
            signs(&signer);
            context.clone().finalize().unwrap();
            signs(&signer);
            signs(&other);
        }
        // Many find out at the same time.
        for _ in 0..3 {
            context.clone().finalize().unwrap();
            std::thread::scope(|scope| {
                for signer in [&signer, &other, &signer, &other, &signer, &other] {
                    scope.spawn(|| signs(signer));
                }
            });
        }
    });
}

#[test]
fn a_token_that_is_away_signs_again_when_it_is_back() {
    on_a_token("a_token_that_is_away_signs_again_when_it_is_back", |world| {
        let signer = world.open().unwrap();
        let context = world.beside().0;
        let (tokens, away) = (world.folder.join("tokens"), world.folder.join("away"));
        std::fs::rename(&tokens, &away).unwrap();
        std::fs::create_dir(&tokens).unwrap();
        for round in 0..3 {
            if round == 1 {
                context.clone().finalize().unwrap();
            }
            let error = signer.sign(b"m").unwrap_err();
            assert!(error.transient(), "{error:?}");
        }
        std::fs::remove_dir(&tokens).unwrap();
        std::fs::rename(&away, &tokens).unwrap();
        signs(&signer);
    });
}

#[test]
fn each_mistake_has_one_clear_error() {
    on_a_token("each_mistake_has_one_clear_error", |world| {
        let (error, text) = world.error(|place| place.module = "/nowhere/lib.so".into());
        assert!(
            matches!(error, TokenError::NoModule { .. }) && text.contains("/nowhere/lib.so"),
            "{text}"
        );
        let (error, text) = world.error(|place| place.module = world.folder.join("cert.pem"));
        assert!(matches!(error, TokenError::Load { .. }) && text.contains("cert.pem"), "{text}");
        let (error, text) = world.error(|place| place.token = TokenName::Label("village".into()));
        assert!(
            matches!(error, TokenError::NoToken { .. }) && text.contains("it has: «city» in slot"),
            "{text}"
        );
        let (error, text) = world.error(|place| place.key.label = Some("mayor".into()));
        assert!(matches!(error, TokenError::NoKey { .. }) && text.contains("«mayor»"), "{text}");
        assert!(!error.transient());
        let (error, text) = world.error(|place| place.key.id = Some(vec![9]));
        assert!(matches!(error, TokenError::NoKey { .. }) && text.contains("with id 09"), "{text}");
        let (error, text) = world.error(|place| place.key.label = Some("stranger".into()));
        assert!(
            matches!(error, TokenError::SeveralKeys { count: 2, .. }) && text.contains("`id`"),
            "{text}"
        );
        let (error, text) = world.error(|place| {
            place.key = KeyName {
                label: None,
                id: Some(vec![2]),
            }
        });
        assert!(
            matches!(error, TokenError::NotItsKey { .. }) && text.contains("certificate of charter"),
            "{text}"
        );
        let (error, text) = world.error(|place| place.key = KeyName::default());
        assert!(matches!(error, TokenError::NoKey { .. }) && text.contains("Fabric"), "{text}");
    });
}

#[test]
fn a_pin_is_needed_and_kept_from_others() {
    on_a_token("a_pin_is_needed_and_kept_from_others", |world| {
        let (error, text) = world.error(|place| place.pin = PinSource::None);
        assert!(matches!(error, TokenError::NoPin { .. }) && text.contains("pin_file"), "{text}");
        let (error, text) = world.error(|place| place.pin = PinSource::Environment("NOT_SET".into()));
        assert!(
            matches!(error, TokenError::PinVariable { .. }) && text.contains("NOT_SET"),
            "{text}"
        );
        let pin = world.folder.join("pin");
        std::fs::set_permissions(&pin, Permissions::from_mode(0o644)).unwrap();
        let (error, _) = world.error(|_| {});
        let TokenError::Pin { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("chmod 600"), "{source}");
        folder::write_file(&pin, b"\n", folder::Readers::Owner).unwrap();
        assert!(matches!(world.error(|_| {}).0, TokenError::PinFile { .. }));
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    on_a_token("a_wrong_pin_is_tried_once", |world| {
        let wrong = world.folder.join("wrong");
        folder::write_file(&wrong, b"31415926", folder::Readers::Owner).unwrap();
        for _ in 0..2 {
            let (error, text) = world.error(|place| place.pin = PinSource::File(wrong.clone()));
            assert!(matches!(error, TokenError::WrongPin { .. }) && !error.transient(), "{error}");
            assert!(text.contains("/wrong") && !text.contains("31415926"), "{text}");
        }
        let (context, slot) = world.beside();
        assert!(context.get_token_info(slot).unwrap().user_pin_count_low());
        // The right one is taken, also while the wrong one is remembered.
        signs(&world.open().unwrap());
    });
}

#[test]
fn a_key_that_fabrics_tools_made_needs_no_name() {
    on_a_token("a_key_that_fabrics_tools_made_needs_no_name", |world| {
        let (context, slot) = {
            drop(world.open().unwrap());
            world.beside()
        };
        let session = context.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned()))).unwrap();
        let p256 = vec![0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let public = [Attribute::Token(true), Attribute::Verify(true), Attribute::EcParams(p256)];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Sign(true),
        ];
        let pair = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
        let (public, private) = pair.unwrap();
        let attributes = session.get_attributes(public, &[AttributeType::EcPoint]).unwrap();
        let Some(Attribute::EcPoint(point)) = attributes.first() else {
            panic!("{attributes:?}")
        };
        // An octet string around the uncompressed point.
        let point = &point[2..];
        let id = Attribute::Id(Sha256::digest(point).to_vec());
        session.update_attributes(private, &[id]).unwrap();
        let certificate = certificate_of(&world.folder, point);
        let mut place = world.place.clone();
        place.key = KeyName::default();
        let signer = Pkcs11Signer::open("CityMSP", &certificate, place).unwrap();
        assert_eq!(signer.certificate().public_key(), point);
        signs(&signer);
        drop(session);
        signs(&signer);
    });
}

/// Has openssl issue a certificate for a public point, as an organisation's own authority would.
fn certificate_of(folder: &Path, point: &[u8]) -> Vec<u8> {
    // What stands before the point of a P-256 key in a SubjectPublicKeyInfo.
    let head = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    std::fs::write(folder.join("public.der"), [head.as_slice(), point].concat()).unwrap();
    let openssl = |words: &str| {
        let run = Command::new("openssl").args(words.split(' ')).current_dir(folder).output().unwrap();
        assert!(run.status.success(), "{words:?}: {run:?}");
    };
    openssl("pkey -pubin -inform DER -in public.der -out public.pem");
    let ca = CertificateAuthority::create("City", "ca.city", NOW).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.certificate_pem()).unwrap();
    std::fs::write(folder.join("ca.key"), ca.key_pem().unwrap()).unwrap();
    openssl("req -new -key ca.key -subj /O=City/OU=client/CN=charter -out request.pem");
    openssl("x509 -req -in request.pem -force_pubkey public.pem -CA ca.pem -CAkey ca.key -days 30 -out issued.pem");
    std::fs::read(folder.join("issued.pem")).unwrap()
}
