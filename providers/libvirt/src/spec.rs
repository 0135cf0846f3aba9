//! The specifications of `libvirt/network`, `pool`, `volume`, `cloud-init` and `domain`, as an order writes them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use state::ids::Kind;
use state::resource::Origin;

use providers::fields::Text;

use crate::config::Range;
use crate::names;

/// What a network leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Forward {
    /// Its own machines and the host.
    #[default]
    Isolated,
    /// What the host leads to, under the host's address.
    Nat,
}

/// Addresses that are handed out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DhcpSpec {
    /// The first one.
    #[schemars(with = "String")]
    pub(crate) from: Ipv4Addr,
    /// The last one.
    #[schemars(with = "String")]
    pub(crate) to: Ipv4Addr,
}

/// A network on the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkSpec {
    /// The host's address in it and its length: `10.77.1.1/24`.
    #[schemars(with = "String")]
    pub(crate) address: Range,
    /// What it leads to.
    #[serde(default)]
    pub(crate) forward: Forward,
    /// The addresses that it hands out; none: it hands out none.
    #[serde(default)]
    pub(crate) dhcp: Option<DhcpSpec>,
}

/// A folder of volumes on the daemon's machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolSpec {
    /// Its absolute path, below one that the member gives.
    pub(crate) path: String,
}

/// How a volume is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// QEMU's own: it takes as much of the disk as is used.
    #[default]
    Qcow2,
    /// As it is.
    Raw,
}

impl Format {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }

    /// That of a volume of ours, as its name tells.
    pub(crate) fn of(path: &str) -> Self {
        match path.ends_with(".qcow2") {
            true => Format::Qcow2,
            false => Format::Raw,
        }
    }
}

/// A file that a volume is made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageSpec {
    /// Its name in the member's folder of images.
    pub(crate) file: String,
    /// The SHA-256 of its content, as 64 hexadecimal digits.
    pub(crate) sha256: String,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeSpec {
    /// The pool that it is in: the name that a libvirt/pool gives.
    pub(crate) pool: Text,
    /// How it is laid out.
    #[serde(default)]
    pub(crate) format: Format,
    /// Its size for who uses it, in MiB; a volume made from an image needs none.
    #[serde(default)]
    pub(crate) capacity_mib: Option<u64>,
    /// A volume that it shows where nothing was written to it: the path that a libvirt/volume gives. It has to be qcow2.
    #[serde(default)]
    pub(crate) base: Option<Text>,
    /// What is in it at first.
    #[serde(default)]
    pub(crate) image: Option<ImageSpec>,
}

/// A small disk that cloud-init reads at a guest's first start (its NoCloud source).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeedSpec {
    /// The pool that it is in.
    pub(crate) pool: Text,
    /// The user data: a text as it is, or what a `#cloud-config` holds. `{"$secret": "name"}` may stand for any text in it.
    pub(crate) user_data: Value,
    /// The meta data. Without it: the resource's name as the host's name.
    #[serde(default)]
    pub(crate) meta_data: Option<Map<String, Value>>,
    /// The network configuration.
    #[serde(default)]
    pub(crate) network_config: Option<Map<String, Value>>,
}

/// What a domain runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Virtualization {
    /// The processor's own support.
    #[default]
    Kvm,
    /// That where there is, else emulation.
    Any,
    /// Emulation, many times slower.
    Emulated,
}

/// The kind of computer that a guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Machine {
    /// With PCI Express.
    #[default]
    Q35,
    /// With PCI.
    Pc,
}

impl Machine {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Machine::Q35 => "q35",
            Machine::Pc => "pc",
        }
    }

    /// What the names of its versions begin with.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Machine::Q35 => "pc-q35",
            Machine::Pc => "pc-i440fx",
        }
    }
}

/// What starts a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Firmware {
    /// A BIOS.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
}

/// What a guest is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Boot {
    /// A disk.
    Hd,
    /// A CD-ROM.
    Cdrom,
    /// The network.
    Network,
}

impl Boot {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Boot::Hd => "hd",
            Boot::Cdrom => "cdrom",
            Boot::Network => "network",
        }
    }
}

/// What a disk is to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DiskKind {
    /// A disk.
    #[default]
    Disk,
    /// A CD-ROM, which can't be written.
    Cdrom,
}

/// A disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskSpec {
    /// The path that a libvirt/volume or a libvirt/cloud-init gives.
    pub(crate) volume: Text,
    /// What it is to the guest.
    #[serde(default)]
    pub(crate) kind: DiskKind,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub(crate) read_only: bool,
}

/// An interface of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InterfaceSpec {
    /// The name that a libvirt/network gives, or that of a network that the member lets be used.
    pub(crate) network: Text,
    /// Its address. Without it: one that is a function of the resource.
    #[serde(default)]
    pub(crate) mac: Option<String>,
}

/// What a guest is started with without its firmware's search for it: an operating system's kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KernelSpec {
    /// The path that a libvirt/volume (raw) with the kernel in it gives.
    pub(crate) image: Text,
    /// The path that a libvirt/volume (raw) with the first file system in it gives.
    #[serde(default)]
    pub(crate) initrd: Option<Text>,
    /// What the kernel is told, word by word.
    #[serde(default)]
    pub(crate) arguments: Vec<Text>,
}

/// Whether a running guest may be stopped for a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Restart {
    /// No: what can't be changed while it runs waits for its next start.
    #[default]
    Never,
    /// Yes.
    Allowed,
}

