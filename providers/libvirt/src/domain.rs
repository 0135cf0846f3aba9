//! Domains: what is defined for one, and how one that is there differs.

use serde_json::{Value, json};
use state::observation::FieldDrift;
use state::resource::Origin;

use providers::fields::literal;

use crate::compare;
use crate::config::LibvirtConfig;
use crate::label::{Label, relabel};
use crate::names;
use crate::spec::{DiskKind, DomainSpec, Firmware, Format, Machine, Virtualization};
use crate::xml::Element;

const KIB_PER_MIB: u64 = 1024;

/// A disk with its values known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Disk {
    /// The device that the guest sees.
    device: String,
    path: String,
    kind: DiskKind,
    read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    mac: String,
    network: String,
}

/// What a domain is to be, with all values known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain<'a> {
    spec: &'a DomainSpec,
    disks: Vec<Disk>,
    interfaces: Vec<Interface>,
    /// The file that its first serial port is written to.
    log: String,
}

impl<'a> Domain<'a> {
    pub(crate) fn new(config: &LibvirtConfig, origin: &Origin, spec: &'a DomainSpec) -> Result<Self, String> {
        let (mut plain, mut cdroms) = (0, 0);
        let mut disks = Vec::new();
        for (index, disk) in spec.disks.iter().enumerate() {
            let device = match disk.kind {
                DiskKind::Disk => named("vd", &mut plain),
                DiskKind::Cdrom if spec.machine == Machine::Pc => named("hd", &mut cdroms),
                DiskKind::Cdrom => named("sd", &mut cdroms),
            };
            disks.push(Disk {
                device,
                path: literal(&format!("disks/{index}/volume"), &disk.volume)?.to_owned(),
                kind: disk.kind,
                read_only: disk.read_only || disk.kind == DiskKind::Cdrom,
            });
        }
        let mut interfaces = Vec::new();
        for (index, interface) in spec.interfaces.iter().enumerate() {
            interfaces.push(Interface {
                mac: interface.address(origin, index),
                network: literal(&format!("interfaces/{index}/network"), &interface.network)?.to_owned(),
            });
        }
        Ok(Self {
            spec,
            disks,
            interfaces,
            log: config.serial_log(&names::external(origin)).display().to_string(),
        })
    }

    /// The addresses of its interfaces.
    pub(crate) fn macs(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().map(|interface| interface.mac.as_str())
    }

    /// What is defined. Of one that is there, everything is kept that nobody asks for otherwise: what the daemon has filled in would be
    /// other things the next time.
    pub(crate) fn definition(&self, origin: &Origin, label: &Label, kvm: bool, live: Option<&Element>) -> Element {
        let spec = self.spec;
        let accelerated = match spec.virtualization {
            Virtualization::Kvm => true,
            Virtualization::Any => kvm,
            Virtualization::Emulated => false,
        };
        let mut domain = match live {
            Some(live) => live.clone(),
            None => self.first(origin, accelerated),
        };
        domain.attributes.retain(|(name, _)| name != "type");
        domain
            .attributes
            .push(("type".into(), if accelerated { "kvm" } else { "qemu" }.into()));
        if !accelerated {
            // A processor of the host's can't be emulated.
            domain.remove("cpu");
        }
        relabel(&mut domain, Some(label));
        for name in ["memory", "currentMemory"] {
            domain.put(Element::new(name).with("unit", "MiB").saying(spec.memory_mib));
        }
        domain.put(Element::new("vcpu").with("placement", "static").saying(spec.cpus));
        domain.put(self.os(live));
        let mut devices = domain.child("devices").cloned().unwrap_or_else(|| Element::new("devices"));
        let before = devices.clone();
        devices
            .children
            .retain(|child| !matches!(child.name.as_str(), "disk" | "interface" | "serial" | "console"));
        let kept = |kind: &str, same: &dyn Fn(&Element) -> bool| {
            let device = before.all(kind).find(|device| same(device));
            let address = device.and_then(|device| device.child("address")).cloned();
            address.into_iter().collect::<Vec<_>>()
        };
        for disk in &self.disks {
            let same = |device: &Element| device.child("target").and_then(|target| target.attribute("dev")) == Some(&disk.device);
            devices.children.push(disk.definition().holding_all(kept("disk", &same)));
        }
        for interface in &self.interfaces {
            let same = |device: &Element| device.child("mac").and_then(|mac| mac.attribute("address")) == Some(&interface.mac);
            devices.children.push(interface.definition().holding_all(kept("interface", &same)));
        }
        devices.children.push(
            Element::new("serial")
                .with("type", "pty")
                .holding(Element::new("log").with("file", &self.log).with("append", "off"))
                .holding(Element::new("target").with("port", "0")),
        );
        domain.put(devices);
        domain
    }

