//! The store as a whole, and against the `git` program where there is one.

mod faults;
mod with_git;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Batch, CommitId, GitError, Person, Store, finish};

pub(super) const DESIRED: &str = "refs/heads/desired/smart-city-1";
pub(super) const REPORTED: &str = "refs/heads/reported/smart-city-1";

/// A store in a directory of its own.
pub(super) fn new_store() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::init(&directory.path().join("store.git")).unwrap();
    (directory, store)
}

pub(super) fn author(seconds: i64) -> Person {
    Person {
        name: "acme".to_owned(),
        email: "acme@members".to_owned(),
        seconds,
    }
}

pub(super) fn committer(seconds: i64) -> Person {
    Person {
        name: "Charter".to_owned(),
        email: "charter@localhost".to_owned(),
        seconds,
    }
}

/// Commits one file with the number `n` in its content, message and time.
pub(super) fn commit(batch: &mut Batch, path: &str, n: i64) -> CommitId {
    let bytes = format!("{{\"name\":\"{path}\",\"number\":{n},\"region\":\"eu-west\"}}\n");
    batch.put(path, bytes.as_bytes()).unwrap();
    let seconds = 1_700_000_000 + n;
    let message = format!("order {path}\n\nLedger-Block: {n}\n");
    batch.commit(&author(seconds), &committer(seconds), &message, None).unwrap()
}

/// Reads all files of a commit.
pub(super) fn files(store: &Store, commit: CommitId, below: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    store
        .read_all(commit, below, |path, bytes| {
            found.insert(path.to_owned(), bytes.to_vec());
            Ok::<(), GitError>(())
        })
        .unwrap();
    found
}

pub(super) fn pack_files(store: &Store, ending: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store.path().join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(ending))
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_committed_is_read_back() {
    let (_directory, store) = new_store();
    assert_eq!(store.head(DESIRED).unwrap(), None);
    let mut batch = store.batch(DESIRED).unwrap();
    let first = commit(&mut batch, "resources/a/web-1.json", 1);
    let second = commit(&mut batch, "resources/b/web-2.json", 2);
    assert_eq!(batch.list("resources").unwrap().len(), 2);
    assert_eq!(store.head(DESIRED).unwrap(), None, "nothing is written before finish");
    assert_eq!(pack_files(&store, "").len(), 0);
    finish(vec![batch]).unwrap();

    assert_eq!(store.head(DESIRED).unwrap(), Some(second));
    assert_eq!(store.references("refs/heads/desired/").unwrap(), [(DESIRED.to_owned(), second)]);
    assert_eq!(store.references("refs/heads/actual/").unwrap(), []);
    assert_eq!(files(&store, second, "").len(), 2);
    assert_eq!(files(&store, second, "resources/a").len(), 1);
    assert_eq!(files(&store, second, "resources/none").len(), 0);
    assert_eq!(files(&store, first, "").len(), 1);
    assert_eq!(store.read(second, "resources/none").unwrap(), None);
    assert_eq!(store.read(second, "resources").unwrap(), None);
    assert_eq!(store.read(second, "resources/a/web-1.json/deeper").unwrap(), None);
    let bytes = store.read(second, "resources/a/web-1.json").unwrap().unwrap();
    assert!(bytes.starts_with(b"{\"name\":\"resources/a/web-1.json\""));

    let mut batch = store.batch(DESIRED).unwrap();
    assert_eq!(batch.head(), Some(second));
    assert_eq!(batch.get("resources/a/web-1.json").unwrap().as_deref(), Some(&bytes[..]));
    assert!(!batch.put("resources/a/web-1.json", &bytes).unwrap(), "nothing changed");
    assert!(batch.remove("resources/a/web-1.json").unwrap());
    assert!(!batch.remove("resources/a/web-1.json").unwrap());
    assert_eq!(batch.list("").unwrap(), ["resources/b/web-2.json"]);
    let third = batch.commit(&author(3), &committer(3), "retire", None).unwrap();
    finish(vec![batch]).unwrap();
    assert_eq!(files(&store, third, "").len(), 1);
}

#[test]
fn ids_do_not_depend_on_how_commits_are_batched() {
    let (_a, one) = new_store();
    let (_b, many) = new_store();
    let path = |n: i64| format!("resources/{}/r-{}.json", n % 3, n % 7);
    let mut batch = one.batch(DESIRED).unwrap();
    for n in 0..60 {
        commit(&mut batch, &path(n), n);
        let mut small = many.batch(DESIRED).unwrap();
        commit(&mut small, &path(n), n);
        assert_eq!(small.head(), batch.head());
        finish(vec![small]).unwrap();
    }
    finish(vec![batch]).unwrap();
    assert_eq!(one.head(DESIRED).unwrap(), many.head(DESIRED).unwrap());
    assert_eq!(pack_files(&one, ".pack").len(), 1);
    assert!(pack_files(&many, ".pack").len() <= 17, "small packs are merged");
}

