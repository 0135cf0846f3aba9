//! Holding a specification to what the member gives and to its own channel, before the daemon hears of it.

use std::path::Path;

use serde_json::Value;
use state::resource::Resource;
use state::size::Size;

use providers::Invalid;
use providers::fields::{self, Text};
use providers::refusal::{Refusal, denied, wrong};

use crate::config::{self, LibvirtConfig};
use crate::fragment::Fragment;
use crate::spec::{DomainSpec, Format, KINDS, KernelSpec, NetworkSpec, PoolSpec, Ready, SeedSpec, Typed, VolumeSpec};
use crate::xml;

/// The most disks, and the most interfaces, of one domain.
const MAX_DEVICES: usize = 16;
/// The longest words for a kernel, all together.
const MAX_ARGUMENTS: usize = 1_024;
/// The largest volume, in MiB: 64 TiB.
const MAX_CAPACITY_MIB: u64 = 64 * 1024 * 1024;

/// Reads what a resource asks for, and holds it to what the member gives, and to its channel where that is known. References may stand for
/// values.
pub(crate) fn read(config: &LibvirtConfig, resource: &Resource, channel: Option<&str>) -> Result<Typed, Invalid> {
    let read = match resource.kind.name() {
        "network" => fields::read(&resource.spec).map(Typed::Network),
        "pool" => fields::read(&resource.spec).map(Typed::Pool),
        "volume" => fields::read(&resource.spec).map(Typed::Volume),
        "cloud-init" => fields::read(&resource.spec).map(Typed::Seed),
        "domain" => fields::read(&resource.spec).map(Typed::Domain),
        _ => Err(format!(
            "{} is no kind of this provider: its kinds are {}",
            resource.kind,
            KINDS.join(", ")
        )),
    };
    let checked = read.map_err(Refusal::Wrong).and_then(|typed| {
        let checker = Checker { config, resource, channel };
        match &typed {
            Typed::Network(spec) => checker.network(spec),
            Typed::Pool(spec) => checker.pool(spec),
            Typed::Volume(spec) => checker.volume(spec),
            Typed::Seed(spec) => checker.own_pool(&spec.pool).and_then(|()| seed(spec)),
            Typed::Domain(spec) => checker.domain(spec),
        }
        .map(|()| typed)
    });
    checked.map_err(|refusal| refusal.of(&resource.name))
}

struct Checker<'a> {
    config: &'a LibvirtConfig,
    resource: &'a Resource,
    channel: Option<&'a str>,
}

