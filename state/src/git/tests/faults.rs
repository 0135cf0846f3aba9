//! What a killed writer, another writer and a bad disk leave behind.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::with_git::check;
use super::*;

#[test]
fn a_batch_whose_reference_was_moved_is_refused_and_writes_nothing() {
    let (_directory, store) = new_store();
    let mut mine = store.batch(DESIRED).unwrap();
    let mut other = store.batch(REPORTED).unwrap();
    let mut theirs = Store::open(store.path()).unwrap().batch(DESIRED).unwrap();
    commit(&mut mine, "a", 1);
    commit(&mut other, "a", 1);
    let winner = commit(&mut theirs, "a", 2);
    finish(vec![theirs]).unwrap();
    let packs = pack_files(&store, "");
    match finish(vec![other, mine]) {
        Err(GitError::Moved {
            reference,
            expected,
            found,
        }) => assert_eq!((reference.as_str(), expected, found), (DESIRED, None, Some(winner))),
        result => panic!("{result:?}"),
    }
    assert_eq!(store.head(DESIRED).unwrap(), Some(winner));
    assert_eq!(store.head(REPORTED).unwrap(), None);
    assert_eq!(pack_files(&store, ""), packs);
}

#[test]
fn writers_of_one_store_take_turns() {
    let (_directory, store) = new_store();
    let path = store.path().to_path_buf();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Store::open(&path).unwrap();
            std::thread::spawn(move || {
                let mut made = 0;
                while made < 10 {
                    let mut batch = store.batch(DESIRED).unwrap();
                    commit(&mut batch, &format!("w/{writer}"), made);
                    match finish(vec![batch]) {
                        Ok(()) => made += 1,
                        Err(GitError::Moved { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let head = store.head(DESIRED).unwrap().unwrap();
    assert_eq!(store.log(head, None, 1000).unwrap().len(), 40);
    check(&store);
}

#[test]
fn the_lock_of_a_dead_writer_is_removed_and_a_strangers_is_not() {
    let (_directory, store) = new_store();
    let write = |n| {
        let mut batch = store.batch(DESIRED).unwrap();
        commit(&mut batch, "a", n);
        finish(vec![batch])
    };
    write(1).unwrap();
    let lock = store.path().join(format!("{DESIRED}.lock"));
    fs::hard_link(store.path().join("charter/marker"), &lock).unwrap();
    assert_eq!(store.references("").unwrap().len(), 1, "a lock is no reference");
    write(2).unwrap();
    assert!(!lock.exists());
    for content in ["", "0123456789abcdef0123456789abcdef01234567\n"] {
        fs::write(&lock, content).unwrap();
        assert!(matches!(write(3), Err(GitError::Locked { path }) if path == lock));
        assert_eq!(fs::read_to_string(&lock).unwrap(), content);
    }
    fs::remove_file(&lock).unwrap();
    write(3).unwrap();
    check(&store);
}

#[test]
fn leftovers_of_a_killed_writer_are_ignored_and_written_over() {
    let (_directory, store) = new_store();
    let mut batch = store.batch(DESIRED).unwrap();
    commit(&mut batch, "a", 1);
    finish(vec![batch]).unwrap();
    let packs = store.path().join("objects/pack");
    fs::write(packs.join("tmp_charter_pack"), b"PACK and then nothing").unwrap();
    fs::write(packs.join("tmp_charter_idx"), b"half").unwrap();
    fs::write(store.path().join("charter/reference"), b"0123").unwrap();
    let store = Store::init(store.path()).unwrap();
    let mut batch = store.batch(DESIRED).unwrap();
    let head = commit(&mut batch, "a", 2);
    finish(vec![batch]).unwrap();
    assert_eq!(store.head(DESIRED).unwrap(), Some(head));
    assert!(!packs.join("tmp_charter_pack").exists());
    check(&store);
}

/// Writes two commits in two packs and returns the path of the second pack.
fn two_packs(store: &Store) -> std::path::PathBuf {
    let mut first = Vec::new();
    for n in 1..3 {
        first = pack_files(store, ".pack");
        let mut batch = store.batch(DESIRED).unwrap();
        commit(&mut batch, "a", n);
        finish(vec![batch]).unwrap();
    }
    let mut packs = pack_files(store, ".pack");
    packs.retain(|name| !first.contains(name));
    store.path().join("objects/pack").join(&packs[0])
}

#[test]
fn a_torn_pack_is_set_aside_and_what_needs_it_fails_closed() {
    for cut in [0, 11, 100] {
        let (_directory, store) = new_store();
        let before = two_packs(&store);
        let file = OpenOptions::new().write(true).open(&before).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(if cut == 100 { length - 1 } else { cut }).unwrap();
        drop(file);

        let store = Store::init(store.path()).unwrap();
        assert!(!before.exists());
        assert_eq!(pack_files(&store, ".torn").len(), 2);
        assert!(matches!(store.head(DESIRED), Err(GitError::Object { .. })));
        assert!(matches!(store.batch(DESIRED), Err(GitError::Object { .. })));
    }
}

#[test]
fn a_torn_pack_that_nothing_needs_is_only_set_aside() {
    let (_directory, store) = new_store();
    let pack = two_packs(&store);
    let head = store.head(DESIRED).unwrap().unwrap();
    let parent = store.commit(head).unwrap().parents[0];
    fs::write(store.path().join(DESIRED), format!("{parent}\n")).unwrap();
    let length = fs::metadata(&pack).unwrap().len();
    OpenOptions::new().write(true).open(&pack).unwrap().set_len(length / 2).unwrap();

    // As after a restart: libgit2 shares open packs between the handles of a process.
    let path = store.path().to_path_buf();
    drop(store);
    let store = Store::init(&path).unwrap();
    assert_eq!(store.head(DESIRED).unwrap(), Some(parent));
    let mut batch = store.batch(DESIRED).unwrap();
    assert_eq!(commit(&mut batch, "a", 2), head, "the same commit is made again");
    finish(vec![batch]).unwrap();
    check(&store);
    assert_eq!(files(&store, head, "").len(), 1);
}

#[test]
fn a_flipped_bit_is_never_read_as_content() {
    let (_directory, store) = new_store();
    let pack = two_packs(&store);
    let head = store.head(DESIRED).unwrap().unwrap();
    let good = files(&store, head, "");
    let bytes = fs::read(&pack).unwrap();
    for at in 12..bytes.len() - 20 {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&pack, &flipped).unwrap();
        let store = Store::open(store.path()).unwrap();
        let mut read = BTreeMap::new();
        let result = store.read_all(head, "", |path, bytes| {
            read.insert(path.to_owned(), bytes.to_vec());
            Ok::<(), GitError>(())
        });
        assert!(result.is_err() || read == good, "byte {at}");
    }
}

#[test]
fn a_damaged_pack_is_not_merged_and_stays_where_it_is() {
    let (_directory, store) = new_store();
    let pack = two_packs(&store);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[30] ^= 1;
    fs::write(&pack, &bytes).unwrap();
    for n in 0..30 {
        let mut batch = store.batch(REPORTED).unwrap();
        commit(&mut batch, "a", n);
        finish(vec![batch]).unwrap();
    }
    assert_eq!(fs::read(&pack).unwrap(), bytes);
    let head = store.head(REPORTED).unwrap().unwrap();
    assert_eq!(store.log(head, None, 100).unwrap().len(), 30);
}

#[test]
fn damaged_references_are_errors() {
    let (_directory, store) = new_store();
    two_packs(&store);
    for content in ["", "zz", "ref: refs/heads/main\n", "0123"] {
        fs::write(store.path().join(DESIRED), content).unwrap();
        assert!(matches!(store.head(DESIRED), Err(GitError::Damaged { .. })), "{content:?}");
    }
    let missing = "0123456789abcdef0123456789abcdef01234567\n";
    fs::write(store.path().join(DESIRED), missing).unwrap();
    assert!(matches!(store.head(DESIRED), Err(GitError::Object { .. })));
}

const CHILD: &str = "CHARTER_TEST_STORE";

/// Commits without end and says so; only [`a_writer_killed_anywhere_leaves_a_whole_store`] starts it.
#[test]
fn writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Store::init(path.as_ref()).unwrap();
    let head = store.head(DESIRED).unwrap();
    let mut n = match head {
        Some(head) => store.log(head, None, 100_000).unwrap().len() as i64,
        None => 0,
    };
    loop {
        let mut batches = Vec::new();
        for reference in [DESIRED, REPORTED] {
            let mut batch = store.batch(reference).unwrap();
            if reference == DESIRED || batch.head().is_none() || n % 2 == 0 {
                commit(&mut batch, &format!("r/{}/x", n % 5), n);
            }
            batches.push(batch);
        }
        let head = batches[0].head().unwrap();
        finish(batches).unwrap();
        println!("\ndurable {head}");
        n += 1;
    }
}

#[test]
fn a_writer_killed_anywhere_leaves_a_whole_store() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.git");
    // A user's git configuration that can't be parsed must not matter.
    fs::write(directory.path().join(".gitconfig"), "[core\nnonsense").unwrap();
    let mut lengths = Vec::new();
    for round in 0..25u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "git::tests::faults::writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .env("HOME", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut durable = String::new();
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(id) = line.unwrap().strip_prefix("durable ") {
                durable = id.to_owned();
                seen += 1;
            }
            if seen > round % 7 {
                // Busy for a while that differs from round to round, so that it dies at different lines.
                let mut spin = 0u64;
                for step in 0..round * 20_000 {
                    spin = std::hint::black_box(spin + step);
                }
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        let store = Store::open(&path).unwrap();
        let head = store.head(DESIRED).unwrap().unwrap();
        let log = store.log(head, None, 100_000).unwrap();
        assert!(log.iter().any(|info| info.id.to_string() == durable), "{durable} is lost");
        assert_eq!(files(&store, head, "").len(), log.len().min(5));
        lengths.push(log.len());
    }
    assert!(lengths.is_sorted());
    check(&Store::open(&path).unwrap());
}