#[test]
fn a_file_and_a_directory_of_one_name_are_refused() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    batch.put("a/b", b"1").unwrap();
    for path in ["a", "a/b/c"] {
        assert!(matches!(batch.put(path, b"2"), Err(GitError::PathConflict { .. })), "{path}");
    }
    assert!(matches!(batch.put("a/../b", b""), Err(GitError::Path { .. })));
    assert!(batch.remove("a").unwrap());
    batch.put("a", b"2").unwrap();
    let id = batch.commit(&author(1), &committer(1), "m", None).unwrap();
    finish(vec![batch]).unwrap();
    assert_eq!(files(&store, id, ""), BTreeMap::from([("a".to_owned(), b"2".to_vec())]));
}

#[test]
fn bad_people_messages_and_signatures_leave_the_batch_as_it_was() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    let head = commit(&mut batch, "a", 1);
    let mut bad = author(1);
    bad.name = "x\nparent y".to_owned();
    for result in [
        batch.commit(&bad, &committer(1), "m", None),
        batch.commit(&author(1), &committer(-1), "m", None),
        batch.commit(&author(1), &committer(1), " \n", None),
        batch.commit(&author(1), &committer(1), "a\0b", None),
        batch.commit(&author(1), &committer(1), "m", Some(&|_| Ok(String::new()))),
        batch.commit(&author(1), &committer(1), "m", Some(&|_| Err("no key".into()))),
    ] {
        assert!(matches!(result, Err(GitError::CommitField { .. } | GitError::Sign { .. })));
    }
    assert_eq!(batch.head(), Some(head));
    finish(vec![batch]).unwrap();
    assert_eq!(store.log(head, None, 10).unwrap().len(), 1);
}

#[test]
fn a_commit_that_was_not_signed_is_made_again_whole() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    commit(&mut batch, "a", 1);
    batch.put("b", b"2").unwrap();
    let failed = batch.commit(&author(2), &committer(2), "m", Some(&|_| Err("no key".into())));
    assert!(matches!(failed, Err(GitError::Sign { .. })));
    let head = batch.commit(&author(2), &committer(2), "m", None).unwrap();
    finish(vec![batch]).unwrap();
    assert_eq!(files(&store, head, "").len(), 2);
}

#[test]
fn handles_and_batches_go_between_threads() {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    shareable::<Store>();
    sendable::<Batch>();
}

#[test]
fn the_log_follows_one_path_and_is_bounded() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    for n in 0..30 {
        commit(&mut batch, &format!("r/{}/x.json", n % 3), n);
    }
    assert!(batch.remove("r/1").unwrap());
    let head = batch.commit(&author(99), &committer(99), "retire r/1", None).unwrap();
    finish(vec![batch]).unwrap();

    let titles = |path, limit| -> Vec<String> {
        let log = store.log(head, path, limit).unwrap();
        log.iter().map(|info| info.title().to_owned()).collect()
    };
    assert_eq!(titles(None, 100).len(), 31);
    assert_eq!(titles(None, 2), ["retire r/1", "order r/2/x.json"]);
    assert_eq!(titles(Some("r/0/x.json"), 100), vec!["order r/0/x.json"; 10]);
    assert_eq!(titles(Some("r/1"), 2), ["retire r/1", "order r/1/x.json"]);
    assert_eq!(titles(Some("r/1"), 100).len(), 11);
    assert_eq!(titles(Some("none"), 100).len(), 0);
    let log = store.log(head, Some("r/0"), 1).unwrap();
    assert_eq!(log[0].trailer("Ledger-Block"), Some("27"));
    assert_eq!(log[0].author, author(1_700_000_027));
    assert_eq!(store.commit(log[0].id).unwrap(), log[0]);
}

#[test]
fn a_diff_names_what_was_added_changed_and_removed() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    for path in ["a/1", "a/2", "a.b", "b/c/d", "same/x"] {
        batch.put(path, path.as_bytes()).unwrap();
    }
    let old = batch.commit(&author(1), &committer(1), "m", None).unwrap();
    batch.put("a/2", b"changed").unwrap();
    batch.remove("b/c/d").unwrap();
    batch.put("b", b"now a file").unwrap();
    batch.put("a-", b"new").unwrap();
    let new = batch.commit(&author(2), &committer(2), "m", None).unwrap();
    finish(vec![batch]).unwrap();

    let show = |old, new, below| -> Vec<String> {
        let changes = store.diff(old, new, below).unwrap();
        let text = |id: Option<_>| match id {
            Some(id) => String::from_utf8(store.file(id).unwrap()).unwrap(),
            None => "-".to_owned(),
        };
        changes
            .iter()
            .map(|c| format!("{}: {} > {}", c.path, text(c.old), text(c.new)))
            .collect()
    };
    assert_eq!(
        show(Some(old), new, ""),
        ["a-: - > new", "a/2: a/2 > changed", "b: - > now a file", "b/c/d: b/c/d > -"]
    );
    assert_eq!(show(Some(old), new, "a"), ["a/2: a/2 > changed"]);
    assert_eq!(show(Some(old), new, "same"), [""; 0]);
    assert_eq!(show(None, old, "a"), ["a/1: - > a/1", "a/2: - > a/2"]);
    assert_eq!(show(Some(old), old, ""), [""; 0]);
}

