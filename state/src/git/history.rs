//! Reading history: the log of a commit, of one path, and what differs between two commits.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use git2::{ObjectType, Oid};

use super::names::{DEPTH_LIMIT, check_path};
use super::object::{DIRECTORY, Line, lines, parse_commit, tree_order};
use super::objects::{Objects, enter, too_deep};
use super::store::directory_of;
use super::{CommitId, CommitInfo, FileId, GitError, Store};

/// Tells one file that differs between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file's path.
    pub path: String,
    /// Its content before; none where it was added.
    pub old: Option<FileId>,
    /// Its content after; none where it was removed.
    pub new: Option<FileId>,
}

/// A commit that waits for its turn: newest first, then in the order it was found.
struct Waiting {
    info: CommitInfo,
    found: usize,
}

impl Waiting {
    fn key(&self) -> (i64, std::cmp::Reverse<usize>) {
        (self.info.committer.seconds, std::cmp::Reverse(self.found))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl Store {
    /// Lists at most `limit` commits from one back to the beginning, newest first; with a `path`, those
    /// that changed that file or anything below that directory.
    pub fn log(&self, from: CommitId, path: Option<&str>, limit: usize) -> Result<Vec<CommitInfo>, GitError> {
        if let Some(path) = path {
            check_path(path)?;
        }
        let objects = self.objects()?;
        let load = |id: CommitId| {
            let object = objects.read(id.0, ObjectType::Commit)?;
            parse_commit(id, object.data())
        };
        let mut waiting = BinaryHeap::from([Waiting {
            info: load(from)?,
            found: 0,
        }]);
        // Only commits with several children are met twice; on a straight line there are none.
        let mut met = HashSet::from([from]);
        let mut listed = Vec::new();
        while listed.len() < limit
            && let Some(Waiting { info, .. }) = waiting.pop()
        {
            let mut parents = Vec::with_capacity(info.parents.len());
            for &parent in &info.parents {
                parents.push(load(parent)?);
            }
            let wanted = match path {
                Some(path) => changes(&objects, &info, &parents, path)?,
                None => true,
            };
            for parent in parents {
                if met.insert(parent.id) {
                    let found = met.len();
                    waiting.push(Waiting { info: parent, found });
                }
            }
            if wanted {
                listed.push(info);
            }
        }
        Ok(listed)
    }

    /// Lists the files that differ between two commits, below a directory, in git's order of paths.
    /// Without `old`, every file is new; the empty `directory` means all.
    pub fn diff(&self, old: Option<CommitId>, new: CommitId, directory: &str) -> Result<Vec<Change>, GitError> {
        let objects = self.objects()?;
        let old = match old {
            Some(commit) => directory_of(&objects, commit, directory)?,
            None => None,
        };
        let new = directory_of(&objects, new, directory)?;
        let mut comparison = Comparison {
            objects: &objects,
            path: directory.to_owned(),
            changes: Vec::new(),
        };
        comparison.directories(old, new, DEPTH_LIMIT)?;
        Ok(comparison.changes)
    }
}

/// Tells whether a commit changed a path against every one of its parents.
fn changes(objects: &Objects, commit: &CommitInfo, parents: &[CommitInfo], path: &str) -> Result<bool, GitError> {
    let here = objects.find(commit.tree, path)?;
    if parents.is_empty() {
        return Ok(here.is_some());
    }
    for parent in parents {
        if parent.tree == commit.tree || objects.find(parent.tree, path)? == here {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Comparison<'a> {
    objects: &'a Objects,
    path: String,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    fn directories(&mut self, old: Option<Oid>, new: Option<Oid>, depth: usize) -> Result<(), GitError> {
        if old == new {
            return Ok(());
        }
        if depth == 0 {
            return Err(too_deep(&self.path));
        }
        let read = |id: Option<Oid>| id.map(|id| self.objects.read(id, ObjectType::Tree)).transpose();
        let (old_object, new_object) = (read(old)?, read(new)?);
        let all = |id: Option<Oid>, object: &Option<git2::OdbObject<'_>>| -> Result<Vec<_>, GitError> {
            match (id, object) {
                (Some(id), Some(object)) => lines(id, object.data())
                    .map(|line| line.map(|line| (line.mode, line.name.to_owned(), line.id)))
                    .collect(),
                _ => Ok(Vec::new()),
            }
        };
        let (old, new) = (all(old, &old_object)?, all(new, &new_object)?);
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a_mode, a, _)), Some((b_mode, b, _))) => tree_order((a, *a_mode == DIRECTORY), (b, *b_mode == DIRECTORY)),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            self.lines(
                before.map(|(mode, name, id)| Line {
                    mode: *mode,
                    name,
                    id: *id,
                }),
                after.map(|(mode, name, id)| Line {
                    mode: *mode,
                    name,
                    id: *id,
                }),
                depth,
            )?;
        }
    }

    /// Compares two lines of the same name and kind, of which one may be missing.
    fn lines(&mut self, old: Option<Line<'_>>, new: Option<Line<'_>>, depth: usize) -> Result<(), GitError> {
        let Some(line) = old.or(new) else {
            return Ok(());
        };
        let ids = (old.map(|line| line.id), new.map(|line| line.id));
        let above = enter(&mut self.path, line.name);
        if line.is_directory() {
            self.directories(ids.0, ids.1, depth - 1)?;
        } else if ids.0 != ids.1 {
            self.changes.push(Change {
                path: self.path.clone(),
                old: ids.0.map(FileId),
                new: ids.1.map(FileId),
            });
        }
        self.path.truncate(above);
        Ok(())
    }
}