impl Checker<'_> {
    fn network(&self, spec: &NetworkSpec) -> Result<(), Refusal> {
        if let Some(dhcp) = &spec.dhcp {
            let inside = [dhcp.from, dhcp.to].iter().all(|address| spec.address.has(*address));
            if !inside || dhcp.from > dhcp.to || (dhcp.from..=dhcp.to).contains(&spec.address.address()) {
                return Err(wrong(
                    "dhcp: from and to are two addresses of the network, in order, without the host's own",
                ));
            }
        }
        match self.config.networks.iter().any(|range| range.covers(spec.address)) {
            true => Ok(()),
            false => Err(denied(format!(
                "address: {} is in no range of libvirt.networks in charter.toml: add one to allow it",
                String::from(spec.address)
            ))),
        }
    }

    fn pool(&self, spec: &PoolSpec) -> Result<(), Refusal> {
        let path = Path::new(&spec.path);
        if !config::is_plain(path) || !xml::can_hold(&spec.path) {
            return Err(wrong(format!("path: {:?} is no absolute path without ..", spec.path)));
        }
        self.below("path", &spec.path)
    }

    /// Holds a volume's path to the folders for pools, and to what this channel has made: another one's data is not for its guests.
    fn own_volume(&self, field: &str, path: &str) -> Result<(), Refusal> {
        self.below(field, path)?;
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = [Format::Qcow2, Format::Raw]
            .into_iter()
            .find_map(|format| name.strip_suffix(format.word())?.strip_suffix('.'));
        match stem.is_some_and(|stem| self.is_own(stem)) {
            true => Ok(()),
            false => Err(denied(format!(
                "{field}: {path:?} is no volume of this channel's: refer to a libvirt/volume ({{\"$ref\": \"volume.outputs.path\"}})"
            ))),
        }
    }

    /// Holds a path to the folders for pools.
    fn below(&self, field: &str, path: &str) -> Result<(), Refusal> {
        if self.config.gives(Path::new(path)) && xml::can_hold(path) {
            return Ok(());
        }
        Err(denied(format!(
            "{field}: {path:?} is below none of libvirt.pools in charter.toml: add its folder to allow it"
        )))
    }

    /// Holds a pool to those that this channel has made.
    fn own_pool(&self, pool: &Text) -> Result<(), Refusal> {
        match pool {
            Text::Reference(_) => Ok(()),
            Text::Literal(name) if self.is_own(name) => Ok(()),
            Text::Literal(name) => Err(denied(format!(
                "pool: {name:?} is no pool of this channel's: refer to a libvirt/pool ({{\"$ref\": \"pool.outputs.name\"}})"
            ))),
        }
    }

    /// What the agreement counts it as.
    fn size(&self) -> Size {
        self.resource.size.as_deref().cloned().unwrap_or_default()
    }

    /// Whether a name is one that a resource of this channel has outside. A channel's name may hold dots, and a resource's doesn't.
    fn is_own(&self, name: &str) -> bool {
        let origin = self.resource.origin.as_deref().map(|origin| origin.channel.as_str());
        let own = |channel: &str| {
            let rest = name.strip_prefix(channel).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('.'))
        };
        xml::can_hold(name) && (self.channel.is_none_or(own) || origin.is_some_and(own))
    }

    fn volume(&self, spec: &VolumeSpec) -> Result<(), Refusal> {
        self.own_pool(&spec.pool)?;
        match (&spec.base, &spec.image, spec.capacity_mib) {
            (Some(_), Some(_), _) => return Err(wrong("base, image: a volume has one of the two, or none")),
            (Some(_), None, _) if spec.format != Format::Qcow2 => return Err(wrong("base: only a qcow2 volume can stand on another one")),
            (Some(_) | None, None, None) => return Err(wrong("capacity_mib is missing")),
            (_, _, Some(capacity)) if !(1..=MAX_CAPACITY_MIB).contains(&capacity) => {
                return Err(wrong(format!("capacity_mib: from 1 to {MAX_CAPACITY_MIB}")));
            }
            _ => {}
        }
        if let (Some(capacity), Some(declared)) = (spec.capacity_mib, self.size().storage_mib)
            && capacity > declared
        {
            return Err(wrong(format!(
                "capacity_mib: {capacity} is more than size.storage_mib ({declared}), by which the agreement counts"
            )));
        }
        if let Some(Text::Literal(base)) = &spec.base {
            self.own_volume("base", base)?;
        }
        let Some(image) = &spec.image else { return Ok(()) };
        let digits = image.sha256.len() == 64 && image.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return Err(wrong("image.sha256: 64 lower-case hexadecimal digits"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if image.file.is_empty() || image.file.starts_with('.') || !image.file.bytes().all(plain) {
            return Err(wrong(format!("image.file: {:?} is no plain file name", image.file)));
        }
        match self.config.images {
            Some(_) => Ok(()),
            None => Err(denied(
                "image: this member has no folder of images: name one with libvirt.images in charter.toml".to_owned(),
            )),
        }
    }

    fn domain(&self, spec: &DomainSpec) -> Result<(), Refusal> {
        let within = |field: &str, value: u64, most: u64| match (1..=most).contains(&value) {
            true => Ok(()),
            false if value == 0 => Err(wrong(format!("{field}: at least 1"))),
            false => Err(denied(format!(
                "{field}: {value} is more than this member gives one domain ({most}, libvirt.{field} in charter.toml)"
            ))),
        };
        within("cpus", u64::from(spec.cpus), u64::from(self.config.cpus))?;
        within("memory_mib", spec.memory_mib, self.config.memory_mib)?;
        // A guest gives back what it was given if it likes to: what it may have counts.
        within("cpus", u64::from(spec.most_cpus()), u64::from(self.config.cpus))?;
        within("memory_mib", spec.most_memory(), self.config.memory_mib)?;
        if spec.most_cpus() < spec.cpus || spec.most_memory() < spec.memory_mib {
            return Err(wrong("max_cpus, max_memory_mib: at least what it has"));
        }
        let size = self.size();
        if size.memory_mib.is_some_and(|declared| spec.most_memory() > declared) {
            return Err(wrong("memory_mib: it is more than size.memory_mib, by which the agreement counts"));
        }
        if size
            .cpu_millis
            .is_some_and(|declared| u64::from(spec.most_cpus()) * 1_000 > declared)
        {
            return Err(wrong("cpus: they are more than size.cpu_millis, by which the agreement counts"));
        }
        if spec.disks.len() > MAX_DEVICES || spec.interfaces.len() > MAX_DEVICES {
            return Err(wrong(format!("disks, interfaces: at most {MAX_DEVICES} each")));
        }
        if spec.stop_seconds > 3_600 {
            return Err(wrong("stop_seconds: at most 3600"));
        }
        for (field, path) in spec.paths() {
            if let Text::Literal(path) = path {
                self.own_volume(&field, path)?;
            }
        }
        if let Some(kernel) = &spec.kernel {
            arguments(kernel)?;
        }
        if let Some(xml) = &spec.xml {
            Fragment::read(xml).map_err(|why| wrong(format!("xml: {why}")))?;
        }
        for (index, interface) in spec.interfaces.iter().enumerate() {
            let at = format!("interfaces/{index}");
            if let Text::Literal(name) = &interface.network
                && !self.is_own(name)
                && !self.config.present_networks.contains(name)
            {
                return Err(denied(format!(
                    "{at}/network: {name:?} is no network of this channel's, nor one of libvirt.present_networks in charter.toml"
                )));
            }
            if interface.mac.as_ref().is_some_and(|mac| !is_mac(mac)) {
                return Err(wrong(format!(
                    "{at}/mac: six pairs of lower-case hexadecimal digits, of one interface (02:…, 52:54:00:…)"
                )));
            }
        }
        match &spec.ready {
            Some(Ready::Address(false)) => Err(wrong("ready: write {\"address\": true}, or leave it out")),
            Some(Ready::Port(0)) => Err(wrong("ready: a port is a number from 1 to 65535")),
            Some(Ready::Address(_) | Ready::Port(_)) if spec.interfaces.is_empty() => {
                Err(wrong("ready: it waits for an address, and there is no interface"))
            }
            Some(Ready::Serial(_)) if !self.config.is_local() => Err(denied(
                "ready: what a guest says is read in a file on the daemon's machine, and libvirt.uri names another one: wait for an address or a port"
                    .to_owned(),
            )),
            Some(_) if !spec.running => Err(wrong("ready: what doesn't run is never ready")),
            _ => Ok(()),
        }
    }
}

/// Words for a kernel: each is one, whatever stands in it.
fn arguments(kernel: &KernelSpec) -> Result<(), Refusal> {
    let mut length = 0;
    for (index, word) in kernel.arguments.iter().enumerate() {
        let Text::Literal(word) = word else { continue };
        length += word.len() + 1;
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong(format!("kernel/arguments/{index}: {word:?} is no word of plain characters")));
        }
    }
    match length > MAX_ARGUMENTS {
        true => Err(wrong(format!("kernel/arguments: at most {MAX_ARGUMENTS} characters"))),
        false => Ok(()),
    }
}

