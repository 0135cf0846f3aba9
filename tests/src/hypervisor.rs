//! A real libvirtd with QEMU, as processes of a test: in a mount and process namespace of their own, with folders of their own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::spaces;
use crate::wait::until_within;

/// The programs that it takes, from Debian's packages.
const PROGRAMS: [&str; 7] = ["libvirtd", "virtlogd", "qemu-system-x86_64", "virsh", "unshare", "tini", "ip"];
/// Where libvirt keeps what it has.
const FOLDERS: [&str; 5] = [
    "/etc/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
    "/run/libvirt",
];
/// The size of the file system at `pools/small`, in MiB.
pub const SMALL_MIB: u64 = 8;
/// What guests run on where the processor supports it.
const KVM: &str = "/dev/kvm";
/// How long the daemon may take to answer first.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a boot sector says on the serial port that [`Hypervisor::image`] makes.
pub const SAYS: &str = "ready";

/// A running daemon. It ends with this, and everything that it runs with it.
pub struct Hypervisor {
    folder: tempfile::TempDir,
    all: Child,
}

impl Hypervisor {
    /// Starts one; where a program is missing, or this is not root, one line says so.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn start() -> Option<Self> {
        Self::with(accelerates())
    }

    /// The same on a host whose guests are emulated.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn emulating() -> Option<Self> {
        Self::with(false)
    }

    fn with(accelerated: bool) -> Option<Self> {
        let found = |name: &&str| {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            let mut folders: Vec<PathBuf> = std::env::split_paths(&paths).collect();
            folders.push("/usr/sbin".into());
            folders.iter().any(|folder| folder.join(name).is_file())
        };
        let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !found(name)).collect();
        if !missing.is_empty() {
            eprintln!("missing: {}; nothing was tried on libvirt", missing.join(", "));
            return None;
        }
        if !spaces::allowed("nothing was tried on libvirt") {
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("charter-libvirt-")
            .tempdir()
            .expect("a temporary folder can be made");
        let root = folder.path();
        let write = |name: &str, text: String| std::fs::write(root.join(name), text).expect("the folder was just made");
        for one in ["run", "logs", "pools", "pools/small"] {
            std::fs::create_dir(root.join(one)).expect("the folder was just made");
        }
        let mut script = "set -e\nulimit -c 0\nip link set lo up\n".to_owned();
        // A pool that is soon full.
        script += &format!("mount -t tmpfs -o size={SMALL_MIB}m small {}/pools/small\n", root.display());
        for place in FOLDERS {
            let own = root.join("own").join(place.trim_start_matches('/'));
            std::fs::create_dir_all(&own).expect("the folder was just made");
            script += &format!("mkdir -p {place}\nmount --bind {} {place}\n", own.display());
        }
        script += "mkdir -p /var/log/libvirt/qemu\n";
        if Path::new(KVM).exists() && !accelerated {
            // A file that can't be written to is no device to libvirt; one that can be, it would ask about before each call.
            write("no-kvm", String::new());
            script += &format!("mount --bind {0}/no-kvm {KVM}\nmount -o remount,ro,bind {KVM}\n", root.display());
        }
        let qemu = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\n";
        write("own/etc/libvirt/qemu.conf", qemu.to_owned());
        write(
            "libvirtd.conf",
            format!(
                "unix_sock_dir = \"{0}/run\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nlog_outputs = \"3:file:{0}/libvirtd.log\"\n",
                root.display()
            ),
        );
        // Another daemon may run on this machine: nothing is shared with it.
        script += &format!(
            "/usr/sbin/virtlogd --pid-file {0}/virtlogd.pid &\n\
             while true; do /usr/sbin/libvirtd --pid-file {0}/libvirtd.pid --config {0}/libvirtd.conf || true; sleep 0.2; done\n",
            root.display()
        );
        write("run.sh", script);
        let log = std::fs::File::create(root.join("run.log")).expect("the folder was just made");
        let all = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--net",
                "--propagation",
                "private",
                "tini",
                "--",
                "sh",
            ])
            .arg(root.join("run.sh"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the file was just opened"))
            .stderr(log)
            .spawn()
            .expect("the program was found");
        let hypervisor = Self { folder, all };
        until_within(PATIENCE, "libvirtd answers", || hypervisor.virsh(&["version"]).map(drop));
        Some(hypervisor)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How it is reached.
    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}/run/libvirt-sock", self.folder.path().display())
    }

    /// Brings this thread, and what it starts from now on, into the host's network: its guests can be reached from there.
    ///
    /// # Panics
    /// When that is not allowed.
    pub fn enter(&self) {
        use std::os::fd::AsFd;
        let place = format!("/proc/{}/ns/net", self.all.id());
        let network = std::fs::File::open(place).expect("the process runs");
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind)).expect("root may");
    }

    /// Runs a `virsh` command; its output, or what it complains of.
    pub fn virsh(&self, words: &[&str]) -> Result<String, String> {
        let done = Command::new("virsh")
            .args(["--quiet", "--connect", &self.uri()])
            .args(words)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match done.status.success() {
            true => Ok(text(&done.stdout)),
            false => Err(text(&done.stderr)),
        }
    }

    /// The same, of a command that has to work.
    ///
    /// # Panics
    /// When it doesn't.
    #[track_caller]
    pub fn does(&self, words: &[&str]) -> String {
        self.virsh(words)
            .unwrap_or_else(|error| panic!("virsh {}: {error}", words.join(" ")))
    }

    /// The process of the daemon.
    pub fn daemon(&self) -> Option<i32> {
        let config = format!("{}/libvirtd.conf", self.folder.path().display());
        procfs::process::all_processes().ok()?.flatten().find_map(|process| {
            let words = process.cmdline().ok()?;
            let is_it = words.first()?.ends_with("libvirtd") && words.contains(&config);
            is_it.then_some(process.pid)
        })
    }

    /// Puts the images of a guest with Linux in it below the folder `images`, and gives the SHA-256 of its kernel and its first file
    /// system; none, and one line, where `tests/run` hasn't built them.
    ///
    /// # Panics
    /// When they can't be copied.
    pub fn linux(&self) -> Option<[String; 2]> {
        let Some(built) = std::env::var_os("LIBVIRT_GUEST").map(PathBuf::from) else {
            eprintln!("missing: LIBVIRT_GUEST, which tests/run libvirt sets; nothing was tried on a guest with Linux");
            return None;
        };
        let folder = self.folder.path().join("images");
        std::fs::create_dir_all(&folder).expect("the folder is this test's");
        Some(["kernel", "initrd"].map(|name| {
            let bytes = std::fs::read(built.join(name)).expect("it was built");
            std::fs::write(folder.join(name), &bytes).expect("the folder is this test's");
            state::canonical::Digest::of(&bytes).hex()
        }))
    }

    /// Writes an image whose boot sector says [`SAYS`] on the first serial port and halts; its SHA-256.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn image(&self, name: &str) -> String {
        // mov dx, 0x3f8; for each byte: mov al, byte; out dx, al; then hlt for ever.
        let mut bytes = vec![0xba, 0xf8, 0x03];
        for byte in SAYS.bytes() {
            bytes.extend([0xb0, byte, 0xee]);
        }
        bytes.extend([0xf4, 0xeb, 0xfd]);
        bytes.resize(510, 0);
        bytes.extend([0x55, 0xaa]);
        // Firmware overlooks a disk of one sector.
        bytes.resize(1024 * 1024, 0);
        let folder = self.folder.path().join("images");
        std::fs::create_dir_all(&folder).expect("the folder is this test's");
        std::fs::write(folder.join(name), &bytes).expect("the folder is this test's");
        state::canonical::Digest::of(&bytes).hex()
    }
}

