//! The example with one member's part on a virtual machine: one line of its network.yaml is another one, and the machine serves a page.

use std::process::Command;
use std::time::Duration;

use tests::World;
use tests::hypervisor::Hypervisor;
use tests::wait::until_within;
use tests::world::smart_city;

const BY: [&str; 4] = ["--member", "breeze", "--channel", "smart-city-1"];

#[test]
fn one_line_of_the_example_takes_a_member_to_a_virtual_machine() {
    let Some(host) = Hypervisor::start() else { return };
    let Some(images) = host.linux() else { return };
    // Where the guests are reached from.
    host.enter();
    let world = World::new();
    let example = world.root().join("example");
    tests::tree::copy(&smart_city(), &example);
    let built = host.folder().join("images");
    tests::tree::copy(&built, &example.join("images"));
    // What build-guest does: the order names the images that were built.
    let order = example.join("v1/breeze-libvirt.yaml");
    let mut text = std::fs::read_to_string(&order).unwrap();
    for (name, digest) in ["kernel", "initrd"].iter().zip(&images) {
        let from = format!("file: {name}, sha256: ");
        let at = text.find(&from).unwrap() + from.len();
        text.replace_range(at..at + 64, digest);
    }
    std::fs::write(&order, text).unwrap();
    let network = std::fs::read_to_string(example.join("network.yaml")).unwrap();
    let changed = network.replace("submit: v1/breeze.yaml", "submit: v1/breeze-libvirt.yaml");
    let lines = network.lines().zip(changed.lines());
    assert_eq!(lines.filter(|(before, after)| before != after).count(), 1);
    std::fs::write(example.join("network.yaml"), changed).unwrap();

    world.give("LIBVIRT_DEFAULT_URI", host.uri());
    let folder = example.display().to_string();
    let mut up = world.start(&["up", &folder]);
    until_within(Duration::from_secs(180), "everything has converged", || match up.runs() {
        true if up.stderr().contains("watching; drift is healed") => Ok(()),
        true => Err(up.stderr()),
        false => panic!("{}", up.stderr()),
    });
    let address = world.converged().address("breeze", "smart-city-1", "forecast");
    let page = || tests::http::get(&format!("{address}:80"), "/");
    let first = page().unwrap();
    assert!(
        first.body.contains("<title>forecast</title>") && first.body.contains("readings at 127.0.0.1:"),
        "{first:?}"
    );

    // It is stopped by hand, and comes back by itself.
    let domain = "smart-city-1.forecast";
    host.does(&["destroy", domain]);
    until_within(Duration::from_secs(60), "the page is back", || page().map(drop));

    // What is rendered is what is defined, and virsh takes it.
    let out = world.root().join("rendered");
    let shown = out.display().to_string();
    world.charter(&[&["render", "--out", &shown], &BY[..]].concat()).exits(0);
    let xml = out.join("forecast.xml").display().to_string();
    let uuid = |text: &str| text.split("<uuid>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let before = host.does(&["dumpxml", "--inactive", domain]);
    host.does(&["define", "--validate", &xml]);
    assert_eq!(uuid(&host.does(&["dumpxml", "--inactive", domain])), uuid(&before));

    // The same machine in Vagrant's words.
    world
        .charter(&[&["render", "--for", "vagrant", "--out", &shown], &BY[..]].concat())
        .exits(0);
    let vagrantfile = std::fs::read_to_string(out.join("Vagrantfile")).unwrap();
    assert!(
        vagrantfile.contains("config.vm.define 'forecast'") && vagrantfile.contains("title=forecast -- readings at 127.0.0.1:"),
        "{vagrantfile}"
    );
    world
        .charter(&[&["render", "disks", "--for", "vagrant"], &BY[..]].concat())
        .exits(1)
        .says(&["none of these resources is one that this tool makes"]);
    let vagrant = |words: &[&str]| {
        let mut command = Command::new("vagrant");
        command.args(words).current_dir(&out);
        command
            .env("VAGRANT_HOME", world.root().join("vagrant"))
            .env("VAGRANT_CHECKPOINT_DISABLE", "1");
        command.output()
    };
    match vagrant(&["validate"]) {
        Ok(done) => assert!(done.status.success(), "{done:?}"),
        Err(error) => eprintln!("missing: vagrant ({error}); the Vagrantfile was not tried"),
    }

    // Charter's machine makes room for Vagrant's, which is the same one: its page is served, too.
    up.stop();
    if vagrant(&["--version"]).is_ok() {
        host.does(&["destroy", domain]);
        let done = vagrant(&["up", "--provider", "libvirt"]).unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(host.does(&["list", "--name"]).contains("rendered_forecast"));
        until_within(Duration::from_secs(180), "Vagrant's machine serves the page", || {
            page().map(|page| assert_eq!(page.body, first.body))
        });
        let done = vagrant(&["destroy", "--force"]).unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    world.charter(&["down", "--yes"]).exits(0);
    assert_eq!(host.does(&["list", "--all", "--name"]).trim(), "");
    assert!(!host.does(&["pool-list", "--all", "--name"]).contains("smart-city-1"));
}
