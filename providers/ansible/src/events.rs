//! What Ansible tells while it runs, as the plugin of Charter's own writes it: one line of JSON for each thing that happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use state::ids::OutputName;
use state::observation::FieldDrift;
use state::resource::Outputs;

/// The most that is read of what a run tells, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The longest message that is told.
const MAX_MESSAGE: usize = 300;

/// One line.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Start,
    Play,
    Task {
        task: usize,
        name: String,
    },
    Begin {
        host: String,
        task: usize,
    },
    Result(Done),
    NoHosts,
    End {
        hosts: BTreeMap<String, Summary>,
        outputs: Map<String, Value>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Became {
    Ok,
    Failed,
    Skipped,
    Unreachable,
}

/// What a task, or one item of it, says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    changed: bool,
    skipped: bool,
    failed: bool,
    /// `no_log`: of what it says only this is known.
    hidden: bool,
    /// The member doesn't allow it.
    refused: bool,
    /// Why it would not run either way.
    reason: Option<Value>,
    message: Option<Value>,
    diff: Option<Value>,
    stderr: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Summary {
    failures: u64,
    unreachable: u64,
}

impl Summary {
    /// Whether everything went well on the host.
    fn is_well(self) -> bool {
        self.failures + self.unreachable == 0
    }
}

/// What one task did on one host.
#[derive(Clone, Debug, Deserialize)]
struct Done {
    host: String,
    task: usize,
    became: Became,
    #[serde(default)]
    ignored: bool,
    #[serde(flatten)]
    said: Said,
    /// The items of a loop that are told, and how many more there are.
    #[serde(default)]
    items: Vec<Said>,
    #[serde(default)]
    more: usize,
}

impl Done {
    /// Whether the member doesn't allow it.
    fn is_refused(&self) -> bool {
        self.said.refused || self.items.iter().any(|item| item.refused)
    }
}

/// What a run has told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    tasks: BTreeMap<usize, String>,
    begun: BTreeMap<String, usize>,
    done: Vec<Done>,
    no_hosts: bool,
    /// What came of each host, and what plays have set; none: it was ended before it was done.
    end: Option<(BTreeMap<String, Summary>, Map<String, Value>)>,
}

/// What a task would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foreseen {
    Change,
    NoChange,
    Unknown,
}

/// What a look by `--check` has shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Look {
    /// What would change.
    pub(crate) changes: Vec<FieldDrift>,
    /// Where nobody knows, and why.
    pub(crate) unknown: Vec<FieldDrift>,
    /// Hosts that could not be reached, and why.
    pub(crate) away: Vec<String>,
}

impl Look {
    /// Whether everything is known, and nothing would change.
    pub(crate) fn is_clean(&self) -> bool {
        self.changes.is_empty() && self.unknown.is_empty() && self.away.is_empty()
    }
}

