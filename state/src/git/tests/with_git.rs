//! What the `git` program says about the same content and the same repository.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Runs git without any configuration of the machine's; `None` if there is no git here.
pub(in super::super) fn git(at: &Path, args: &[&str], input: &[u8]) -> Option<String> {
    let child = Command::new("git")
        .args(args)
        .current_dir(at)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "acme")
        .env("GIT_AUTHOR_EMAIL", "acme@members")
        .env("GIT_COMMITTER_NAME", "Charter")
        .env("GIT_COMMITTER_EMAIL", "charter@localhost")
        .env("GIT_AUTHOR_DATE", "1700000007 +0000")
        .env("GIT_COMMITTER_DATE", "1700000007 +0000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("there is no `git` program here: not compared with it");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {errors}");
    // What git warns about, an operator would ask about.
    assert!(!errors.contains("warning") && !errors.contains("error"), "git {args:?}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Checks a store with everything that git has for it.
pub(in super::super) fn check(store: &Store) {
    git(store.path(), &["fsck", "--strict", "--full", "--no-dangling"], b"");
    for index in pack_files(store, ".idx") {
        let index = store.path().join("objects/pack").join(index);
        git(store.path(), &["verify-pack", index.to_str().unwrap()], b"");
    }
}

/// A store with some dozens of commits in several packs.
fn lived_in() -> (TempDir, Store) {
    let (directory, store) = new_store();
    for round in 0..5 {
        let mut batches = Vec::new();
        for reference in [DESIRED, REPORTED] {
            let mut batch = store.batch(reference).unwrap();
            for n in 0..40 {
                commit(&mut batch, &format!("r/{}/x-{}.json", n % 4, n % 11), round * 40 + n);
            }
            batches.push(batch);
        }
        finish(batches).unwrap();
    }
    (directory, store)
}

#[test]
fn ids_are_those_of_git() {
    let (directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    for (path, bytes) in [("a/b.json", "{}"), ("a.b", ""), ("a-b/c", "x\n")] {
        batch.put(path, bytes.as_bytes()).unwrap();
    }
    let (by, at) = (author(1_700_000_007), committer(1_700_000_007));
    let first = batch.commit(&by, &at, "first", None).unwrap();
    batch.put("a/b.json", b"{\"x\":1}").unwrap();
    let second = batch.commit(&by, &at, "second\n\nKey: value\n", None).unwrap();
    finish(vec![batch]).unwrap();

    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    if git(&other, &["init", "-q"], b"").is_none() {
        return;
    }
    let run = |args: &[&str], input: &str| git(&other, args, input.as_bytes()).unwrap();
    for (path, bytes) in [("a/b.json", "{}"), ("a.b", ""), ("a-b/c", "x\n")] {
        let id = run(&["hash-object", "-w", "--stdin"], bytes);
        run(&["update-index", "--add", "--cacheinfo", &format!("100644,{id},{path}")], "");
    }
    let tree = run(&["write-tree"], "");
    assert_eq!(run(&["commit-tree", &tree], "first\n"), first.to_string());
    let id = run(&["hash-object", "-w", "--stdin"], "{\"x\":1}");
    run(&["update-index", "--cacheinfo", &format!("100644,{id},a/b.json")], "");
    let tree = run(&["write-tree"], "");
    let parent = first.to_string();
    let made = run(&["commit-tree", &tree, "-p", &parent], "second\n\nKey: value\n");
    assert_eq!(made, second.to_string());
}

#[test]
fn the_repository_is_clean_for_git() {
    let (_directory, store) = lived_in();
    check(&store);
    let head = store.head(DESIRED).unwrap().unwrap();
    let Some(log) = git(store.path(), &["log", "--format=%H", "desired/smart-city-1"], b"") else {
        return;
    };
    let ours = store.log(head, None, 1000).unwrap();
    let ours: Vec<String> = ours.iter().map(|info| info.id.to_string()).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), ours);
    let args = ["log", "--format=%H", "desired/smart-city-1", "--", "r/2/x-6.json"];
    let log = git(store.path(), &args, b"").unwrap();
    let ours = store.log(head, Some("r/2/x-6.json"), 1000).unwrap();
    let ours: Vec<String> = ours.iter().map(|info| info.id.to_string()).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), ours);
    let config = git(store.path(), &["config", "--get", "gc.auto"], b"").unwrap();
    assert_eq!(config, "0");
}

