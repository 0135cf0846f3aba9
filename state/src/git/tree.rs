//! A commit's files in memory: only what is touched is loaded, only what changed is written.

use std::sync::Arc;

use git2::{ObjectType, Oid};

use super::GitError;
use super::names::DEPTH_LIMIT;
use super::object::{DIRECTORY, FILE, id_of, lines, push_line, tree_order};
use super::objects::{Objects, too_deep};
use super::pack::{Body, Place};

/// A directory: its lines in git's order, and how it was last written to the pack being built.
#[derive(Default)]
pub(super) struct Directory {
    children: Vec<Child>,
    changed: bool,
    written: Option<(Place, Vec<u8>)>,
}

struct Child {
    name: Box<str>,
    mode: u32,
    id: Oid,
    node: Node,
}

enum Node {
    /// In the store; not looked into yet.
    Stored,
    Directory(Box<Directory>),
    /// A file of this batch. Its bytes are kept: the store doesn't have them before the batch is finished,
    /// and the next version is written as a delta to them.
    File {
        bytes: Arc<[u8]>,
        state: FileState,
    },
}

enum FileState {
    /// Put since the last commit; with the version that was written before it, if there is one.
    Fresh(Option<(Place, Arc<[u8]>)>),
    Written(Place),
}

impl Child {
    fn is_directory(&self) -> bool {
        self.mode == DIRECTORY
    }
}

impl Directory {
    /// Loads a directory's lines from the store.
    pub(super) fn load(objects: &Objects, id: Oid) -> Result<Directory, GitError> {
        let object = objects.read(id, ObjectType::Tree)?;
        let mut children = Vec::new();
        for line in lines(id, object.data()) {
            let line = line?;
            children.push(Child {
                name: line.name.into(),
                mode: line.mode,
                id: line.id,
                node: Node::Stored,
            });
        }
        Ok(Directory {
            children,
            changed: false,
            written: None,
        })
    }

    fn position(&self, name: &str, directory: bool) -> Result<usize, usize> {
        self.children
            .binary_search_by(|child| tree_order((&child.name, child.is_directory()), (name, directory)))
    }

    /// Returns the directory at a position, loaded.
    fn enter(&mut self, objects: &Objects, at: usize) -> Result<&mut Directory, GitError> {
        let child = &mut self.children[at];
        if !matches!(child.node, Node::Directory(_)) {
            child.node = Node::Directory(Box::new(Directory::load(objects, child.id)?));
        }
        match &mut child.node {
            Node::Directory(directory) => Ok(directory),
            Node::Stored | Node::File { .. } => Err(GitError::damaged(format!("directory {}", child.name), "it is a file")),
        }
    }

    /// Puts a file; tells whether anything changed.
    pub(super) fn put(&mut self, objects: &Objects, path: &str, bytes: &[u8]) -> Result<bool, GitError> {
        let id = id_of(ObjectType::Blob, bytes)?;
        self.put_at(objects, path, path, bytes, id)
    }

    fn put_at(&mut self, objects: &Objects, whole: &str, path: &str, bytes: &[u8], id: Oid) -> Result<bool, GitError> {
        let (name, rest) = split(path);
        // The same name as the other kind: a file where a directory is meant, or the reverse.
        if self.position(name, rest.is_none()).is_ok() {
            return Err(GitError::PathConflict { path: whole.to_owned() });
        }
        let changed = match (rest, self.position(name, rest.is_some())) {
            (Some(rest), Ok(at)) => self.enter(objects, at)?.put_at(objects, whole, rest, bytes, id)?,
            (Some(rest), Err(at)) => {
                let mut directory = Directory::default();
                directory.put_at(objects, whole, rest, bytes, id)?;
                self.children.insert(
                    at,
                    Child {
                        name: name.into(),
                        mode: DIRECTORY,
                        id: Oid::ZERO_SHA1,
                        node: Node::Directory(Box::new(directory)),
                    },
                );
                true
            }
            (None, Ok(at)) => self.children[at].replace(id, bytes),
            (None, Err(at)) => {
                self.children.insert(
                    at,
                    Child {
                        name: name.into(),
                        mode: FILE,
                        id,
                        node: Node::File {
                            bytes: bytes.into(),
                            state: FileState::Fresh(None),
                        },
                    },
                );
                true
            }
        };
        self.changed |= changed;
        Ok(changed)
    }