impl Told {
    /// Reads a file of events.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        let mut told = Self::default();
        // The last line may not be whole yet.
        for event in bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
        {
            match event {
                Event::Start | Event::Play => {}
                Event::Task { task, name } => {
                    told.tasks.insert(task, name);
                }
                Event::Begin { host, task } => {
                    told.begun.insert(host, task);
                }
                Event::Result(done) => told.done.push(done),
                Event::NoHosts => told.no_hosts = true,
                Event::End { hosts, outputs } => told.end = Some((hosts, outputs)),
            }
        }
        told
    }

    /// Whether it came to its end, and on how many hosts.
    pub(crate) fn ended(&self) -> Option<usize> {
        self.end.as_ref().map(|(hosts, _)| hosts.len())
    }

    /// Whether it has told nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.end.is_none() && !self.no_hosts
    }

    /// The hosts on which everything went well.
    pub(crate) fn well(&self) -> Vec<String> {
        let hosts = self.end.iter().flat_map(|(hosts, _)| hosts);
        let well = hosts.filter(|(_, one)| one.is_well());
        well.map(|(host, _)| host.clone()).collect()
    }

    fn name(&self, task: usize) -> &str {
        self.tasks.get(&task).map_or("?", String::as_str)
    }

    /// How far it is: on each host what it is at, and how many tasks it has done.
    pub(crate) fn progress(&self) -> String {
        let mut done: BTreeMap<&str, usize> = BTreeMap::new();
        for one in &self.done {
            *done.entry(&one.host).or_default() += 1;
        }
        const SHOWN: usize = 4;
        let all = self.begun.iter();
        let mut parts: Vec<String> = all
            .take(SHOWN)
            .map(|(host, task)| format!("{host}: {} ({} done)", self.name(*task), done.get(host.as_str()).unwrap_or(&0)))
            .collect();
        if self.begun.len() > SHOWN {
            parts.push(format!("and {} more hosts", self.begun.len() - SHOWN));
        }
        match parts.is_empty() {
            true => "it begins".to_owned(),
            false => parts.join("; "),
        }
    }

    /// What a look by `--check` shows, but for tasks that may be unknown.
    pub(crate) fn look(&self, may_be: &BTreeSet<String>) -> Look {
        let mut look = Look::default();
        let mut places = Places::default();
        // Hosts are done side by side, and the same look has to read the same.
        let mut all: Vec<&Done> = self.done.iter().collect();
        all.sort_by(|a, b| a.host.cmp(&b.host));
        for one in all {
            let task = self.name(one.task);
            let place = places.of(&one.host, task);
            if one.became == Became::Unreachable {
                look.away.push(format!("{} can't be reached: {}", one.host, message(&one.said)));
                continue;
            }
            match foreseen(one) {
                Foreseen::NoChange => {}
                Foreseen::Change => look.changes.push(change(place, one)),
                Foreseen::Unknown if is_named(may_be, task) => {}
                Foreseen::Unknown => look.unknown.push(FieldDrift {
                    path: place,
                    wanted: Some(Value::String(format!("unknown: {}", why_unknown(one)))),
                    found: None,
                }),
            }
        }
        look
    }

    /// Why a run did not end well, host by host, with what is done; none: it did.
    pub(crate) fn failure(&self) -> Option<String> {
        let mut bad: BTreeMap<&str, String> = BTreeMap::new();
        for one in &self.done {
            let task = self.name(one.task);
            let words = match one.became {
                Became::Unreachable => format!("{} can't be reached: {}", one.host, message(&one.said)),
                became if one.is_refused() || became == Became::Failed && !one.ignored => {
                    format!("{} at {task:?}: {}", one.host, message(worst(one)))
                }
                _ => continue,
            };
            bad.insert(&one.host, words);
        }
        if let Some((hosts, _)) = &self.end {
            // What was rescued has not failed.
            let failed = |host: &str| hosts.get(host).is_none_or(|one| !one.is_well());
            let refused = |host: &str| self.done.iter().any(|one| one.host == host && one.is_refused());
            bad.retain(|host, _| failed(host) || refused(host));
            for (host, one) in hosts.iter().filter(|(_, one)| !one.is_well()) {
                let words = if one.unreachable > 0 { "can't be reached" } else { "failed" };
                bad.entry(host).or_insert_with(|| format!("{host} {words}"));
            }
            if hosts.is_empty() || self.no_hosts && bad.is_empty() && self.done.is_empty() {
                return Some("none of its hosts is one that its plays name".to_owned());
            }
            if bad.is_empty() {
                return None;
            }
        } else if bad.is_empty() {
            return Some(format!("it was ended before it was done ({})", self.progress()));
        }
        let well: Vec<&str> = match &self.end {
            Some((hosts, _)) => hosts.keys().map(String::as_str).filter(|host| !bad.contains_key(host)).collect(),
            None => Vec::new(),
        };
        let mut words = bad.into_values().collect::<Vec<_>>().join("; ");
        if !well.is_empty() {
            words.push_str(&format!(" (done on {})", well.join(", ")));
        }
        Some(words)
    }

    /// What plays have set, of what the order gives to others.
    pub(crate) fn outputs(&self, wanted: &BTreeSet<OutputName>) -> Outputs {
        let mut outputs = Outputs::new();
        for (name, value) in self.end.iter().flat_map(|(_, outputs)| outputs) {
            if let Some(name) = wanted.iter().find(|one| one.as_str() == name) {
                outputs.insert(name.clone(), value.clone());
            }
        }
        outputs
    }
}

/// Paths of tasks on hosts: a name that stands twice is told apart by its number.
#[derive(Default)]
struct Places(BTreeMap<String, usize>);

impl Places {
    fn of(&mut self, host: &str, task: &str) -> String {
        let part = |text: &str| text.replace('~', "~0").replace('/', "~1");
        let path = format!("/{}/{}", part(host), part(task));
        let times = self.0.entry(path.clone()).or_default();
        *times += 1;
        match *times {
            1 => path,
            times => format!("{path}#{times}"),
        }
    }
}