/// Whether QEMU can make a processor like this machine's with KVM, which is what a domain has by default. That the device is there
/// doesn't tell: where virtual machines are nested, registers may be refused.
fn accelerates() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        if !Path::new(KVM).exists() {
            return false;
        }
        let started = Command::new("timeout")
            .args(["30", "qemu-system-x86_64", "-nodefaults", "-display", "none"])
            .args(["-accel", "kvm", "-cpu", "host", "-S", "-monitor", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let works = started.is_ok_and(|mut qemu| {
            // One that has ended already takes nothing, and has said so by how it ended.
            let _ = qemu.stdin.take().map(|mut monitor| monitor.write_all(b"quit\n"));
            qemu.wait().is_ok_and(|status| status.success())
        });
        if !works {
            eprintln!("{KVM} is there and QEMU can't run a processor like this machine's with it: guests are emulated");
        }
        works
    })
}

/// The SHA-256 of a file.
///
/// # Panics
/// When it can't be read.
pub fn sha256(path: &str) -> String {
    let bytes = std::fs::read(path).expect("the file is there");
    state::canonical::Digest::of(&bytes).hex()
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["run.log", "libvirtd.log"] {
                let log = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(8).collect();
                eprintln!("-- the last words of {name}: {}", last.join("\n   "));
            }
        }
        // The namespace's first process goes with it, and with that one everything in it.
        let _ = self.all.kill();
        let _ = self.all.wait();
    }
}