#[test]
fn our_index_is_the_one_that_git_would_make() {
    let (directory, store) = lived_in();
    for name in pack_files(&store, ".pack") {
        let pack = store.path().join("objects/pack").join(name);
        let copy = directory.path().join("copy.pack");
        fs::copy(&pack, &copy).unwrap();
        if git(directory.path(), &["index-pack", "copy.pack"], b"").is_none() {
            return;
        }
        let made = fs::read(copy.with_extension("idx")).unwrap();
        assert_eq!(fs::read(pack.with_extension("idx")).unwrap(), made);
        for ending in ["idx", "rev"] {
            let _ = fs::remove_file(copy.with_extension(ending));
        }
    }
}

#[test]
fn a_clone_checks_out_and_is_a_store_too() {
    let (directory, store) = lived_in();
    let (from, to) = (store.path().to_str().unwrap(), directory.path().join("clone"));
    let args = ["-c", "protocol.file.allow=always", "clone", "-q", "--no-local", from, "clone"];
    if git(directory.path(), &args, b"").is_none() {
        return;
    }
    assert!(to.join("r/2/x-6.json").exists());
    let args = ["clone", "-q", "--mirror", "--no-local", from, "mirror.git"];
    git(directory.path(), &args, b"");
    let mirror = Store::open(&directory.path().join("mirror.git")).unwrap();
    assert_eq!(mirror.references("").unwrap(), store.references("").unwrap());
    let head = mirror.head(DESIRED).unwrap().unwrap();
    assert_eq!(files(&mirror, head, ""), files(&store, head, ""));
}

#[test]
fn an_operator_may_pack_and_collect() {
    let (_directory, store) = lived_in();
    let before = store.references("").unwrap();
    if git(store.path(), &["pack-refs", "--all"], b"").is_none() {
        return;
    }
    assert!(!store.path().join(DESIRED).exists());
    assert_eq!(store.references("").unwrap(), before);
    git(store.path(), &["gc", "-q", "--prune=now"], b"");
    let head = store.head(DESIRED).unwrap().unwrap();
    assert_eq!(files(&store, head, "").len(), 40);
    for n in 300..340 {
        let mut batch = store.batch(DESIRED).unwrap();
        commit(&mut batch, "r/2/x-6.json", n);
        finish(vec![batch]).unwrap();
    }
    git(store.path(), &["repack", "-q", "-a", "-d"], b"");
    let head = store.head(DESIRED).unwrap().unwrap();
    assert_eq!(store.log(head, None, 1000).unwrap().len(), 240);
    check(&store);
}

#[test]
fn merged_packs_hold_each_object_once() {
    let (_directory, store) = new_store();
    let reader = Store::open(store.path()).unwrap();
    for n in 0..120 {
        let mut batch = store.batch(DESIRED).unwrap();
        // The same contents come again and again, in different packs.
        commit(&mut batch, &format!("r/{}.json", n % 5), n % 10);
        commit(&mut batch, &format!("r/{}.json", n % 3), n);
        let head = commit(&mut batch, "cursor", n);
        finish(vec![batch]).unwrap();
        assert_eq!(reader.head(DESIRED).unwrap(), Some(head));
        assert!(reader.read(head, "cursor").unwrap().is_some());
    }
    assert!(pack_files(&store, ".pack").len() <= 17);
    let head = store.head(DESIRED).unwrap().unwrap();
    assert_eq!(reader.log(head, None, 1000).unwrap().len(), 360);
    check(&store);
    let args = ["show-index"];
    for index in pack_files(&store, ".idx") {
        let bytes = fs::read(store.path().join("objects/pack").join(index)).unwrap();
        if let Some(text) = git(store.path(), &args, &bytes) {
            let ids: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        }
    }
}