    /// Removes a file or a whole directory; tells whether anything was there.
    pub(super) fn remove(&mut self, objects: &Objects, path: &str) -> Result<bool, GitError> {
        let (name, rest) = split(path);
        let removed = match rest {
            None => match self.position(name, false).or_else(|_| self.position(name, true)) {
                Ok(at) => {
                    self.children.remove(at);
                    true
                }
                Err(_) => false,
            },
            Some(rest) => match self.position(name, true) {
                Ok(at) => {
                    let below = self.enter(objects, at)?;
                    let removed = below.remove(objects, rest)?;
                    // Git has no empty directories.
                    if removed && below.children.is_empty() {
                        self.children.remove(at);
                    }
                    removed
                }
                Err(_) => false,
            },
        };
        self.changed |= removed;
        Ok(removed)
    }

    /// Returns a file's bytes as the next commit would have them.
    pub(super) fn get(&mut self, objects: &Objects, path: &str) -> Result<Option<Arc<[u8]>>, GitError> {
        let (name, rest) = split(path);
        match (rest, self.position(name, rest.is_some())) {
            (_, Err(_)) => Ok(None),
            (Some(rest), Ok(at)) => self.enter(objects, at)?.get(objects, rest),
            (None, Ok(at)) => match &self.children[at].node {
                Node::File { bytes, .. } => Ok(Some(Arc::clone(bytes))),
                Node::Stored | Node::Directory(_) => {
                    let object = objects.read(self.children[at].id, ObjectType::Blob)?;
                    Ok(Some(object.data().into()))
                }
            },
        }
    }

    /// Lists the paths of all files below a directory, in git's order. An empty `prefix` means all.
    pub(super) fn list(&mut self, objects: &Objects, prefix: &str, found: &mut Vec<String>) -> Result<(), GitError> {
        let mut here = self;
        for name in prefix.split('/').filter(|name| !name.is_empty()) {
            match here.position(name, true) {
                Ok(at) => here = here.enter(objects, at)?,
                Err(_) => return Ok(()),
            }
        }
        here.list_below(objects, prefix.trim_end_matches('/'), found, DEPTH_LIMIT)
    }

    fn list_below(&mut self, objects: &Objects, above: &str, found: &mut Vec<String>, depth: usize) -> Result<(), GitError> {
        if depth == 0 {
            return Err(too_deep(above));
        }
        for at in 0..self.children.len() {
            let child = &self.children[at];
            let path = match above {
                "" => child.name.to_string(),
                _ => format!("{above}/{}", child.name),
            };
            if child.is_directory() {
                self.enter(objects, at)?.list_below(objects, &path, found, depth - 1)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }

    /// Adds what changed below here to a pack and returns this directory's id.
    pub(super) fn write(&mut self, body: &mut Body, unchanged: Option<Oid>) -> Result<Oid, GitError> {
        if let (false, Some(id)) = (self.changed, unchanged) {
            return Ok(id);
        }
        let mut bytes = Vec::with_capacity(self.children.len() * 48);
        for child in &mut self.children {
            child.write(body)?;
            push_line(&mut bytes, child.mode, &child.name, child.id);
        }
        let base = self.written.as_ref().map(|(place, old)| (*place, old.as_slice()));
        let (id, place) = body.add(ObjectType::Tree, &bytes, base)?;
        self.written = Some((place, bytes));
        self.changed = false;
        Ok(id)
    }
}

impl Child {
    /// Gives a file new bytes; tells whether they differ.
    fn replace(&mut self, id: Oid, new: &[u8]) -> bool {
        if self.id == id && self.mode == FILE {
            return false;
        }
        let node = std::mem::replace(&mut self.node, Node::Stored);
        let before = match node {
            Node::File {
                bytes,
                state: FileState::Written(place),
            } => Some((place, bytes)),
            Node::File {
                state: FileState::Fresh(before),
                ..
            } => before,
            Node::Stored | Node::Directory(_) => None,
        };
        self.id = id;
        self.mode = FILE;
        self.node = Node::File {
            bytes: new.into(),
            state: FileState::Fresh(before),
        };
        true
    }

    fn write(&mut self, body: &mut Body) -> Result<(), GitError> {
        match &mut self.node {
            Node::Stored => {}
            Node::Directory(directory) => {
                let unchanged = (self.id != Oid::ZERO_SHA1).then_some(self.id);
                self.id = directory.write(body, unchanged)?;
            }
            Node::File { bytes, state } => {
                if let FileState::Fresh(before) = state {
                    let base = before.as_ref().map(|(place, old)| (*place, &old[..]));
                    let (_, place) = body.add(ObjectType::Blob, bytes, base)?;
                    *state = FileState::Written(place);
                }
            }
        }
        Ok(())
    }
}

/// Splits a path into its first component and the rest.
fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    }
}
