//! Durable commits of one changed file in a large tree, against `git fast-import` of the same stream and
//! against git2 with flushed loose objects, interleaved; then reading all files back.
//!
//! `cargo bench -p state --bench store -- [--quick] [--commits N] [--files N] [--rounds N]`. Quote the
//! ratios of one run, never times across runs.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use state::git::{CommitId, GitError, Person, Store, finish};
use tempfile::TempDir;

const REFERENCE: &str = "refs/heads/desired/bench";

struct Sizes {
    commits: usize,
    files: usize,
    rounds: usize,
    loose: usize,
    live: usize,
}

fn main() {
    let sizes = sizes();
    println!(
        "{} commits of one changed file in {} files, {} rounds, medians",
        sizes.commits, sizes.files, sizes.rounds
    );
    let (mut ours, mut git, mut loose, mut live, mut read) = (vec![], vec![], vec![], vec![], vec![]);
    let mut log = vec![];
    let (mut our_bytes, mut git_bytes) = (0, 0);
    for _ in 0..sizes.rounds {
        let round = Round::new(&sizes);
        let (head, time, bytes) = round.store(&sizes);
        ours.push(rate(sizes.commits, time));
        our_bytes = bytes;
        if let Some((id, time, bytes)) = round.fast_import(&sizes) {
            assert_eq!(id, head.to_string(), "both made the same history");
            git.push(rate(sizes.commits, time));
            git_bytes = bytes;
        }
        loose.push(rate(sizes.loose, round.git2_loose(&sizes)));
        live.push(rate(sizes.live, round.live(&sizes)));
        read.push(round.read_all(&sizes).as_secs_f64());
        log.push(round.log().as_secs_f64());
    }
    let ours = median(ours);
    println!("store, one durable pack        {ours:>9.0} commits/s   {:>6} KiB", our_bytes / 1024);
    match git.is_empty() {
        true => println!("git fast-import                not measured: there is no `git` program here"),
        false => {
            let git = median(git);
            println!("git fast-import                {git:>9.0} commits/s   {:>6} KiB", git_bytes / 1024);
            println!("  ratio                        {:>9.2}   (target 1)", ours / git);
        }
    }
    let loose = median(loose);
    println!("git2, loose objects flushed    {loose:>9.0} commits/s");
    println!("  ratio                        {:>9.2}   (target 15)", ours / loose);
    let live = median(live);
    println!(
        "store, one commit at a time    {live:>9.0} commits/s   {:.2} times git2",
        live / loose
    );
    let read = median(read);
    println!("read_all of {} files        {:>9.1} ms", sizes.files, read * 1e3);
    println!("log of one file                {:>9.1} ms", median(log) * 1e3);
}

fn sizes() -> Sizes {
    let mut sizes = Sizes {
        commits: 5_000,
        files: 10_000,
        rounds: 5,
        loose: 300,
        live: 300,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> usize {
            let value = args.next().unwrap_or_default();
            value.parse().unwrap_or_else(|_| panic!("{arg} needs a number"))
        };
        match arg.as_str() {
            "--quick" => {
                sizes = Sizes {
                    commits: 500,
                    files: 1_000,
                    rounds: 1,
                    loose: 30,
                    live: 30,
                }
            }
            "--commits" => sizes.commits = number(),
            "--files" => sizes.files = number(),
            "--rounds" => sizes.rounds = number().max(1),
            "--loose" => sizes.loose = number(),
            "--live" => sizes.live = number(),
            // Cargo's own.
            "--bench" => {}
            other => panic!("{other} is no option of this benchmark"),
        }
    }
    sizes
}