fn seed(spec: &SeedSpec) -> Result<(), Refusal> {
    match &spec.user_data {
        Value::String(_) | Value::Object(_) => Ok(()),
        _ => Err(wrong("user_data: a text, or what a #cloud-config holds")),
    }
}

/// Whether a text is an address of one interface, as libvirt writes it.
fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let digits = |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let first = pairs.first().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    pairs.len() == 6 && pairs.iter().all(digits) && first.is_some_and(|first| first & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(kind: &str, spec: &Value) -> String {
        let config: LibvirtConfig =
            serde_json::from_value(json!({ "pools": ["/srv/pools"], "networks": ["10.77.0.0/16"], "memory_mib": 4096 })).unwrap();
        let resource: Resource = serde_json::from_value(json!({
            "name": "web", "kind": format!("libvirt/{kind}"), "owner": "city", "spec": spec, "size": { "memory_mib": 2048, "storage_mib": 100 },
        }))
        .unwrap();
        match read(&config, &resource, Some("ch")) {
            Ok(_) => String::new(),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (kind, spec, words) in [
            ("network", json!({ "address": "10.78.0.1/24" }), "libvirt.networks"),
            ("network", json!({ "address": "10.77.0.1" }), "no IPv4 address with a length"),
            (
                "network",
                json!({ "address": "10.77.0.1/24", "dhcp": { "from": "10.77.1.2", "to": "10.77.1.9" } }),
                "two addresses of the network",
            ),
            ("pool", json!({ "path": "/srv/pools/../etc" }), "without .."),
            ("pool", json!({ "path": "/etc" }), "libvirt.pools"),
            (
                "volume",
                json!({ "pool": "default", "capacity_mib": 1 }),
                "no pool of this channel's",
            ),
            ("volume", json!({ "pool": "ch.data" }), "capacity_mib is missing"),
            (
                "volume",
                json!({ "pool": "ch.data", "capacity_mib": 101 }),
                "by which the agreement counts",
            ),
            (
                "volume",
                json!({ "pool": "ch.data", "capacity_mib": 1, "base": "/srv/pools/../x" }),
                "libvirt.pools",
            ),
            (
                "volume",
                json!({ "pool": "ch.data", "image": { "file": "../x", "sha256": "0".repeat(64) } }),
                "no plain file name",
            ),
            (
                "volume",
                json!({ "pool": "ch.data", "image": { "file": "x.img", "sha256": "00" } }),
                "64 lower-case",
            ),
            (
                "volume",
                json!({ "pool": "ch.data", "image": { "file": "x.img", "sha256": "0".repeat(64) } }),
                "libvirt.images",
            ),
            ("domain", json!({ "cpus": 1, "memory_mib": 3000 }), "by which the agreement counts"),
            ("domain", json!({ "cpus": 1, "memory_mib": 8192 }), "more than this member gives"),
            ("domain", json!({ "cpus": 0, "memory_mib": 64 }), "cpus: at least 1"),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "disks": [{ "volume": "/etc/shadow" }] }),
                "disks/0/volume: \"/etc/shadow\"",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "disks": [{ "volume": "/srv/pools/other.data.raw" }] }),
                "no volume of this channel's",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "disks": [{ "volume": "/srv/pools/ch.other.data.raw" }] }),
                "no volume of this channel's",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "interfaces": [{ "network": "default" }] }),
                "libvirt.present_networks",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "interfaces": [{ "network": "ch.net", "mac": "01:00:00:00:00:01" }] }),
                "of one interface",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "ready": { "port": 80 } }),
                "there is no interface",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "max_memory_mib": 3000 }),
                "by which the agreement counts",
            ),
            (
                "domain",
                json!({ "cpus": 2, "max_cpus": 1, "memory_mib": 64 }),
                "at least what it has",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "kernel": { "image": "/boot/vmlinuz" } }),
                "kernel/image: \"/boot/vmlinuz\"",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "kernel": { "image": "/srv/pools/ch.kernel.raw", "arguments": ["a b"] } }),
                "no word of plain characters",
            ),
            (
                "domain",
                json!({ "cpus": 1, "memory_mib": 64, "xml": "<domain><devices><hostdev/></devices></domain>" }),
                "xml: devices/hostdev may not stand",
            ),
            ("cloud-init", json!({ "pool": "ch.data", "user_data": 5 }), "user_data"),
        ] {
            let said = refused(kind, &spec);
            assert!(said.contains(words), "{spec}: {said}");
        }
        let good = json!({
            "cpus": 1, "memory_mib": 64, "disks": [{ "volume": { "$ref": "disk.outputs.path" } }, { "volume": "/srv/pools/ch.data.raw" }],
            "interfaces": [{ "network": "ch.net" }], "ready": { "serial": "ready" }, "max_cpus": 2, "xml": "<domain><title>a b</title></domain>",
            "kernel": { "image": "/srv/pools/ch.kernel.raw", "arguments": ["console=ttyS0", { "$ref": "other.outputs.address" }] },
        });
        assert_eq!(refused("domain", &good), "");
    }
}
