//! What Charter asks the process that speaks to the daemon, and what that answers: one line of JSON each way for each call.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Looks at everything at once.
    Look,
    /// Looks at what has a name, and at a pool: nothing else is seen.
    LookAt {
        name: String,
        pool: Option<String>,
    },
    DefineDomain {
        xml: String,
    },
    StartDomain(String),
    /// Asks the guest to stop.
    ShutDomain(String),
    /// Stops the guest.
    DestroyDomain(String),
    /// With its firmware's variables, saved state and snapshots.
    UndefineDomain(String),
    AutostartDomain {
        name: String,
        on: bool,
    },
    /// Gives a device to a running guest.
    AttachDevice {
        name: String,
        xml: String,
    },
    /// Asks a running guest to let go of a device.
    DetachDevice {
        name: String,
        xml: String,
    },
    /// Changes what a device of a running guest stands for.
    UpdateDevice {
        name: String,
        xml: String,
    },
    /// Asks a running guest to use so much of its memory.
    SetMemory {
        name: String,
        kib: u64,
    },
    /// Gives so many virtual CPUs to a running guest.
    SetCpus {
        name: String,
        count: u32,
    },
    /// Makes a volume larger that a running guest has.
    ResizeDisk {
        name: String,
        path: String,
        bytes: u64,
    },
    DefineNetwork {
        xml: String,
    },
    /// Changes the addresses that a running network hands out: what is no longer, and what is.
    UpdateRange {
        name: String,
        old: Option<String>,
        new: Option<String>,
    },
    StartNetwork(String),
    StopNetwork(String),
    UndefineNetwork(String),
    DefinePool {
        xml: String,
    },
    /// Makes its folder, starts it, and has it start with the host.
    StartPool(String),
    /// Stops it and forgets it. Its folder goes when it is empty.
    DropPool(String),
    CreateVolume {
        pool: String,
        xml: String,
    },
    UploadVolume {
        pool: String,
        name: String,
        from: PathBuf,
    },
    ResizeVolume {
        pool: String,
        name: String,
        bytes: u64,
    },
    DeleteVolume {
        pool: String,
        name: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Seen(Box<Seen>),
    /// It goes on: so many bytes are sent.
    Sent(u64),
    Done,
    /// What was named is not there.
    Missing,
    /// The daemon refused, with its words.
    Refused(String),
}

/// Everything that the daemon has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) domains: Vec<SeenDomain>,
    pub(crate) networks: Vec<SeenNetwork>,
    pub(crate) pools: Vec<SeenPool>,
    /// Whether the processor's own support is there.
    pub(crate) kvm: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenDomain {
    pub(crate) name: String,
    /// How it is defined.
    pub(crate) inactive: String,
    /// How it runs, if it does.
    pub(crate) active: Option<String>,
    pub(crate) autostart: bool,
    /// The addresses of its interfaces, as far as they are known.
    pub(crate) addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenNetwork {
    pub(crate) name: String,
    /// How it is defined.
    pub(crate) inactive: String,
    /// How it runs, if it does.
    pub(crate) active: Option<String>,
    pub(crate) autostart: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenPool {
    pub(crate) name: String,
    pub(crate) xml: String,
    pub(crate) active: bool,
    pub(crate) autostart: bool,
    /// Its volumes; nothing is known of those of one that isn't active.
    pub(crate) volumes: Vec<SeenVolume>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenVolume {
    pub(crate) name: String,
    pub(crate) xml: String,
}
