//! A git repository as somebody with plain git sees it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use state::canonical::Digest;
use state::report::{Envelope, Report};

use crate::command::{self, Ended};
use crate::wait::DEADLINE;

/// A repository, seen through the `git` command.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
    environment: Vec<(OsString, Option<OsString>)>,
}

impl Repository {
    /// A repository at a path. The command gives the environment in which git is run.
    pub fn new(git: Command, path: &Path) -> Self {
        let environment = git
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
            .collect();
        Self {
            path: path.to_owned(),
            environment,
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git in it.
    #[track_caller]
    pub fn git(&self, words: &[&str]) -> Ended {
        let mut git = Command::new("git");
        git.env_clear();
        for (name, value) in &self.environment {
            if let Some(value) = value {
                git.env(name, value);
            }
        }
        git.arg("-C").arg(&self.path).args(words);
        command::run(git, DEADLINE)
    }

    /// Every reference and its commit.
    #[track_caller]
    pub fn refs(&self) -> BTreeMap<String, String> {
        let listed = self.git(&["for-each-ref", "--format=%(refname) %(objectname)"]).exits(0);
        let pairs = listed.lines().into_iter().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, commit)| (name.to_owned(), commit.to_owned())).collect()
    }

    /// The references whose names begin with `refs/heads/<start>`.
    #[track_caller]
    pub fn heads(&self, start: &str) -> BTreeMap<String, String> {
        let start = format!("refs/heads/{start}");
        self.refs().into_iter().filter(|(name, _)| name.starts_with(&start)).collect()
    }

    /// The commit of a branch.
    ///
    /// # Panics
    /// When there is no such branch.
    #[track_caller]
    pub fn head(&self, branch: &str) -> String {
        let refs = self.refs();
        let found = refs.get(&format!("refs/heads/{branch}"));
        found.unwrap_or_else(|| panic!("no branch {branch} among {refs:?}")).clone()
    }

    /// One line for each commit of a branch, newest first, in git's own format language.
    #[track_caller]
    pub fn log(&self, branch: &str, format: &str) -> Vec<String> {
        let log = self.git(&["log", &format!("--format={format}"), branch]).exits(0);
        log.lines().into_iter().map(str::to_owned).collect()
    }

    /// Demands that plain git says Good to the signature of every commit of a branch, and counts the commits by key.
    ///
    /// # Panics
    /// When one is not Good.
    #[track_caller]
    pub fn good_commits(&self, branch: &str) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for line in self.log(branch, "%G? %GF %h %s") {
            let mut words = line.split(' ');
            assert_eq!(words.next(), Some("G"), "{line}");
            *keys.entry(words.next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        assert!(!keys.is_empty(), "{branch} has no commits");
        keys
    }

    /// A file at a commit, as JSON.
    ///
    /// # Panics
    /// When there is no such file, or it is no JSON.
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self, commit: &str, path: &str) -> T {
        let shown = self.git(&["show", &format!("{commit}:{path}")]).exits(0);
        serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{path} at {commit}: {error}"))
    }

    /// Every report of a member on a channel, oldest first.
    #[track_caller]
    pub fn reports(&self, channel: &str, member: &str) -> Vec<Report> {
        self.signed_reports(channel, member).into_iter().map(|(report, _)| report).collect()
    }

    /// Demands that a member's reports on a channel are one chain without a gap, and returns how many they are.
    ///
    /// # Panics
    /// Where the chain breaks.
    #[track_caller]
    pub fn report_chain(&self, channel: &str, member: &str) -> u64 {
        let (mut sequence, mut previous) = (0, None);
        for (report, digest) in self.signed_reports(channel, member) {
            sequence += 1;
            assert_eq!((report.sequence, report.previous), (sequence, previous), "{member} on {channel}");
            previous = Some(digest);
        }
        sequence
    }

    #[track_caller]
    fn signed_reports(&self, channel: &str, member: &str) -> Vec<(Report, Digest)> {
        let path = format!("members/{member}/report.dsse.json");
        let branch = format!("reported/{channel}");
        let listed = self.git(&["log", "--reverse", "--format=%H", &branch, "--", &path]).exits(0);
        let read = |commit: &str| {
            let envelope: Envelope = self.json(commit, &path);
            envelope.report().expect("the ledger takes nothing but reports")
        };
        listed.lines().into_iter().map(read).collect()
    }

    /// Demands that git finds nothing wrong with it.
    #[track_caller]
    pub fn is_sound(&self) {
        let fsck = self.git(&["fsck", "--strict", "--full", "--no-dangling"]).exits(0);
        assert!(
            !fsck.stdout.contains("error") && !fsck.stderr.contains("error") && !fsck.stderr.contains("warning"),
            "{fsck}"
        );
    }

    /// Everything that is in its objects, as bytes: what a curious owner of the store could find.
    #[track_caller]
    pub fn all_contents(&self) -> String {
        self.git(&["cat-file", "--batch-all-objects", "--batch", "--unordered"])
            .exits(0)
            .stdout
    }
}
