//! Roles and collections in their exact versions, from packages in a folder; and playbooks in files.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use tests::passes::Acting;

use crate::stage::{Stage, program};

#[track_caller]
fn ran(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Packs a collection `charter.test` with a role `page`, and a role `charter.site` that does what these tasks say.
fn pack(folder: &Path, tasks: &str) {
    let packages = folder.join("packages");
    let source = folder.join("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir_all(&packages).unwrap();
    write(
        &source.join("collection/galaxy.yml"),
        "namespace: charter\nname: test\nversion: 1.0.0\nreadme: README.md\nauthors: [nobody]\n",
    );
    write(&source.join("collection/README.md"), "A collection.\n");
    write(
        &source.join("collection/roles/page/tasks/main.yml"),
        "- copy: { dest: /srv/of-collection, content: \"{{ text }}\" }\n",
    );
    let galaxy = program().unwrap().with_file_name("ansible-galaxy");
    ran(Command::new(galaxy)
        .args(["collection", "build", "--force", "--output-path"])
        .arg(&packages)
        .arg(source.join("collection"))
        .env("HOME", folder));
    write(
        &source.join("role/meta/main.yml"),
        "galaxy_info: { author: nobody, description: x, license: x, min_ansible_version: '2.14' }\n",
    );
    write(&source.join("role/tasks/main.yml"), tasks);
    ran(Command::new("tar")
        .arg("czf")
        .arg(packages.join("charter.site-1.0.0.tar.gz"))
        .arg("-C")
        .arg(&source)
        .arg("role"));
}

#[test]
fn roles_and_collections_come_in_their_exact_versions() {
    let Some(mut stage) = Stage::new(&["web1"], &json!({})) else {
        return;
    };
    let more = json!({ "packages": stage.path("packages"), "roles": ["charter.site"], "collections": ["charter.test"] });
    stage.set(&more);
    pack(&stage.path(""), "- copy: { dest: /srv/of-role, content: '{{ text }}' }\n");
    let with = |stage: &Stage, version: &str| {
        let plays = json!([{ "hosts": "all", "gather_facts": false, "roles": ["charter.site", "charter.test.page"] }]);
        let more = json!({
            "plays": plays, "variables": { "text": "x" }, "roles": { "charter.site": "1.0.0" }, "collections": { "charter.test": version },
        });
        stage.playbook("site", &json!([]), &more)
    };
    let site = with(&stage, "1.0.0");
    stage.make(&site);
    assert_eq!(stage.hosts[0].text("of-role").as_deref(), Some("x"));
    assert_eq!(stage.hosts[0].text("of-collection").as_deref(), Some("x"));
    // They are installed once.
    assert_eq!(stage.runs(), ["galaxy", "galaxy", "check", "run"]);
    let other = with(&stage, "2.0.0");
    let why = stage.apply(&other).unwrap_err();
    assert!(
        why.contains("roles and collections can't be installed") && why.contains("charter-test-2.0.0.tar.gz"),
        "{why}"
    );

    // What a role does is held to what the member allows, too.
    let mut evil = Stage::new(&["web1"], &json!({})).unwrap();
    evil.set(&json!({ "packages": evil.path("packages"), "roles": ["charter.site"], "collections": ["charter.test"] }));
    pack(&evil.path(""), "- user: { name: evil }\n  ignore_errors: true\n");
    let why = evil.apply(&with(&evil, "1.0.0")).unwrap_err();
    assert!(
        why.contains("charter.site : user") && why.contains("user is none of ansible.modules in charter.toml"),
        "{why}"
    );
}

#[test]
fn playbooks_in_files_are_held_to_their_digests() {
    let Some(stage) = Stage::new(&["web1"], &json!({ "modules": ["template", "copy"] })) else {
        return;
    };
    let site = "- hosts: web\n  gather_facts: false\n  roles: [page]\n  tasks:\n    - include_tasks: more.yml\n";
    let files = json!({
        "site.yml": stage.file("site.yml", site),
        "more.yml": stage.file("more.yml", "- copy: { src: raw.txt, dest: /srv/raw }\n"),
        "files/raw.txt": stage.file("files/raw.txt", "raw {{ page }}"),
        "roles/page/tasks/main.yml": stage.file("roles/page/tasks/main.yml", "- template: { src: page.j2, dest: /srv/page }\n"),
        "roles/page/templates/page.j2": stage.file("roles/page/templates/page.j2", "of {{ inventory_hostname }}: {{ page }}"),
    });
    let of = |files: &serde_json::Value| {
        let mut spec = stage
            .playbook(
                "site",
                &json!([]),
                &json!({ "files": files, "playbook": "site.yml", "variables": { "page": "{{ x }}" } }),
            )
            .spec
            .to_value();
        spec.as_object_mut().unwrap().remove("plays");
        crate::stage::resource("site", &spec)
    };
    stage.make(&of(&files));
    assert_eq!(stage.hosts[0].text("page").as_deref(), Some("of web1: {{ x }}"));
    assert_eq!(stage.hosts[0].text("raw").as_deref(), Some("raw {{ page }}"));
    stage.file("more.yml", "- copy: { src: /etc/shadow, dest: /srv/raw }\n");
    match stage.see(&of(&files)) {
        state::observation::Observation::Present { blocked: Some(why), .. } => {
            assert!(why.contains("files/more.yml: its SHA-256"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}
