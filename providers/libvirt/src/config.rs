//! What the member itself allows on its hypervisor: `[libvirt]` of `charter.toml`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use state::ids::SecretName;

use providers::fields;
use providers::secrets::{self, SecretError};
use state::resource::Resource;

use crate::spec::{NetworkSpec, PoolSpec};

/// A member's hypervisor, and what orders may make there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtConfig {
    /// The libvirt daemon.
    #[serde(default = "uri")]
    pub uri: String,
    /// The folders below which orders may make pools, on the daemon's machine.
    pub pools: BTreeSet<PathBuf>,
    /// The IPv4 ranges that orders may make networks in, such as `10.77.0.0/16`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<Range>,
    /// Networks that are there already and that orders may use.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub present_networks: BTreeSet<String>,
    /// The folder of images that volumes may be made from, on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// A folder with one file for each secret, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// The most memory that one domain may have, in MiB.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
    /// The most virtual CPUs that one domain may have.
    #[serde(default = "cpus")]
    pub cpus: u32,
    /// The folder that what domains say on their first serial port is written to, on the daemon's machine.
    #[serde(default = "logs")]
    pub logs: PathBuf,
    /// The folder in which Charter remembers what it has made.
    #[serde(default = "records")]
    pub records: PathBuf,
    /// The folders in which a daemon on this machine keeps definitions, and what runs: what is written there wakes Charter.
    #[serde(default = "watch")]
    pub watch: BTreeSet<PathBuf>,
    /// How long one call may take, in seconds.
    #[serde(default = "deadline_seconds")]
    pub deadline_seconds: u64,
}

fn uri() -> String {
    "qemu:///system".into()
}

fn memory_mib() -> u64 {
    16 * 1024
}

fn cpus() -> u32 {
    16
}

fn logs() -> PathBuf {
    "/var/log/libvirt/qemu".into()
}

fn records() -> PathBuf {
    "libvirt".into()
}

fn watch() -> BTreeSet<PathBuf> {
    ["/etc/libvirt", "/run/libvirt/network", "/run/libvirt/qemu"]
        .map(PathBuf::from)
        .into()
}

fn deadline_seconds() -> u64 {
    20
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    address: Ipv4Addr,
    bits: u8,
}

impl Range {
    /// Its first address, or the one that it was written with.
    pub(crate) fn address(self) -> Ipv4Addr {
        self.address
    }

    pub(crate) fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask())
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(u32::from(32 - self.bits)).unwrap_or(0)
    }

    pub(crate) fn has(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address) & self.mask()
    }

    /// Whether all of another range is in it.
    pub(crate) fn covers(self, other: Range) -> bool {
        self.bits <= other.bits && self.has(other.address)
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no IPv4 address with a length, such as 10.77.0.1/24");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let bits: u8 = bits.parse().ok().filter(|bits| (8..=30).contains(bits)).ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        Ok(Self { address, bits })
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        format!("{}/{}", range.address, range.bits)
    }
}

/// Whether a path is absolute and goes nowhere but down.
pub(crate) fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

impl LibvirtConfig {
    /// A daemon, and the folders below which orders may make pools.
    pub fn new(uri: impl Into<String>, pools: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            uri: uri.into(),
            pools: pools.into_iter().collect(),
            networks: BTreeSet::new(),
            present_networks: BTreeSet::new(),
            images: None,
            secrets: None,
            memory_mib: memory_mib(),
            cpus: cpus(),
            logs: logs(),
            records: records(),
            watch: watch(),
            deadline_seconds: deadline_seconds(),
        }
    }

    /// Allows what a resource asks for, as an example's own member does.
    pub fn give(&mut self, resource: &Resource) {
        match resource.kind.name() {
            "pool" => {
                let spec: Result<PoolSpec, _> = fields::read(&resource.spec);
                self.pools.extend(spec.map(|spec| PathBuf::from(spec.path)).ok());
            }
            "network" => {
                let spec: Result<NetworkSpec, _> = fields::read(&resource.spec);
                self.networks.extend(spec.map(|spec| spec.address).ok());
            }
            _ => {}
        }
    }

    /// Makes its paths on this machine those below a folder, where they are relative.
    pub fn resolve(&mut self, folder: &Path) {
        self.records = folder.join(&self.records);
        for path in [&mut self.images, &mut self.secrets].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Checks what can be checked without the daemon; the text names the setting.
    pub fn check(&self) -> Result<(), String> {
        for (name, path) in self.pools.iter().map(|path| ("pools", path)).chain([("logs", &self.logs)]) {
            if !is_plain(path) {
                return Err(format!("libvirt.{name}: {} is no absolute path without ..", path.display()));
            }
        }
        if !(1..=600).contains(&self.deadline_seconds) {
            return Err("libvirt.deadline_seconds has to be between 1 and 600".into());
        }
        if self.uri.is_empty() || self.uri.contains(char::is_whitespace) {
            return Err("libvirt.uri is empty or holds a space: such as qemu:///system".into());
        }
        Ok(())
    }

    /// Whether the daemon is on this machine: its URI names no other.
    pub(crate) fn is_local(&self) -> bool {
        let rest = self.uri.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?']).next().is_some_and(str::is_empty)
    }

    /// The folders that can be watched.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        self.watch.iter().filter(|_| self.is_local()).cloned().collect()
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// The file that the first serial port of a domain is written to, on the daemon's machine.
    pub(crate) fn serial_log(&self, external: &str) -> PathBuf {
        self.logs.join(format!("{external}-serial0.log"))
    }

    /// Whether a path on the daemon's machine is below a folder for pools.
    pub(crate) fn gives(&self, path: &Path) -> bool {
        is_plain(path) && self.pools.iter().any(|pool| path.starts_with(pool))
    }

    pub(crate) fn secret(&self, name: &SecretName) -> Result<String, SecretError> {
        secrets::read("libvirt", self.secrets.as_deref(), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_ranges_are_given_as_written() {
        let mut config = LibvirtConfig::new("qemu:///system", ["/srv/pools".into()]);
        assert!(config.check().is_ok());
        for (path, given) in [
            ("/srv/pools/a", true),
            ("/srv/pools/../etc", false),
            ("/srv/poolsx", false),
            ("srv/pools/a", false),
        ] {
            assert_eq!(config.gives(Path::new(path)), given, "{path}");
        }
        for (uri, local) in [
            ("qemu:///system", true),
            ("qemu:///system?socket=/run/a", true),
            ("qemu+ssh://root@host/system", false),
            ("qemu+tls://host:16514/system?no_verify=1", false),
        ] {
            config.uri = uri.to_owned();
            assert_eq!(config.is_local(), local, "{uri}");
        }
        config.pools.insert("relative".into());
        assert!(config.check().is_err());
        let range = |text: &str| Range::try_from(text.to_owned());
        let all = range("10.77.0.0/16").unwrap();
        assert!(all.covers(range("10.77.3.1/24").unwrap()) && !all.covers(range("10.78.0.1/24").unwrap()));
        assert!(!range("10.77.3.1/24").unwrap().covers(all));
        assert_eq!(range("10.77.3.1/24").unwrap().netmask(), Ipv4Addr::new(255, 255, 255, 0));
        for bad in ["", "10.0.0.1", "10.0.0.1/31", "10.0.0/24", "::1/64"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