fn rate(commits: usize, time: Duration) -> f64 {
    commits as f64 / time.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Spreads files over two levels of sixteen directories.
fn path(file: usize) -> String {
    format!("resources/{:x}/{:x}/web-{file}.json", file % 16, file / 16 % 16)
}

/// About half a KiB, of which one number changes.
fn content(file: usize, n: usize) -> String {
    format!(
        "{{\n  \"depends_on\": [\"network-{}\", \"volume-{file}\"],\n  \"kind\": \"machine/service\",\n  \"name\": \"web-{file}\",\n  \
         \"owner\": \"member-{}\",\n  \"region\": \"eu-west-{}\",\n  \"spec\": {{\n    \"command\": [\"/usr/bin/serve\", \"--port\", \"{}\"],\n    \
         \"environment\": {{\"LOG\": \"info\", \"REPLICA\": \"{file}\"}},\n    \"image\": \"registry/web@{:016x}{:016x}\",\n    \"replicas\": {n}\n  }}\n}}\n",
        file % 7,
        file % 3,
        file % 4,
        10_000 + file,
        file.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        file.wrapping_mul(0xc2b2_ae3d_27d4_eb4f),
    )
}

/// A step through the files that comes back to each, but not soon.
fn changed(n: usize, files: usize) -> usize {
    n * 7_919 % files
}

fn message(n: usize) -> String {
    format!(
        "order web\n\nLedger-Channel: bench\nLedger-Block: {n}\nLedger-Tx: {:064x}\nMember: acme\n",
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

fn person(name: &str, n: usize) -> Person {
    Person {
        name: name.to_owned(),
        email: format!("{name}@members"),
        seconds: 1_700_000_000 + n as i64,
    }
}

struct Round {
    directory: TempDir,
    store: Store,
}

impl Round {
    /// Makes the store with all files in one commit.
    fn new(sizes: &Sizes) -> Round {
        // Not in a temporary directory of the system, which is often in memory.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = TempDir::new_in(target).unwrap();
        let store = Store::init(&directory.path().join("store.git")).unwrap();
        let mut batch = store.batch(REFERENCE).unwrap();
        for file in 0..sizes.files {
            batch.put(&path(file), content(file, 0).as_bytes()).unwrap();
        }
        batch.commit(&person("acme", 0), &person("charter", 0), &message(0), None).unwrap();
        finish(vec![batch]).unwrap();
        Round { directory, store }
    }

    fn store(&self, sizes: &Sizes) -> (CommitId, Duration, u64) {
        let before = pack_bytes(self.store.path());
        let start = Instant::now();
        let mut batch = self.store.batch(REFERENCE).unwrap();
        for n in 1..=sizes.commits {
            let file = changed(n, sizes.files);
            batch.put(&path(file), content(file, n).as_bytes()).unwrap();
            batch.commit(&person("acme", n), &person("charter", n), &message(n), None).unwrap();
        }
        let head = batch.head().unwrap();
        let built = start.elapsed();
        finish(vec![batch]).unwrap();
        let time = start.elapsed();
        eprintln!("  built in {built:?}, durable after {time:?}");
        (head, time, pack_bytes(self.store.path()) - before)
    }

    fn fast_import(&self, sizes: &Sizes) -> Option<(String, Duration, u64)> {
        let at = self.directory.path().join("fast.git");
        fs::create_dir(&at).unwrap();
        git(&at, &["init", "-q", "--bare"], b"")?;
        let stream = |from: usize, to: usize, parent: &str| {
            let mut text = String::new();
            for n in from..=to {
                let message = message(n);
                let time = 1_700_000_000 + n;
                write!(
                    text,
                    "commit {REFERENCE}\nauthor acme <acme@members> {time} +0000\ncommitter charter <charter@members> {time} +0000\ndata {}\n{message}{}",
                    message.len(),
                    if n == from { parent } else { "" },
                )
                .unwrap();
                let files = match n {
                    0 => 0..sizes.files,
                    n => changed(n, sizes.files)..changed(n, sizes.files) + 1,
                };
                for file in files {
                    let bytes = content(file, n);
                    write!(text, "M 100644 inline {}\ndata {}\n{bytes}\n", path(file), bytes.len()).unwrap();
                }
                text.push('\n');
            }
            text
        };
        git(&at, &["fast-import", "--quiet"], stream(0, 0, "").as_bytes())?;
        let text = stream(1, sizes.commits, &format!("from {REFERENCE}^0\n"));
        let before = pack_bytes(&at);
        let start = Instant::now();
        // Few objects are unpacked by default, into loose ones: keep the pack, as is done for many.
        git(&at, &["-c", "fastimport.unpackLimit=1", "fast-import", "--quiet"], text.as_bytes())?;
        let time = start.elapsed();
        let head = git(&at, &["rev-parse", REFERENCE], b"")?;
        Some((head, time, pack_bytes(&at) - before))
    }

    /// The same commits through git2, with every object and reference flushed as libgit2 does it.
    fn git2_loose(&self, sizes: &Sizes) -> Duration {
        let at = self.directory.path().join("loose.git");
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        let repository = git2::Repository::init_opts(&at, &options).unwrap();
        repository.config().unwrap().set_bool("core.fsyncObjectFiles", true).unwrap();
        fs::write(
            at.join("objects/info/alternates"),
            format!("{}\n", self.store.path().join("objects").display()),
        )
        .unwrap();
        drop(repository);
        let repository = git2::Repository::open(&at).unwrap();
        let head = self.store.head(REFERENCE).unwrap().unwrap().to_string();
        let mut parent = repository.find_commit(git2::Oid::from_str(&head).unwrap()).unwrap();
        repository.reference(REFERENCE, parent.id(), true, "").unwrap();
        // As a program that uses git2 alone would have it; the store turns it off.
        git2::opts::enable_caching(true);
        let start = Instant::now();
        for n in 1..=sizes.loose {
            let file = changed(n, sizes.files);
            let blob = repository.blob(content(file, n + 1_000_000).as_bytes()).unwrap();
            let mut update = git2::build::TreeUpdateBuilder::new();
            update.upsert(path(file), blob, git2::FileMode::Blob);
            let tree = update.create_updated(&repository, &parent.tree().unwrap()).unwrap();
            let by = |name: &str| {
                let time = git2::Time::new(1_700_000_000 + n as i64, 0);
                git2::Signature::new(name, &format!("{name}@members"), &time).unwrap()
            };
            let id = repository
                .commit(
                    Some(REFERENCE),
                    &by("acme"),
                    &by("charter"),
                    &message(n),
                    &repository.find_tree(tree).unwrap(),
                    &[&parent],
                )
                .unwrap();
            parent = repository.find_commit(id).unwrap();
        }
        let time = start.elapsed();
        git2::opts::enable_caching(false);
        time
    }

    /// One durable commit after the other, as in daily operation.
    fn live(&self, sizes: &Sizes) -> Duration {
        let start = Instant::now();
        for n in 1..=sizes.live {
            let mut batch = self.store.batch(REFERENCE).unwrap();
            let file = changed(n, sizes.files);
            let bytes = content(file, n + 2_000_000);
            batch.put(&path(file), bytes.as_bytes()).unwrap();
            batch.commit(&person("acme", n), &person("charter", n), &message(n), None).unwrap();
            finish(vec![batch]).unwrap();
        }
        start.elapsed()
    }

    /// The history of one file, through all commits.
    fn log(&self) -> Duration {
        let store = Store::open(self.store.path()).unwrap();
        let head = store.head(REFERENCE).unwrap().unwrap();
        let start = Instant::now();
        let log = store.log(head, Some(&path(0)), usize::MAX).unwrap();
        assert!(!log.is_empty());
        start.elapsed()
    }

    fn read_all(&self, sizes: &Sizes) -> Duration {
        let store = Store::open(self.store.path()).unwrap();
        let head = store.head(REFERENCE).unwrap().unwrap();
        let mut count = 0;
        let start = Instant::now();
        store
            .read_all(head, "", |_, bytes| {
                count += usize::from(!bytes.is_empty());
                Ok::<(), GitError>(())
            })
            .unwrap();
        let time = start.elapsed();
        assert_eq!(count, sizes.files);
        time
    }
}

fn pack_bytes(repository: &Path) -> u64 {
    fs::read_dir(repository.join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pack"))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}

/// Runs git without any configuration of the machine's; `None` if there is no git here.
fn git(at: &Path, args: &[&str], input: &[u8]) -> Option<String> {
    let mut child = Command::new("git")
        .args(args)
        .current_dir(at)
        .env("HOME", at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?} failed");
    Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}
