//! A daemon on another machine, by ssh: what the library's own URIs give.

use std::process::{Child, Command, Stdio};

use serde_json::json;
use tests::hypervisor::Hypervisor;

use crate::stage::{Stage, provider_at, resource};

/// An sshd on loopback, with keys of its own.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_daemon_is_reached_by_ssh() {
    let programs = ["/usr/sbin/sshd", "/usr/bin/virt-ssh-helper", "/usr/bin/ssh-keygen"];
    if let Some(missing) = programs.iter().find(|path| !std::path::Path::new(path).exists()) {
        eprintln!("missing: {missing}; no daemon was reached by ssh");
        return;
    }
    let Some(stage) = Stage::new("remote") else { return };
    let folder = stage.host.folder().join("ssh");
    std::fs::create_dir(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    for name in ["host", "key"] {
        let done = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)])
            .status()
            .unwrap();
        assert!(done.success());
    }
    std::fs::copy(path("key.pub"), path("authorized")).unwrap();
    // The host's network is the test's own: any port is free there.
    let port = 2222;
    let public = std::fs::read_to_string(path("host.pub")).unwrap();
    std::fs::write(path("known"), format!("[127.0.0.1]:{port} {public}")).unwrap();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n",
        path("host"),
        path("authorized")
    );
    std::fs::write(path("config"), config).unwrap();
    std::fs::create_dir_all("/run/sshd").unwrap();
    let log = std::fs::File::create(path("log")).unwrap();
    // It sees the files that the daemon sees, which is at its usual place there.
    let socket = stage.host.folder().join("run/libvirt-sock");
    std::os::unix::fs::symlink(socket, stage.host.folder().join("own/run/libvirt/libvirt-sock")).unwrap();
    let daemon = stage.host.daemon().unwrap().to_string();
    let sshd = Command::new("nsenter")
        .args(["--mount", "--target", &daemon, "/usr/sbin/sshd", "-D", "-e", "-f", &path("config")])
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _sshd = Sshd(sshd);
    tests::until("sshd listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port))
            .map(drop)
            .map_err(|error| error.to_string())
    });
    // Which hosts are known is a matter of ssh's: here each has a file of its own.
    let uri = |host: &Hypervisor, known: &str| {
        let folder = host.folder();
        let ssh = folder.join(format!("ssh/ssh-{}", known.len()));
        tests::command::script(&ssh, &format!("exec ssh -o UserKnownHostsFile={known} \"$@\"\n"));
        let (key, ssh) = (folder.join("ssh/key"), ssh.display());
        format!(
            "qemu+ssh://root@127.0.0.1:{port}/system?keyfile={}&command={ssh}&no_tty=1",
            key.display()
        )
    };
    let records = stage.host.folder().join("records");
    // A machine whose key nobody knows is not spoken to.
    let mut other = Stage {
        provider: provider_at(&stage.host, &uri(&stage.host, "/dev/null"), &records),
        ..stage
    };
    let guest = resource(
        "domain",
        "guest",
        &json!({ "cpus": 1, "memory_mib": 64, "virtualization": "any", "stop_seconds": 0 }),
    );
    let refused = other.apply(&guest).unwrap_err();
    assert!(refused.contains("Host key verification failed"), "{refused}");
    let known = other.host.folder().join("ssh/known").display().to_string();
    other.provider = provider_at(&other.host, &uri(&other.host, &known), &records);
    other.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", other.pools()) })));
    let digest = other.host.image("boot.img");
    let image = json!({ "file": "boot.img", "sha256": digest });
    other.make(&resource(
        "volume",
        "root",
        &json!({ "pool": other.external("disks"), "format": "raw", "image": image }),
    ));
    assert_eq!(
        tests::hypervisor::sha256(&format!("{}/disks/remote.root.raw", other.pools())),
        digest
    );
    other.make(&guest);
    assert!(other.host.does(&["list", "--name"]).contains("remote.guest"));
    let serial = json!({ "cpus": 1, "memory_mib": 64, "ready": { "serial": "ready" } });
    let refused = other.apply(&resource("domain", "serial", &serial)).unwrap_err();
    assert!(refused.contains("libvirt.uri names another one"), "{refused}");
}
