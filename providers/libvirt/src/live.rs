//! What of a change a guest can be given while it runs, and what has to wait for its next start.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use state::observation::FieldDrift;

use crate::domain::Domain;
use crate::spec::DiskKind;
use crate::wire::Ask;
use crate::xml::Element;

/// How long a guest may take to let go of a device, or to give back memory.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a running guest differs from its definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// What it can be given while it runs, and how.
    pub(crate) hot: Vec<(FieldDrift, Ask)>,
    /// What it has from its next start on.
    pub(crate) cold: Vec<FieldDrift>,
}

impl Live {
    pub(crate) fn new(wanted: &Domain<'_>, name: &str, active: &Element) -> Self {
        let mut live = Live::default();
        for field in wanted.differences_running(active) {
            match step(wanted, name, active, &field.path) {
                Some(ask) => live.hot.push((field, ask)),
                None => live.cold.push(field),
            }
        }
        live
    }

    /// The paths of what it can be given while it runs.
    fn paths(&self) -> Vec<String> {
        self.hot.iter().map(|(field, _)| field.path.clone()).collect()
    }
}

/// How one field is changed while the guest runs.
fn step(wanted: &Domain<'_>, name: &str, active: &Element, path: &str) -> Option<Ask> {
    let name = name.to_owned();
    let device = |element: &Element| element.to_xml();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        ["memory_mib"] => wanted.memory_within(active).map(|kib| Ask::SetMemory { name, kib }),
        ["cpus"] => wanted.cpus_within(active).map(|count| Ask::SetCpus { name, count }),
        ["disks", key] => match key.parse::<usize>() {
            // One that is missing.
            Ok(index) => wanted
                .disk(index, DiskKind::Disk)
                .map(|disk| Ask::AttachDevice { name, xml: device(&disk) }),
            Err(_) => found(active, "disk", |disk| target(disk) == Some(key) && bus(disk) == Some("virtio"))
                .map(|disk| Ask::DetachDevice { name, xml: device(disk) }),
        },
        // Another disc in the same drive.
        ["disks", index, "volume"] => wanted
            .disk(index.parse().ok()?, DiskKind::Cdrom)
            .map(|disk| Ask::UpdateDevice { name, xml: device(&disk) }),
        ["interfaces", key] => match key.parse::<usize>() {
            Ok(index) => wanted.interface(index).map(|interface| Ask::AttachDevice {
                name,
                xml: device(&interface),
            }),
            Err(_) => {
                found(active, "interface", |interface| interface.of("mac", "address") == Some(key)).map(|interface| Ask::DetachDevice {
                    name,
                    xml: device(interface),
                })
            }
        },
        ["interfaces", index, "network"] => {
            let interface = wanted.interface(index.parse().ok()?)?;
            let mac = interface.child("mac").cloned();
            // Everything else has to be as it runs: only where it leads is another place.
            let mut running = found(active, "interface", |interface| interface.child("mac") == mac.as_ref())?.clone();
            running.put(interface.child("source")?.clone());
            Some(Ask::UpdateDevice {
                name,
                xml: device(&running),
            })
        }
        _ => None,
    }
}

fn found<'a>(active: &'a Element, kind: &'a str, is_it: impl Fn(&Element) -> bool) -> Option<&'a Element> {
    active.child("devices")?.all(kind).find(|device| is_it(device))
}

fn target(disk: &Element) -> Option<&str> {
    disk.child("target")?.attribute("dev")
}

fn bus(disk: &Element) -> Option<&str> {
    disk.child("target")?.attribute("bus")
}

/// What guests were asked for while they run.
#[derive(Debug, Default)]
pub(crate) struct Asked(Mutex<BTreeMap<String, Request>>);

#[derive(Clone, Debug)]
struct Request {
    paths: Vec<String>,
    since: Instant,
    /// Why it can't be had.
    refused: Option<String>,
}

/// How far it is with what a guest is to be given while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody has asked for it yet.
    New,
    /// The guest was asked.
    Asked,
    /// It was refused, or the guest doesn't do it: in words.
    Failed(String),
}

impl Asked {
    /// How far it is with a difference of a guest's.
    pub(crate) fn progress(&self, name: &str, live: &Live) -> Progress {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name).filter(|request| request.paths == live.paths()) {
            None => Progress::New,
            Some(Request { refused: Some(why), .. }) => Progress::Failed(why.clone()),
            Some(request) if request.since.elapsed() > PATIENCE => Progress::Failed("the guest doesn't do it".to_owned()),
            Some(_) => Progress::Asked,
        }
    }

    /// Keeps that a guest was asked for a difference, and what came of it.
    pub(crate) fn keep(&self, name: &str, live: &Live, refused: Option<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let request = Request {
            paths: live.paths(),
            since: Instant::now(),
            refused,
        };
        all.insert(name.to_owned(), request);
    }

    /// Forgets what a guest was asked for: another one is running now, or none.
    pub(crate) fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
