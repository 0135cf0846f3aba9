//! One object that is there, against what applying would make of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use state::errors::chain;
use state::observation::FieldDrift;

use crate::live::version;
use crate::object::{Object, Owner};
use crate::record::{Last, Record};
use crate::send::{self, Sent};
use crate::server::{ApiKind, Apply, Contested, Server};
use crate::{Hindrance, compare};

/// How often an object is read again that changes between the two looks at it.
const READS: usize = 3;

/// What was seen of the objects of a resource so far.
#[derive(Default)]
pub(crate) struct Sight {
    pub(crate) drift: Vec<FieldDrift>,
    pub(crate) replace: Option<String>,
    pub(crate) blocked: Option<String>,
    pub(crate) waits: Option<String>,
    pub(crate) held: Option<String>,
    pub(crate) foreign: bool,
    pub(crate) any: bool,
    pub(crate) live: BTreeMap<usize, Value>,
    pub(crate) sent: BTreeMap<String, Last>,
    pub(crate) clean: BTreeSet<usize>,
}

/// An object to compare.
pub(crate) struct One<'a> {
    server: &'a Server,
    kind: &'a ApiKind,
    object: &'a Object,
    sent: Sent,
    /// Where it stands in its specification.
    at: &'a str,
    /// What it is called in records, what is sent now, and what was last.
    key: String,
    digest: String,
    last: Option<&'a Last>,
}

impl<'a> One<'a> {
    pub(crate) fn new(
        server: &'a Server,
        kind: &'a ApiKind,
        object: &'a Object,
        sent: Sent,
        at: &'a str,
        record: Option<&'a Record>,
    ) -> Self {
        let salt = record.map(|record| record.salt.as_str()).unwrap_or_default();
        let key = object.id.to_string();
        Self {
            server,
            kind,
            object,
            at,
            digest: send::digest(salt, &sent.body),
            sent,
            last: record.and_then(|record| record.sent.get(&key)),
            key,
        }
    }

    /// Whether an object of ours is as it was when it was the same as what applying would make of it.
    pub(crate) fn was_clean(&self, version: &str, sight: &mut Sight) -> bool {
        let Some(last) = self.last.filter(|last| last.digest == self.digest && last.clean == version) else {
            return false;
        };
        sight.any = true;
        sight.sent.insert(self.key.clone(), last.clone());
        sight.clean.insert(self.object.index);
        true
    }

    /// Compares the object with what applying would make of it, unless it is as it was when they were the same. Gives what was read of it
    /// anew.
    pub(crate) async fn compare(mut self, live: &Value, owner: &Owner, sight: &mut Sight) -> Result<Option<Value>, String> {
        if *owner == Owner::Ours && self.was_clean(version(live), sight) {
            return Ok(None);
        }
        let (key, digest, last) = (self.key.clone(), self.digest.clone(), self.last);
        let over = match owner {
            Owner::Ours => send::over(last, &digest),
            Owner::Anothers(_) | Owner::Nobody => Contested::Take,
        };
        // Until it is the same again, only what was applied last is remembered.
        let unclean = last.map(|last| Last {
            digest: last.digest.clone(),
            clean: String::new(),
        });
        sight.sent.extend(unclean.map(|last| (key.clone(), last)));
        let mut newer = None;
        for _ in 0..READS {
            let live = newer.as_ref().unwrap_or(live);
            send::leave_alone(&mut self.sent.body, live, &self.object.rules.ignore);
            let applied = match send::send(self.server, self.kind, self.object, &self.sent, Apply::Try, over).await {
                Ok(applied) => applied,
                Err(hindrance) => {
                    self.refused(&hindrance, sight)?;
                    return Ok(newer);
                }
            };
            if version(&applied) != version(live) {
                // Somebody changed it in between: what differs may be theirs.
                let now = self.server.get(self.kind, &self.sent.id).await.map_err(|trouble| chain(&trouble))?;
                newer = Some(now.ok_or_else(|| format!("{} went while it was looked at", self.object.id))?);
                continue;
            }
            let fields = self.differences(live, &applied, owner);
            if fields.is_empty() && *owner == Owner::Ours {
                let clean = version(live).to_owned();
                sight.sent.insert(key, Last { digest, clean });
                sight.clean.insert(self.object.index);
            }
            sight.drift.extend(fields);
            return Ok(newer);
        }
        Err(format!("{} changes all the time", self.object.id))
    }

    fn differences(&self, live: &Value, applied: &Value, owner: &Owner) -> Vec<FieldDrift> {
        let hide = self.object.id.is_secret();
        match owner {
            Owner::Ours => compare::differences(live, applied, self.at, hide),
            _ => compare::differences(&compare::unlabelled(live), &compare::unlabelled(applied), self.at, hide),
        }
    }

    /// What a refusal of the server means for the plan; `Err`: nothing can be said.
    fn refused(&self, hindrance: &Hindrance, sight: &mut Sight) -> Result<(), String> {
        let id = &self.object.id;
        let field = |name: &str| FieldDrift {
            path: format!("{}{}", self.at, pointer(name)),
            wanted: None,
            found: None,
        };
        if let Some(name) = send::immutable(hindrance) {
            let why = format!("{id}: the server says that {name} can't be changed");
            sight.drift.push(field(&name));
            match self.object.rules.replace {
                true => sight.replace = Some(why),
                false => sight.blocked = Some(format!("{why}; it is replaced only where replace names {}", id.short())),
            }
            return Ok(());
        }
        let refused = match hindrance {
            Hindrance::Contested { .. } | Hindrance::Hidden(_) => true,
            Hindrance::Server(trouble) => trouble.is_misfit() || matches!(trouble.code(), Some(400 | 403 | 409 | 422)),
            _ => false,
        };
        if !refused {
            return Err(chain(hindrance));
        }
        sight.blocked = Some(chain(hindrance));
        sight.drift.push(field(""));
        Ok(())
    }
}

/// A field in the server's words as a JSON pointer, as far as it is one.
fn pointer(field: &str) -> String {
    let mut out = String::new();
    for part in field.trim_start_matches('.').split('.').filter(|part| !part.is_empty()) {
        out.push('/');
        out.push_str(part);
    }
    out
}