#[test]
fn git_verifies_a_signature_we_stored_and_we_read_one_of_gits() {
    let (directory, store) = new_store();
    let at = directory.path();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f", "key"])
        .current_dir(at)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("there is no `ssh-keygen` program here: no signature was tried");
        return;
    }
    let public = fs::read_to_string(at.join("key.pub")).unwrap();
    fs::write(at.join("allowed"), format!("acme@members {public}")).unwrap();
    let sign = |bytes: &[u8]| {
        fs::write(at.join("bytes"), bytes)?;
        let status = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", "git", "-f", "key", "bytes"])
            .current_dir(at)
            .status()?;
        assert!(status.success());
        let signature = fs::read_to_string(at.join("bytes.sig"))?;
        fs::remove_file(at.join("bytes.sig"))?;
        Ok(signature)
    };
    let mut batch = store.batch(DESIRED).unwrap();
    batch.put("a", b"1").unwrap();
    let id = batch.commit(&author(1), &committer(1), "signed", Some(&sign)).unwrap();
    finish(vec![batch]).unwrap();
    let info = store.commit(id).unwrap();
    assert_eq!(store.signed_bytes(id).unwrap(), fs::read(at.join("bytes")).unwrap());
    assert!(info.signature.unwrap().starts_with("-----BEGIN SSH SIGNATURE-----\n"));

    let allowed = at.join("allowed");
    let key = at.join("key");
    let run = |args: &[&str]| {
        let allowed = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
        let key = format!("user.signingKey={}", key.display());
        let first = ["-c", &allowed, "-c", &key, "-c", "gpg.format=ssh"];
        git(store.path(), &[&first, args].concat(), b"")
    };
    if run(&["verify-commit", &id.to_string()]).is_none() {
        return;
    }
    let tree = run(&["rev-parse", &format!("{id}^{{tree}}")]).unwrap();
    let theirs = run(&["commit-tree", "-S", &tree, "-m", "by git"]).unwrap();
    let theirs: CommitId = theirs.parse().unwrap();
    let signature = store.commit(theirs).unwrap().signature.unwrap();
    fs::write(at.join("theirs.sig"), signature).unwrap();
    let bytes = store.signed_bytes(theirs).unwrap();
    let args = [
        "-Y",
        "verify",
        "-n",
        "git",
        "-f",
        "allowed",
        "-I",
        "acme@members",
        "-s",
        "theirs.sig",
    ];
    let mut child = Command::new("ssh-keygen")
        .args(args)
        .current_dir(at)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn ten_thousand_files_stay_quick_and_in_order() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    for n in 0..10_000 {
        let path = format!("r/{:02x}/{:02x}/web-{n}.json", n % 16, n / 16 % 16);
        batch.put(&path, format!("{{\"n\":{n}}}").as_bytes()).unwrap();
    }
    let head = batch.commit(&author(1), &committer(1), "all", None).unwrap();
    finish(vec![batch]).unwrap();
    let mut paths = Vec::new();
    store
        .list(head, "", |path, _| {
            paths.push(path.to_owned());
            Ok::<(), GitError>(())
        })
        .unwrap();
    assert_eq!(paths.len(), 10_000);
    if let Some(listed) = git(store.path(), &["ls-tree", "-r", "--name-only", &head.to_string()], b"") {
        assert_eq!(listed.lines().collect::<Vec<_>>(), paths);
    }
    let mut batch = store.batch(DESIRED).unwrap();
    batch.put("r/00/00/web-0.json", b"new").unwrap();
    let next = batch.commit(&author(2), &committer(2), "one", None).unwrap();
    finish(vec![batch]).unwrap();
    assert_eq!(store.diff(Some(head), next, "").unwrap().len(), 1);
    check(&store);
}