#[test]
fn batches_that_share_content_make_one_pack() {
    let (_directory, store) = new_store();
    let mut batches = Vec::new();
    for reference in [DESIRED, REPORTED] {
        let mut batch = store.batch(reference).unwrap();
        for n in 0..40 {
            commit(&mut batch, "same/path.json", n);
        }
        commit(&mut batch, reference.trim_start_matches("refs/heads/"), 40);
        batches.push(batch);
    }
    finish(batches).unwrap();
    assert_eq!(pack_files(&store, ".pack").len(), 1);
    for reference in [DESIRED, REPORTED] {
        let head = store.head(reference).unwrap().unwrap();
        assert_eq!(store.log(head, None, 100).unwrap().len(), 41);
        assert_eq!(files(&store, head, "same").len(), 1);
    }
}

#[test]
fn batches_that_do_not_belong_together_are_refused() {
    let (_a, one) = new_store();
    let (_b, other) = new_store();
    let batch = |store: &Store, reference| {
        let mut batch = store.batch(reference).unwrap();
        commit(&mut batch, "a", 1);
        batch
    };
    let strangers = finish(vec![batch(&one, DESIRED), batch(&other, REPORTED)]);
    assert!(matches!(strangers, Err(GitError::Batches { .. })));
    let twins = finish(vec![batch(&one, DESIRED), batch(&one, DESIRED)]);
    assert!(matches!(twins, Err(GitError::Batches { .. })));
    finish(Vec::new()).unwrap();
    finish(vec![one.batch(DESIRED).unwrap()]).unwrap();
    assert_eq!(one.references("").unwrap(), []);
}

#[test]
fn a_directory_that_is_no_store_is_refused() {
    let directory = TempDir::new().unwrap();
    assert!(matches!(Store::open(directory.path()), Err(GitError::NotAStore { .. })));
    let config = "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n";
    let store = Store::init(&directory.path().join("s")).unwrap();
    fs::write(store.path().join("config"), config).unwrap();
    assert!(matches!(Store::open(store.path()), Err(GitError::NotAStore { .. })));
    fs::write(directory.path().join("somebody's"), "work").unwrap();
    assert!(matches!(Store::init(directory.path()), Err(GitError::NotAStore { .. })));
    assert!(Path::new(&directory.path().join("somebody's")).exists());
}

/// Names that are easy to sort wrongly, in few enough directories to collide.
fn any_path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "a-", "a.b", "a0", "b", "ab"]);
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_what_was_put_and_not_removed(
        steps in prop::collection::vec((any_path(), prop::option::weighted(0.7, 0..3u8), 0..6u8), 1..60),
    ) {
        let (_directory, store) = new_store();
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut batch = store.batch(DESIRED).unwrap();
        let mut commits = Vec::new();
        for (n, (path, content, then)) in steps.into_iter().enumerate() {
            match content {
                Some(content) => {
                    let bytes = vec![content; 200 * usize::from(content)];
                    match batch.put(&path, &bytes) {
                        Ok(changed) => prop_assert_eq!(changed, model.insert(path, bytes.clone()) != Some(bytes)),
                        Err(GitError::PathConflict { .. }) => {}
                        Err(other) => return Err(TestCaseError::fail(other.to_string())),
                    }
                }
                None => {
                    let before = model.len();
                    let below = format!("{path}/");
                    model.retain(|other, _| *other != path && !other.starts_with(&below));
                    prop_assert_eq!(batch.remove(&path).unwrap(), model.len() != before);
                }
            }
            if then < 3 {
                let id = batch.commit(&author(n as i64), &committer(n as i64), "m", None).unwrap();
                commits.push((id, model.clone()));
            }
            if then == 0 {
                finish(vec![batch]).unwrap();
                batch = store.batch(DESIRED).unwrap();
            }
        }
        finish(vec![batch]).unwrap();
        for (id, model) in commits {
            prop_assert_eq!(files(&store, id, ""), model);
        }
    }
}
