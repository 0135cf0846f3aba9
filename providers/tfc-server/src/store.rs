//! All objects, in memory and on the disk: one JSON file for each, written before anybody is told of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::macros::format_description;

use providers::records::Folder;

use crate::OpenError;
use crate::model::{Comment, Configuration, Object, Organization, Run, StateVersion, Variable, Workspace};

/// The largest object.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// What identities are made of. They are hard to guess: some of them are keys.
const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefgh";

/// A text that nobody guesses.
pub(crate) fn random(letters: usize) -> String {
    let mut bytes = vec![0; letters];
    // A machine without randomness gives no identities: there is nothing that could be served then.
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// Now, as the API writes it. Later times are larger texts.
pub(crate) fn now() -> String {
    in_seconds(0)
}

/// The time in so many seconds.
pub(crate) fn in_seconds(seconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::now_utc() + std::time::Duration::from_secs(seconds);
    time.format(&format).unwrap_or_default()
}

/// The objects of one type.
pub(crate) struct Table<T> {
    folder: Folder,
    all: BTreeMap<String, T>,
}

impl<T: Object + Clone + Serialize + DeserializeOwned> Table<T> {
    fn open(folder: &Path) -> Result<Self, OpenError> {
        let folder = Folder::new(&folder.join("objects").join(T::PREFIX), MAX_BYTES);
        let mut all = BTreeMap::new();
        for (name, bytes) in folder.read()?.unwrap_or_default() {
            let object = serde_json::from_slice(&bytes).map_err(|source| OpenError::Object {
                name: format!("{}/{name}", T::PREFIX),
                source,
            })?;
            all.insert(name, object);
        }
        Ok(Self { folder, all })
    }

    /// An identity that nobody has.
    pub(crate) fn fresh() -> String {
        format!("{}-{}", T::PREFIX, random(16))
    }

    pub(crate) fn get(&self, id: &str) -> Option<&T> {
        self.all.get(id)
    }

    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.all.values()
    }

    /// Keeps an object, in the place of the one of its identity.
    pub(crate) fn put(&mut self, object: T) -> io::Result<()> {
        self.folder.write(object.id(), &serde_json::to_vec(&object)?)?;
        self.all.insert(object.id().to_owned(), object);
        Ok(())
    }

    /// Changes an object.
    pub(crate) fn change(&mut self, id: &str, change: impl FnOnce(&mut T)) -> io::Result<()> {
        let Some(mut object) = self.all.get(id).cloned() else {
            return Ok(());
        };
        change(&mut object);
        self.put(object)
    }

    pub(crate) fn remove(&mut self, id: &str) -> io::Result<()> {
        self.folder.remove(id)?;
        self.all.remove(id);
        Ok(())
    }

    /// Removes all that a test finds.
    pub(crate) fn remove_where(&mut self, is: impl Fn(&T) -> bool) -> io::Result<()> {
        let gone: Vec<String> = self.all.values().filter(|one| is(one)).map(|one| one.id().to_owned()).collect();
        gone.iter().try_for_each(|id| self.remove(id))
    }
}

/// All objects.
pub(crate) struct Store {
    pub(crate) organizations: Table<Organization>,
    pub(crate) workspaces: Table<Workspace>,
    pub(crate) variables: Table<Variable>,
    pub(crate) configurations: Table<Configuration>,
    pub(crate) runs: Table<Run>,
    pub(crate) states: Table<StateVersion>,
    pub(crate) comments: Table<Comment>,
    number: u64,
}

impl Store {
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenError> {
        let mut store = Self {
            organizations: Table::open(folder)?,
            workspaces: Table::open(folder)?,
            variables: Table::open(folder)?,
            configurations: Table::open(folder)?,
            runs: Table::open(folder)?,
            states: Table::open(folder)?,
            comments: Table::open(folder)?,
            number: 0,
        };
        let runs = store.runs.all().map(|run| run.number);
        let states = store.states.all().map(|state| state.number);
        let configurations = store.configurations.all().map(|configuration| configuration.number);
        store.number = runs.chain(states).chain(configurations).max().unwrap_or(0);
        Ok(store)
    }

    /// The next number: what is made later has a larger one.
    pub(crate) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// A workspace by its name.
    pub(crate) fn workspace(&self, organization: &str, name: &str) -> Option<&Workspace> {
        let mut all = self.workspaces.all();
        all.find(|one| one.organization == organization && one.name == name)
    }

    /// The identities of an organization's workspaces.
    pub(crate) fn workspaces_of(&self, organization: &str) -> Vec<String> {
        let of = self.workspaces.all().filter(|one| one.organization == organization);
        of.map(|one| one.id.clone()).collect()
    }

    /// The identities of a workspace's variables.
    pub(crate) fn variables_of(&self, workspace: &str) -> Vec<&str> {
        let of = self.variables.all().filter(|one| one.workspace == workspace);
        of.map(|one| one.id.as_str()).collect()
    }

    /// What a workspace's engine is given.
    pub(crate) fn given_to(&self, workspace: &str) -> Vec<Variable> {
        let of = self.variables.all().filter(|one| one.workspace == workspace);
        of.cloned().collect()
    }

    /// The configuration that runs take which name none: the newest one that has come, and wasn't for one run only.
    pub(crate) fn latest_configuration(&self, workspace: &str) -> Option<String> {
        let fits = |one: &&Configuration| one.workspace == workspace && one.status == "uploaded" && !one.speculative && !one.provisional;
        let newest = self.configurations.all().filter(fits).max_by_key(|one| one.number);
        newest.map(|one| one.id.clone())
    }

    /// The runs of a workspace, the newest first.
    pub(crate) fn runs_of(&self, workspace: &str) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.runs.all().filter(|run| run.workspace == workspace).collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.number));
        runs
    }

    /// The states of a workspace, the newest first.
    pub(crate) fn states_of(&self, workspace: &str) -> Vec<&StateVersion> {
        let mut states: Vec<&StateVersion> = self.states.all().filter(|state| state.workspace == workspace).collect();
        states.sort_by_key(|state| std::cmp::Reverse(state.number));
        states
    }

    /// Removes a workspace and all that is of it, and says which files and folders nobody needs any more, below the server's folder.
    pub(crate) fn remove_workspace(&mut self, id: &str) -> io::Result<Vec<PathBuf>> {
        let of_runs = self.runs_of(id).into_iter().map(|run| Path::new("runs").join(&run.id));
        let of_states = self.states_of(id).into_iter().map(|state| Path::new("states").join(&state.key));
        let configurations = self.configurations.all().filter(|one| one.workspace == id);
        let of_configurations = configurations.map(|one| Path::new("configurations").join(&one.key));
        let files = of_runs.chain(of_states).chain(of_configurations).collect();
        let runs: Vec<String> = self.runs_of(id).iter().map(|run| run.id.clone()).collect();
        self.comments.remove_where(|comment| runs.contains(&comment.run))?;
        self.variables.remove_where(|variable| variable.workspace == id)?;
        self.configurations.remove_where(|configuration| configuration.workspace == id)?;
        self.states.remove_where(|state| state.workspace == id)?;
        self.runs.remove_where(|run| run.workspace == id)?;
        self.workspaces.remove(id)?;
        Ok(files)
    }
}