/// Whether a task may be unknown: named as its order names it, or as Ansible does in a role.
fn is_named(names: &BTreeSet<String>, task: &str) -> bool {
    names.contains(task) || task.split_once(" : ").is_some_and(|(_, own)| names.contains(own))
}

fn foreseen(one: &Done) -> Foreseen {
    if one.items.is_empty() {
        return of_one(one.became, &one.said);
    }
    let of_item = |item: &Said| {
        let became = match (item.failed, item.skipped) {
            (true, _) => Became::Failed,
            (_, true) => Became::Skipped,
            _ => Became::Ok,
        };
        of_one(became, item)
    };
    let all: Vec<Foreseen> = one.items.iter().map(of_item).collect();
    match () {
        () if all.contains(&Foreseen::Change) => Foreseen::Change,
        () if all.contains(&Foreseen::Unknown) => Foreseen::Unknown,
        // Of more items than are told, the whole tells only what changes.
        () if one.more > 0 && one.said.changed => Foreseen::Change,
        () if one.more > 0 => Foreseen::Unknown,
        () => Foreseen::NoChange,
    }
}

fn of_one(became: Became, said: &Said) -> Foreseen {
    match became {
        Became::Ok if said.changed => Foreseen::Change,
        Became::Ok => Foreseen::NoChange,
        // A condition that doesn't hold is no matter of check mode.
        Became::Skipped if said.reason.is_some() => Foreseen::NoChange,
        Became::Skipped | Became::Failed | Became::Unreachable => Foreseen::Unknown,
    }
}

/// The item that tells most of a failure.
fn worst(one: &Done) -> &Said {
    let refused = one.items.iter().find(|item| item.refused);
    refused.or_else(|| one.items.iter().find(|item| item.failed)).unwrap_or(&one.said)
}

fn why_unknown(one: &Done) -> String {
    match one.became {
        _ if one.said.hidden => "no_log hides whether it would run".to_owned(),
        Became::Failed => format!("its check failed: {}", message(worst(one))),
        _ => {
            let skipped = one.items.iter().find(|item| item.skipped && item.reason.is_none());
            format!("skipped in check mode: {}", message(skipped.unwrap_or(&one.said)))
        }
    }
}