/// When a domain counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ready {
    /// When it runs and has an address.
    Address(bool),
    /// When this port of its first address takes connections.
    Port(u16),
    /// When its first serial port has said this.
    Serial(String),
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DomainSpec {
    /// How many virtual CPUs it has.
    pub(crate) cpus: u32,
    /// How many it can be given while it runs; it counts as many. Without it: as many as it has.
    #[serde(default)]
    pub(crate) max_cpus: Option<u32>,
    /// Its memory, in MiB.
    pub(crate) memory_mib: u64,
    /// How much it can be given while it runs, in MiB; it counts as much. Without it: as much as it has.
    #[serde(default)]
    pub(crate) max_memory_mib: Option<u64>,
    /// What it runs on.
    #[serde(default)]
    pub(crate) virtualization: Virtualization,
    /// The kind of computer that the guest sees.
    #[serde(default)]
    pub(crate) machine: Machine,
    /// What starts it.
    #[serde(default)]
    pub(crate) firmware: Firmware,
    /// A kernel that is started at once. Without it: what is found by `boot`.
    #[serde(default)]
    pub(crate) kernel: Option<KernelSpec>,
    /// What it is started from, in this order.
    #[serde(default = "boot")]
    pub(crate) boot: Vec<Boot>,
    /// Its disks, in this order.
    #[serde(default)]
    pub(crate) disks: Vec<DiskSpec>,
    /// Its interfaces, in this order.
    #[serde(default)]
    pub(crate) interfaces: Vec<InterfaceSpec>,
    /// Whether it starts with its host.
    #[serde(default = "yes")]
    pub(crate) autostart: bool,
    /// Whether it runs.
    #[serde(default = "yes")]
    pub(crate) running: bool,
    /// Whether it may be stopped for a change.
    #[serde(default)]
    pub(crate) restart: Restart,
    /// How long it may take to stop by itself, in seconds.
    #[serde(default = "stop_seconds")]
    #[schemars(range(max = 3_600))]
    pub(crate) stop_seconds: u64,
    /// When it counts as ready. Without it: as soon as it runs.
    #[serde(default)]
    pub(crate) ready: Option<Ready>,
    /// More of its definition, as a `<domain>` of libvirt's XML: of what stays within the guest.
    #[serde(default)]
    pub(crate) xml: Option<String>,
}

fn boot() -> Vec<Boot> {
    vec![Boot::Hd]
}

fn yes() -> bool {
    true
}

fn stop_seconds() -> u64 {
    60
}

/// A specification of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Network(NetworkSpec),
    Pool(PoolSpec),
    Volume(VolumeSpec),
    Seed(SeedSpec),
    Domain(DomainSpec),
}

pub(crate) fn kind(name: &str) -> Kind {
    Kind::new(format!("libvirt/{name}")).expect("a literal kind of this crate is valid")
}

/// The names of the kinds.
pub(crate) const KINDS: [&str; 5] = ["cloud-init", "domain", "network", "pool", "volume"];

/// The JSON schemas of the kinds' specifications.
pub(crate) fn schemas() -> BTreeMap<Kind, Value> {
    BTreeMap::from([
        (kind("network"), schemars::schema_for!(NetworkSpec).to_value()),
        (kind("pool"), schemars::schema_for!(PoolSpec).to_value()),
        (kind("volume"), schemars::schema_for!(VolumeSpec).to_value()),
        (kind("cloud-init"), schemars::schema_for!(SeedSpec).to_value()),
        (kind("domain"), schemars::schema_for!(DomainSpec).to_value()),
    ])
}

impl DomainSpec {
    /// The most virtual CPUs that it can have while it runs.
    pub(crate) fn most_cpus(&self) -> u32 {
        self.max_cpus.unwrap_or(self.cpus)
    }

    /// The most memory that it can have while it runs, in MiB.
    pub(crate) fn most_memory(&self) -> u64 {
        self.max_memory_mib.unwrap_or(self.memory_mib)
    }

    /// Everything in it that may be a reference.
    pub(crate) fn texts_mut(&mut self) -> impl Iterator<Item = &mut Text> {
        let disks = self.disks.iter_mut().map(|disk| &mut disk.volume);
        let interfaces = self.interfaces.iter_mut().map(|interface| &mut interface.network);
        let kernel = self.kernel.iter_mut().flat_map(|kernel| {
            let paths = std::iter::once(&mut kernel.image).chain(&mut kernel.initrd);
            paths.chain(&mut kernel.arguments)
        });
        disks.chain(interfaces).chain(kernel)
    }

    /// Every path of a volume in it, with the field that it stands in.
    pub(crate) fn paths(&self) -> Vec<(String, &Text)> {
        let disks = self.disks.iter().enumerate();
        let mut all: Vec<(String, &Text)> = disks.map(|(index, disk)| (format!("disks/{index}/volume"), &disk.volume)).collect();
        if let Some(kernel) = &self.kernel {
            all.push(("kernel/image".to_owned(), &kernel.image));
            all.extend(kernel.initrd.as_ref().map(|initrd| ("kernel/initrd".to_owned(), initrd)));
        }
        all
    }
}

impl InterfaceSpec {
    /// Its address.
    pub(crate) fn address(&self, origin: &Origin, index: usize) -> String {
        self.mac.clone().unwrap_or_else(|| names::mac(origin, index))
    }
}
