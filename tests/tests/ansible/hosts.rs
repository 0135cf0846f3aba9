//! Hosts that Ansible reaches by SSH: each a real server on an address of its own, with its own user, host key and `/srv`.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tests::wait::until;

/// The port of every host.
pub(crate) const PORT: u16 = 2022;
/// What `root` of every host becomes root with.
pub(crate) const PASSWORD: &str = "open-sesame-4711";
/// Who logs in, by uid.
const UID: u32 = 20_022;

/// A host. It is gone when this is dropped.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    folder: PathBuf,
    server: Option<Child>,
}

impl Host {
    /// Makes a host and starts its server, which lets in whoever has the private key of this public one.
    pub(crate) fn start(below: &Path, name: &str, public: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let folder = below.join(name);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 1 + (high & 0x3f), low, u8::try_from(count % 250).unwrap() + 1);
        std::fs::create_dir_all(folder.join("srv/home/tmp")).unwrap();
        std::fs::write(folder.join("authorized_keys"), public).unwrap();
        std::fs::write(
            folder.join("passwd"),
            format!(
                "root:x:0:0:root:/root:/bin/sh\nsshd:*:105:65534::/run/sshd:/usr/sbin/nologin\n{name}:*:{UID}:{UID}::/srv/home:/bin/sh\n"
            ),
        )
        .unwrap();
        let hash = ran(Command::new("openssl").args(["passwd", "-6", PASSWORD]));
        std::fs::write(
            folder.join("shadow"),
            format!("root:{}:19000::::::\n{name}:*:19000::::::\n", hash.trim()),
        )
        .unwrap();
        ran(Command::new("chown").args(["-R", &format!("{UID}:{UID}")]).arg(folder.join("srv")));
        let mut host = Self {
            name: name.to_owned(),
            address,
            folder,
            server: None,
        };
        host.new_key();
        host.serve();
        host
    }

    /// Gives the host another key.
    pub(crate) fn new_key(&self) {
        let key = self.folder.join("host_key");
        for path in [key.clone(), key.with_extension("pub")] {
            let _ = std::fs::remove_file(path);
        }
        ran(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&key));
    }

    /// Its public key: a type and a key.
    pub(crate) fn key(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("host_key.pub")).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Starts the server.
    pub(crate) fn serve(&mut self) {
        let at = |name: &str| self.folder.join(name).display().to_string();
        std::fs::write(
            self.folder.join("sshd_config"),
            format!(
                "ListenAddress {}:{PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nAllowUsers {}\nUseDNS no\n\
                 MaxStartups 100\nSetEnv TMPDIR=/srv/home/tmp\n",
                self.address,
                at("host_key"),
                at("authorized_keys"),
                self.name
            ),
        )
        .unwrap();
        // Its own users, and its own /srv.
        let script = format!(
            "mkdir -p /run/sshd && mount --bind {} /etc/passwd && mount --bind {} /etc/shadow && mount --bind {} /srv \
             && exec /usr/sbin/sshd -D -e -f {}",
            at("passwd"),
            at("shadow"),
            at("srv"),
            at("sshd_config")
        );
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let server = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "--kill-child",
                "--fork",
                "--pid",
                "--mount-proc",
                "sh",
                "-c",
                &script,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        until("its SSH server answers", || match TcpStream::connect((self.address, PORT)) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "{error}: {}",
                std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
            )),
        });
    }

    /// Takes the host off the network.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        until("its SSH server is gone", || match TcpStream::connect((self.address, PORT)) {
            Ok(_) => Err("it answers"),
            Err(_) => Ok(()),
        });
    }

    /// A file of the host's, which is below `/srv` there.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join("srv").join(name)
    }

    /// What a file of the host's holds; none: there is none.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.file(name)).ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// What a command that has to work says.
#[track_caller]
fn ran(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Makes a pair of keys to log in with: the private one, and the line of the public one.
pub(crate) fn pair(folder: &Path) -> (String, String) {
    let key = folder.join("login");
    ran(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&key));
    (
        std::fs::read_to_string(&key).unwrap(),
        std::fs::read_to_string(key.with_extension("pub")).unwrap(),
    )
}