/// The beginning of a text, in one line of so many characters.
pub(crate) fn line(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// What a task says of itself, in one line.
fn message(said: &Said) -> String {
    if said.hidden {
        return "hidden by no_log".to_owned();
    }
    let texts = [&said.message, &said.stderr].into_iter().flatten();
    let whole = texts.map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let whole = whole.collect::<Vec<_>>().join(" ");
    // Frames are for terminals.
    let words = whole.split_whitespace().filter(|word| !word.bytes().all(|b| b == b'@'));
    let whole = words.collect::<Vec<_>>().join(" ");
    let mut short = line(&whole, MAX_MESSAGE);
    if short.len() < whole.len() {
        short.push('…');
    }
    match short.is_empty() {
        true => "it says nothing".to_owned(),
        false => short,
    }
}

/// What a task changes, before and after, where it tells.
fn change(path: String, one: &Done) -> FieldDrift {
    let told = || std::iter::once(&one.said).chain(&one.items).filter_map(|said| said.diff.as_ref());
    let mut sides = told().flat_map(|diff| match diff {
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    });
    let side = |name: &str, all: &mut dyn Iterator<Item = &Value>| -> Option<Value> {
        let parts: Vec<Value> = all
            .filter_map(|diff| diff.get(name).cloned())
            .filter(|part| !part.is_null())
            .collect();
        match &parts[..] {
            [] => None,
            [one] => Some(one.clone()),
            _ => Some(Value::Array(parts)),
        }
    };
    let all: Vec<&Value> = sides.by_ref().collect();
    let found = side("before", &mut all.iter().copied());
    let wanted = side("after", &mut all.iter().copied()).or_else(|| side("prepared", &mut all.iter().copied()));
    match (&found, &wanted) {
        (None, None) => FieldDrift {
            path,
            wanted: Some(json!("changed")),
            found: None,
        },
        _ => FieldDrift { path, wanted, found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(results: &[Value], end: Option<Value>) -> Told {
        let mut lines = vec![json!({ "event": "start" }), json!({ "event": "play", "name": "all" })];
        for (task, result) in results.iter().enumerate() {
            let name = result["name"].as_str().unwrap();
            lines.push(json!({ "event": "task", "task": task, "name": name, "action": "x" }));
            let host = result["host"].as_str().unwrap_or("web1");
            lines.push(json!({ "event": "begin", "task": task, "host": host }));
            let mut result = result.clone();
            result["event"] = json!("result");
            result["task"] = json!(task);
            result["host"] = json!(host);
            lines.push(result);
        }
        lines.extend(end.map(|hosts| json!({ "event": "end", "hosts": hosts, "outputs": { "at": "here", "other": 1 } })));
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        Told::of(format!("{}\n{{\"event\": \"ta", text.join("\n")).as_bytes())
    }

    #[test]
    fn a_look_knows_three_values() {
        let look = told(
            &[
                json!({ "name": "same", "became": "ok", "changed": false }),
                json!({ "name": "a/b", "became": "ok", "changed": true, "diff": [{ "before": "x", "after": "y" }, { "before": {}, "after": {} }] }),
                json!({ "name": "condition", "became": "skipped", "reason": "Conditional result was False" }),
                json!({ "name": "command", "became": "skipped", "message": "Command would have run" }),
                json!({ "name": "web : may", "became": "skipped" }),
                json!({ "name": "hidden", "became": "skipped", "hidden": true }),
                json!({ "name": "hidden change", "became": "ok", "hidden": true, "changed": true }),
                json!({ "name": "loop", "became": "skipped", "items": [{ "skipped": true, "reason": "no" }, { "skipped": true }] }),
                json!({ "name": "quiet loop", "became": "skipped", "items": [{ "skipped": true, "reason": "no" }] }),
                json!({ "name": "same", "became": "failed", "message": "no\nway", "ignored": true }),
                json!({ "name": "gather", "became": "unreachable", "host": "web2", "message": "no route" }),
            ],
            None,
        )
        .look(&["may".to_owned()].into());
        let paths = |all: &[FieldDrift]| all.iter().map(|one| one.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&look.changes), ["/web1/a~1b", "/web1/hidden change"]);
        assert_eq!(
            (&look.changes[0].found, &look.changes[0].wanted),
            (&Some(json!(["x", {}])), &Some(json!(["y", {}])))
        );
        assert_eq!((&look.changes[1].found, &look.changes[1].wanted), (&None, &Some(json!("changed"))));
        assert_eq!(
            paths(&look.unknown),
            ["/web1/command", "/web1/hidden", "/web1/loop", "/web1/same#2"]
        );
        assert_eq!(
            look.unknown[0].wanted,
            Some(json!("unknown: skipped in check mode: Command would have run"))
        );
        assert_eq!(look.unknown[3].wanted, Some(json!("unknown: its check failed: no way")));
        assert_eq!(look.away, ["web2 can't be reached: no route"]);
    }

    #[test]
    fn failures_are_told_host_by_host() {
        let results = [
            json!({ "name": "one", "became": "failed", "message": "broken", "host": "web1" }),
            json!({ "name": "two", "became": "ok", "host": "web2" }),
            json!({ "name": "gather", "became": "unreachable", "message": "no route", "host": "web3" }),
            json!({ "name": "ignored", "became": "failed", "ignored": true, "host": "web2" }),
        ];
        let hosts = json!({ "web1": { "failures": 1, "unreachable": 0 }, "web2": { "failures": 0, "unreachable": 0 }, "web3": { "failures": 0, "unreachable": 1 } });
        let run = told(&results, Some(hosts));
        assert_eq!(
            run.failure().unwrap(),
            "web1 at \"one\": broken; web3 can't be reached: no route (done on web2)"
        );
        assert_eq!(run.outputs(&["at".parse().unwrap()].into()).get("at"), Some(&json!("here")));
        let well = json!({ "web1": { "failures": 0, "unreachable": 0 } });
        let rescued = [json!({ "name": "one", "became": "failed", "message": "rescued" })];
        assert_eq!(told(&rescued, Some(well.clone())).failure(), None);
        let refused = [json!({ "name": "one", "became": "failed", "ignored": true, "refused": true, "message": "user is none" })];
        assert_eq!(told(&refused, Some(well)).failure().unwrap(), "web1 at \"one\": user is none");
        assert_eq!(
            told(&results[1..2], None).failure().unwrap(),
            "it was ended before it was done (web2: two (1 done))"
        );
        assert!(told(&[], Some(json!({}))).failure().unwrap().contains("none of its hosts"));
    }
}
