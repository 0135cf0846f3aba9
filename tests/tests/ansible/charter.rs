//! A member whose own machine is configured by Ansible over SSH: where it is reached is another resource's output, what would change is
//! planned, what somebody has changed is healed, and what is retired without a retiring play is let go of.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tests::wait::{until, until_within};
use tests::{World, documents};

use crate::hosts::{Host, PORT, pair};
use crate::stage::{CANARY, can_make_hosts, program};

const CHANNEL: &str = "smart-city-1";
/// Each look is a run of Ansible, and each change is two.
const LONG: Duration = Duration::from_secs(240);

/// The SSH server, which writes over its environment, by which worlds find what they have started.
struct Server(PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            tests::processes::kill(pid);
        }
    }
}

/// An agent with a key. It ends with this.
struct Agent {
    socket: PathBuf,
    process: Child,
}

impl Agent {
    fn with(folder: &Path, key: &Path) -> Self {
        let socket = folder.join("agent");
        let process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn();
        let process = process.unwrap();
        until("the agent has the key", || {
            let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
            if added.status.success() {
                Ok(())
            } else {
                Err(format!("{added:?}"))
            }
        });
        Self { socket, process }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_address_flows_into_an_inventory_and_a_playbook_runs_there() {
    let Some(program) = program() else { return };
    if !can_make_hosts() {
        return;
    }
    let world = World::smart_city();
    let by = ["--member", "city", "--channel", CHANNEL];
    // Gone after whoever would start it anew.
    let _server = Server(world.root().join("sshd.pid"));
    let (private, public) = pair(world.root());
    let root = world.root().display().to_string();
    std::fs::create_dir_all("/run/sshd").unwrap();
    let keyed = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", &format!("{root}/host")])
        .status();
    assert!(keyed.unwrap().success());
    std::fs::write(world.root().join("authorized"), public).unwrap();
    // The member's machine is a service of its own: an SSH server, on whichever port is free.
    let server = world.root().join("server");
    tests::command::script(
        &server,
        &format!(
            "/usr/sbin/sshd -D -e -f /dev/null -p \"$PORT\" -o ListenAddress=127.0.0.1 -h {root}/host -o PidFile={root}/sshd.pid -o UsePAM=no \
             -o StrictModes=no -o AuthorizedKeysFile={root}/authorized -o PasswordAuthentication=no -o PermitRootLogin=yes &\n\
             trap \"kill $!\" TERM INT\n\
             # sshd writes over its environment, by which Charter knows its services.\n\
             wait\n"
        ),
    );
    let path = world.config("city");
    let secrets = world.member("city").join("ansible-secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    for (name, text) in [("login", private.as_str()), ("canary", CANARY)] {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(secrets.join(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let more = format!(
        "\n[machine.commands.ssh-server]\nprogram = {:?}\n\n[ansible]\nplaybook = {:?}\nhosts = [\"127.0.0.1\"]\nmodules = [\"copy\"]\n\
         secrets = \"ansible-secrets\"\nrecheck_seconds = 0\n",
        server.display().to_string(),
        program.display().to_string()
    );
    std::fs::write(&path, format!("{text}{more}")).unwrap();

    let folder = world.root().join("srv");
    std::fs::create_dir(&folder).unwrap();
    let playbook = |text: &str| {
        json!({
            "name": "site", "kind": "ansible/playbook", "owner": "city", "exports": ["host_keys"], "spec": {
                "hosts": { "station": {
                    "address": documents::reference("station.outputs.address"), "user": "root", "key": { "$secret": "login" },
                    "python": "/usr/bin/python3",
                } },
                "variables": { "text": text, "token": { "$secret": "canary" } },
                "plays": [{ "hosts": "all", "gather_facts": false, "tasks": [
                    { "name": "motd", "copy": { "dest": format!("{}/motd", folder.display()), "content": "{{ text }}" } },
                    { "name": "token", "copy": { "dest": format!("{}/token", folder.display()), "content": "{{ token }}", "mode": "0600" } },
                ] }],
            },
        })
    };
    let station = json!({
        "name": "station", "kind": "machine/service", "owner": "city",
        "spec": { "command": ["ssh-server"], "port": "auto", "ready": { "port": true } },
    });
    let wrong = json!({
        "name": "wrong", "kind": "ansible/playbook", "owner": "city", "spec": {
            "hosts": { "other": { "address": "192.0.2.1", "key": { "$secret": "login" } } },
            "plays": [{ "hosts": "all", "tasks": [{ "shell": "id" }] }],
        },
    });
    let file = world.file("wrong.yaml", &documents::order(vec![wrong]).to_string());
    world
        .charter(&[&["plan", "-f", &file], &by[..]].concat())
        .exits(3)
        .says(&["hosts/other/address: 192.0.2.1 is none of this member's ansible.hosts in charter.toml: add it to allow it"]);

    let _ledger = world.ledger();
    let _services: Vec<_> = ["city", "breeze"].map(|member| world.serve(member)).into();
    world
        .submit("city", CHANNEL, &documents::order(vec![station, playbook("welcome")]))
        .exits(0);
    let motd = || std::fs::read_to_string(folder.join("motd")).unwrap_or_default();
    let is = |wanted: &'static str| {
        move |text: String| match text == wanted {
            true => Ok(()),
            false => Err(format!("{text:?}")),
        }
    };
    until_within(LONG, "the station is configured", || {
        is("welcome")(motd()).map_err(|_| world.charter(&[&["plan"], &by[..]].concat()).to_string())
    });
    until_within(LONG, "the secret is there", || {
        is(CANARY)(std::fs::read_to_string(folder.join("token")).unwrap_or_default())
    });
    // The host's key, which was seen for the first time, stands in a report.
    let key = std::fs::read_to_string(world.root().join("host.pub")).unwrap();
    let key = key.split_whitespace().nth(1).unwrap().to_owned();
    until_within(LONG, "its key is reported", || {
        let said = world
            .store("city")
            .git(&["log", "-p", &format!("reported/{CHANNEL}")])
            .exits(0)
            .stdout;
        if said.contains(&key) { Ok(()) } else { Err("not yet") }
    });
    // Somebody changes it by hand, and it is healed.
    std::fs::write(folder.join("motd"), "meddled").unwrap();
    until_within(LONG, "it is healed", || is("welcome")(motd()));
    // What an amendment would change is shown before anybody submits it.
    let amended = documents::amendment(vec![playbook("goodbye")]);
    let file = world.file("amended.yaml", &amended.to_string());
    until_within(LONG, "the plan shows it", || {
        let said = world.charter(&[&["plan", "-f", &file], &by[..]].concat());
        match said.stdout.contains("/station/motd") && said.stdout.contains("goodbye") && said.stdout.contains("welcome") {
            true => Ok(()),
            false => Err(said.to_string()),
        }
    });
    world.submit("city", CHANNEL, &amended).exits(0);
    until_within(LONG, "it is amended", || is("goodbye")(motd()));
    // Without a retiring play it is let go of, and the report says so.
    world
        .submit(
            "city",
            CHANNEL,
            &json!({ "apiVersion": "charter/v1", "kind": "Retirement", "resources": ["site"] }),
        )
        .exits(0);
    until_within(LONG, "it is let go of", || {
        let said = world.charter(&[&["status", "-o", "json"], &by[..]].concat());
        let log = world
            .store("city")
            .git(&["log", "-p", &format!("reported/{CHANNEL}")])
            .exits(0)
            .stdout;
        match log.contains("nothing on its hosts is undone") && log.contains("retained") {
            true => Ok(()),
            false => Err(said.stdout),
        }
    });
    assert_eq!(motd(), "goodbye");
    // No secret is in any history, nor in what is remembered.
    for reference in ["desired", "reported", "actual"] {
        let all = world
            .store("city")
            .git(&["log", "-p", &format!("{reference}/{CHANNEL}")])
            .exits(0)
            .stdout;
        assert!(!all.contains(CANARY) && !all.contains("PRIVATE KEY"), "{reference}");
    }
    let grep = Command::new("grep")
        .args(["-rl", CANARY])
        .arg(world.member("city"))
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&grep.stdout);
    assert_eq!(found.trim(), secrets.join("canary").display().to_string());
}