    /// What a domain has that wasn't there before.
    fn first(&self, origin: &Origin, accelerated: bool) -> Element {
        let domain = Element::new("domain")
            .holding(Element::new("name").saying(names::external(origin)))
            .holding(Element::new("uuid").saying(names::uuid("domain", origin)))
            .holding(Element::new("features").holding_all(["acpi", "apic"].map(Element::new)));
        let domain = match accelerated {
            true => domain.holding(Element::new("cpu").with("mode", "host-passthrough").with("check", "none")),
            false => domain,
        };
        let agent = Element::new("channel")
            .with("type", "unix")
            .holding(Element::new("target").with("type", "virtio").with("name", "org.qemu.guest_agent.0"));
        let random = Element::new("rng")
            .with("model", "virtio")
            .holding(Element::new("backend").with("model", "random").saying("/dev/urandom"));
        domain.holding(Element::new("devices").holding(agent).holding(random))
    }

    fn os(&self, live: Option<&Element>) -> Element {
        let spec = self.spec;
        // A version of its kind of computer that it has already is kept: another one would be another computer.
        let version = live
            .and_then(|live| live.at(&["os", "type"])?.attribute("machine"))
            .filter(|version| version.starts_with(spec.machine.family()))
            .unwrap_or(spec.machine.word());
        let os = match spec.firmware {
            Firmware::Bios => Element::new("os"),
            Firmware::Uefi => Element::new("os").with("firmware", "efi"),
        };
        os.holding(Element::new("type").with("arch", "x86_64").with("machine", version).saying("hvm"))
            .holding_all(spec.boot.iter().map(|boot| Element::new("boot").with("dev", boot.word())))
    }

    /// How a domain differs from what is asked for: as it is defined, or as it runs.
    pub(crate) fn differences(&self, live: &Element) -> Vec<FieldDrift> {
        let spec = self.spec;
        let mut drift = Vec::new();
        compare(&mut drift, "/memory_mib", json!(spec.memory_mib), memory(live));
        compare(&mut drift, "/cpus", json!(spec.cpus), cpus(live));
        let kind = live.attribute("type").unwrap_or_default();
        let wanted = match spec.virtualization {
            Virtualization::Kvm => "kvm",
            Virtualization::Any if matches!(kind, "kvm" | "qemu") => kind,
            Virtualization::Any => "kvm",
            Virtualization::Emulated => "qemu",
        };
        compare(&mut drift, "/virtualization", json!(wanted), json!(kind));
        let machine = live
            .at(&["os", "type"])
            .and_then(|kind| kind.attribute("machine"))
            .unwrap_or_default();
        let found = match machine.starts_with(spec.machine.family()) || machine == spec.machine.word() {
            true => spec.machine.word(),
            false => machine,
        };
        compare(&mut drift, "/machine", json!(spec.machine.word()), json!(found));
        let os = live.child("os");
        let efi = os.is_some_and(|os| os.attribute("firmware") == Some("efi") || os.child("loader").is_some());
        let word = |efi: bool| json!(if efi { "uefi" } else { "bios" });
        compare(&mut drift, "/firmware", word(spec.firmware == Firmware::Uefi), word(efi));
        let boot: Vec<&str> = os
            .into_iter()
            .flat_map(|os| os.all("boot"))
            .filter_map(|boot| boot.attribute("dev"))
            .collect();
        let wanted: Vec<&str> = spec.boot.iter().map(|boot| boot.word()).collect();
        compare(&mut drift, "/boot", json!(wanted), json!(boot));
        self.disks(live, &mut drift);
        self.interfaces(live, &mut drift);
        drift
    }