#[test]
fn a_key_in_an_agent_logs_in_where_the_member_allows_it() {
    let Some(program) = program() else { return };
    if !can_make_hosts() {
        return;
    }
    let world = World::smart_city();
    let by = ["--member", "city", "--channel", CHANNEL];
    // The host's user goes through it.
    std::fs::set_permissions(world.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_, public) = pair(world.root());
    let host = Host::start(&world.root().join("hosts"), "web1", &public);
    let agent = Agent::with(world.root(), &world.root().join("login"));
    world.give("SSH_AUTH_SOCK", &agent.socket);
    let path = world.config("city");
    let text = std::fs::read_to_string(&path).unwrap();
    let allow = |agent: bool| {
        let more = format!(
            "\n[ansible]\nplaybook = {:?}\nhosts = [\"127.0.0.0/8\"]\nmodules = [\"copy\"]\nrecheck_seconds = 0\nagent = {agent}\n",
            program.display().to_string()
        );
        std::fs::write(&path, format!("{text}{more}")).unwrap();
    };
    let site = json!({
        "name": "site", "kind": "ansible/playbook", "owner": "city", "spec": {
            "hosts": { "web1": {
                "address": host.address.to_string(), "port": PORT, "user": "web1", "host_key": host.key(), "python": "/usr/bin/python3",
            } },
            "plays": [{ "hosts": "all", "gather_facts": false, "tasks": [
                { "name": "page", "copy": { "dest": "/srv/page", "content": "one" } },
            ] }],
        },
    });
    let order = documents::order(vec![site]);
    let file = world.file("order.yaml", &order.to_string());
    allow(false);
    world.charter(&[&["plan", "-f", &file], &by[..]].concat()).exits(3).says(&[
        "hosts/web1/key is missing",
        "ansible.agent in charter.toml doesn't allow the SSH agent",
    ]);
    allow(true);
    let _ledger = world.ledger();
    let _service = world.serve("city");
    world.submit("city", CHANNEL, &order).exits(0);
    let page = || host.text("page").unwrap_or_default();
    until_within(LONG, "the agent's key has logged in", || match page() {
        text if text == "one" => Ok(()),
        text => Err(format!("{text:?}")),
    });
    drop(agent);
    until_within(LONG, "without the agent nobody knows", || {
        let said = world.charter(&[&["plan"], &by[..]].concat());
        match said.stdout.contains("web1 can't be reached") {
            true => Ok(()),
            false => Err(said.to_string()),
        }
    });
}