    fn disks(&self, live: &Element, drift: &mut Vec<FieldDrift>) {
        let found: Vec<&Element> = live.child("devices").into_iter().flat_map(|devices| devices.all("disk")).collect();
        let device = |disk: &Element| disk.child("target").and_then(|target| target.attribute("dev")).map(str::to_owned);
        for (index, wanted) in self.disks.iter().enumerate() {
            let at = format!("/disks/{index}");
            let Some(disk) = found.iter().find(|disk| device(disk).as_deref() == Some(&wanted.device)) else {
                compare(drift, &at, json!(wanted.path), Value::Null);
                continue;
            };
            let source = disk.child("source").and_then(|source| source.attribute("file"));
            compare(drift, &format!("{at}/volume"), json!(wanted.path), json!(source));
            let kind = if disk.attribute("device") == Some("cdrom") {
                "cdrom"
            } else {
                "disk"
            };
            let word = if wanted.kind == DiskKind::Cdrom { "cdrom" } else { "disk" };
            compare(drift, &format!("{at}/kind"), json!(word), json!(kind));
            compare(
                drift,
                &format!("{at}/read_only"),
                json!(wanted.read_only),
                json!(disk.child("readonly").is_some()),
            );
        }
        for disk in found {
            let name = device(disk).unwrap_or_default();
            if !self.disks.iter().any(|wanted| wanted.device == name) {
                let source = disk.child("source").and_then(|source| source.attribute("file"));
                compare(drift, &format!("/disks/{name}"), Value::Null, json!(source.unwrap_or("empty")));
            }
        }
    }

    fn interfaces(&self, live: &Element, drift: &mut Vec<FieldDrift>) {
        let found: Vec<&Element> = live
            .child("devices")
            .into_iter()
            .flat_map(|devices| devices.all("interface"))
            .collect();
        let address = |interface: &Element| {
            let mac = interface.child("mac").and_then(|mac| mac.attribute("address"));
            mac.map(str::to_ascii_lowercase)
        };
        for (index, wanted) in self.interfaces.iter().enumerate() {
            let at = format!("/interfaces/{index}");
            let Some(interface) = found.iter().find(|one| address(one).as_deref() == Some(&wanted.mac)) else {
                compare(drift, &at, json!(wanted.mac), Value::Null);
                continue;
            };
            let network = interface.child("source").and_then(|source| source.attribute("network"));
            compare(drift, &format!("{at}/network"), json!(wanted.network), json!(network));
        }
        for interface in found {
            let mac = address(interface).unwrap_or_default();
            if !self.interfaces.iter().any(|wanted| wanted.mac == mac) {
                compare(drift, &format!("/interfaces/{mac}"), Value::Null, json!(mac));
            }
        }
    }
}

/// The name of the next device of a family.
fn named(family: &str, count: &mut u8) -> String {
    let name = format!("{family}{}", char::from(b'a' + *count % 26));
    *count += 1;
    name
}

impl Disk {
    fn definition(&self) -> Element {
        let (device, bus) = match self.kind {
            DiskKind::Disk => ("disk", "virtio"),
            DiskKind::Cdrom if self.device.starts_with("hd") => ("cdrom", "ide"),
            DiskKind::Cdrom => ("cdrom", "sata"),
        };
        let disk = Element::new("disk")
            .with("type", "file")
            .with("device", device)
            .holding(
                Element::new("driver")
                    .with("name", "qemu")
                    .with("type", Format::of(&self.path).word()),
            )
            .holding(Element::new("source").with("file", &self.path))
            .holding(Element::new("target").with("dev", &self.device).with("bus", bus));
        match self.read_only {
            true => disk.holding(Element::new("readonly")),
            false => disk,
        }
    }
}

impl Interface {
    fn definition(&self) -> Element {
        Element::new("interface")
            .with("type", "network")
            .holding(Element::new("mac").with("address", &self.mac))
            .holding(Element::new("source").with("network", &self.network))
            .holding(Element::new("model").with("type", "virtio"))
    }
}

/// The memory of a domain, in MiB where it is a whole number of them: what it may have, or what it has where that is less.
fn memory(live: &Element) -> Value {
    let read = |name: &str| {
        let element = live.child(name)?;
        let count: u64 = element.text.trim().parse().ok()?;
        Some(match element.attribute("unit") {
            Some("MiB") => count.saturating_mul(KIB_PER_MIB),
            Some("GiB") => count.saturating_mul(KIB_PER_MIB * KIB_PER_MIB),
            Some("b" | "bytes") => count / 1024,
            _ => count,
        })
    };
    let most = read("memory").unwrap_or_default();
    let kib = read("currentMemory").unwrap_or(most).min(most);
    match kib % KIB_PER_MIB {
        0 => json!(kib / KIB_PER_MIB),
        _ => json!(format!("{kib} KiB")),
    }
}

/// The virtual CPUs of a domain; those that it has of those that it may have, where these differ.
fn cpus(live: &Element) -> Value {
    let Some(vcpu) = live.child("vcpu") else { return json!(1) };
    let most = vcpu.text.trim();
    match (vcpu.attribute("current").filter(|current| *current != most), most.parse::<u64>()) {
        (None, Ok(count)) => json!(count),
        (current, _) => json!(format!("{} of {most}", current.unwrap_or(most))),
    }
}
