//! Domains: what is defined for one, and how one that is there differs.

use serde_json::{Value, json};
use state::observation::FieldDrift;
use state::resource::Origin;

use providers::fields::{Text, literal};

use crate::compare;
use crate::config::LibvirtConfig;
use crate::fragment::Fragment;
use crate::label::{Label, relabel};
use crate::names;
use crate::spec::{DiskKind, DomainSpec, Firmware, Format, Machine, Virtualization};
use crate::xml::Element;

const KIB_PER_MIB: u64 = 1024;
/// How many ports a guest has beside those for its disks and interfaces: four for what the daemon adds, and four that are free.
const PORTS: usize = 8;

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
    kernel: Option<Kernel>,
    fragment: Option<Fragment>,
    /// The file that its first serial port is written to.
    log: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kernel {
    image: String,
    initrd: Option<String>,
    arguments: String,
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
        let kernel = match &spec.kernel {
            Some(kernel) => Some(Kernel {
                image: literal("kernel/image", &kernel.image)?.to_owned(),
                initrd: match &kernel.initrd {
                    Some(initrd) => Some(literal("kernel/initrd", initrd)?.to_owned()),
                    None => None,
                },
                arguments: words(&kernel.arguments)?,
            }),
            None => None,
        };
        Ok(Self {
            spec,
            disks,
            interfaces,
            kernel,
            fragment: spec.xml.as_deref().map(Fragment::read).transpose()?,
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
        for (name, mib) in [("memory", spec.most_memory()), ("currentMemory", spec.memory_mib)] {
            domain.put(Element::new(name).with("unit", "MiB").saying(mib));
        }
        let vcpu = Element::new("vcpu").with("placement", "static").saying(spec.most_cpus());
        domain.put(match spec.most_cpus() == spec.cpus {
            true => vcpu,
            false => vcpu.with("current", spec.cpus),
        });
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
            let same = |device: &Element| device.of("target", "dev") == Some(&disk.device);
            devices.children.push(disk.definition().holding_all(kept("disk", &same)));
        }
        for interface in &self.interfaces {
            let same = |device: &Element| device.of("mac", "address") == Some(&interface.mac);
            devices.children.push(interface.definition().holding_all(kept("interface", &same)));
        }
        devices.children.push(
            Element::new("serial")
                .with("type", "pty")
                .holding(Element::new("log").with("file", &self.log).with("append", "off"))
                .holding(Element::new("target").with("port", "0")),
        );
        domain.put(devices);
        let earlier = live.and_then(Label::of).and_then(|label| label.fragment());
        Fragment::merge(earlier.as_ref(), self.fragment.as_ref(), &mut domain);
        if accelerated && domain.child("cpu").is_none() {
            domain.put(own_cpu());
        }
        domain
    }

    /// What a domain has that wasn't there before.
    fn first(&self, origin: &Origin, accelerated: bool) -> Element {
        let domain = Element::new("domain")
            .holding(Element::new("name").saying(names::external(origin)))
            .holding(Element::new("uuid").saying(names::uuid("domain", origin)))
            .holding(Element::new("features").holding_all(["acpi", "apic"].map(Element::new)));
        let domain = match accelerated {
            true => domain.holding(own_cpu()),
            false => domain,
        };
        let agent = Element::new("channel")
            .with("type", "unix")
            .holding(Element::new("target").with("type", "virtio").with("name", "org.qemu.guest_agent.0"));
        let random = Element::new("rng")
            .with("model", "virtio")
            .holding(Element::new("backend").with("model", "random").saying("/dev/urandom"));
        let mut devices = Element::new("devices").holding(agent).holding(random);
        if self.spec.machine == Machine::Q35 {
            // A device that comes while the guest runs needs a port of its own: there are a few more than are needed now.
            let root = Element::new("controller")
                .with("type", "pci")
                .with("index", "0")
                .with("model", "pcie-root");
            devices = devices.holding(root);
            for index in 1..=(self.disks.len() + self.interfaces.len() + PORTS) {
                let port = Element::new("controller").with("type", "pci").with("index", index);
                devices = devices.holding(port.with("model", "pcie-root-port"));
            }
        }
        domain.holding(devices)
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
        let kernel = self.kernel.iter().flat_map(|kernel| {
            let initrd = kernel.initrd.as_ref().map(|path| Element::new("initrd").saying(path));
            let words = Some(&kernel.arguments).filter(|words| !words.is_empty());
            let words = words.map(|words| Element::new("cmdline").saying(words));
            [Some(Element::new("kernel").saying(&kernel.image)), initrd, words]
                .into_iter()
                .flatten()
        });
        // What the daemon keeps of the firmware stays: where its variables are.
        let kept = ["loader", "nvram"].into_iter().filter_map(|name| live?.at(&["os", name]));
        let kept: Vec<Element> = match spec.firmware {
            Firmware::Uefi => kept.cloned().collect(),
            Firmware::Bios => Vec::new(),
        };
        os.holding(Element::new("type").with("arch", "x86_64").with("machine", version).saying("hvm"))
            .holding_all(kept)
            .holding_all(kernel)
            .holding_all(spec.boot.iter().map(|boot| Element::new("boot").with("dev", boot.word())))
    }

    /// How a domain that is defined differs from what is asked for.
    pub(crate) fn differences(&self, inactive: &Element) -> Vec<FieldDrift> {
        let mut drift = self.computer(inactive);
        if let Some(fragment) = &self.fragment {
            fragment.differences(inactive, &mut drift);
        }
        if drift.is_empty() && self.outgrown(inactive) {
            drift.push(outgrown());
        }
        drift
    }

    /// How a domain that runs differs from what is asked for. Of a fragment the daemon makes what it likes when it starts a guest (a
    /// processor like the host's becomes one of a name): only whether it was started with this one can be told.
    pub(crate) fn differences_running(&self, active: &Element) -> Vec<FieldDrift> {
        let mut drift = self.computer(active);
        if self.outgrown(active) {
            drift.push(outgrown());
        }
        drift
    }

    /// What a domain differs in of what a specification has fields for.
    fn computer(&self, live: &Element) -> Vec<FieldDrift> {
        let spec = self.spec;
        let mut drift = Vec::new();
        let (has, most) = (kib(live, "currentMemory"), kib(live, "memory"));
        compare(&mut drift, "/memory_mib", json!(spec.memory_mib), in_mib(has.min(most)));
        if spec.max_memory_mib.is_some() || drift.is_empty() {
            compare(&mut drift, "/max_memory_mib", json!(spec.most_memory()), in_mib(most));
        }
        let before = drift.len();
        let (has, most) = cpus(live);
        compare(&mut drift, "/cpus", json!(spec.cpus), json!(has));
        if spec.max_cpus.is_some() || drift.len() == before {
            compare(&mut drift, "/max_cpus", json!(spec.most_cpus()), json!(most));
        }
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
        let said = |name: &str| {
            os.and_then(|os| os.child(name))
                .map(|element| element.text.as_str())
                .filter(|text| !text.is_empty())
        };
        let kernel = self.kernel.as_ref();
        compare(
            &mut drift,
            "/kernel/image",
            json!(kernel.map(|kernel| &kernel.image)),
            json!(said("kernel")),
        );
        let initrd = kernel.and_then(|kernel| kernel.initrd.as_ref());
        compare(&mut drift, "/kernel/initrd", json!(initrd), json!(said("initrd")));
        let arguments = kernel.map(|kernel| &kernel.arguments).filter(|words| !words.is_empty());
        compare(&mut drift, "/kernel/arguments", json!(arguments), json!(said("cmdline")));
        self.disks(live, &mut drift);
        self.interfaces(live, &mut drift);
        drift
    }

    /// The memory that it is to have in KiB, where that is within what the running guest may have.
    pub(crate) fn memory_within(&self, active: &Element) -> Option<u64> {
        let wanted = self.spec.memory_mib.saturating_mul(KIB_PER_MIB);
        (wanted <= kib(active, "memory")).then_some(wanted)
    }

    /// The virtual CPUs that it is to have, where they are within what the running guest may have.
    pub(crate) fn cpus_within(&self, active: &Element) -> Option<u32> {
        (u64::from(self.spec.cpus) <= cpus(active).1).then_some(self.spec.cpus)
    }

    /// The definition of one of its disks, if it is of a kind.
    pub(crate) fn disk(&self, index: usize, kind: DiskKind) -> Option<Element> {
        self.disks.get(index).filter(|disk| disk.kind == kind).map(Disk::definition)
    }

    /// The definition of one of its interfaces.
    pub(crate) fn interface(&self, index: usize) -> Option<Element> {
        self.interfaces.get(index).map(Interface::definition)
    }

    /// Whether a definition of ours was made with another fragment.
    fn outgrown(&self, live: &Element) -> bool {
        Label::of(live).is_some_and(|label| label.fragment() != self.fragment)
    }

    fn disks(&self, live: &Element, drift: &mut Vec<FieldDrift>) {
        let found: Vec<&Element> = live.child("devices").into_iter().flat_map(|devices| devices.all("disk")).collect();
        let device = |disk: &Element| disk.of("target", "dev").map(str::to_owned);
        for (index, wanted) in self.disks.iter().enumerate() {
            let at = format!("/disks/{index}");
            let Some(disk) = found.iter().find(|disk| device(disk).as_deref() == Some(&wanted.device)) else {
                compare(drift, &at, json!(wanted.path), Value::Null);
                continue;
            };
            let source = disk.of("source", "file");
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
                let source = disk.of("source", "file");
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
            let mac = interface.of("mac", "address");
            mac.map(str::to_ascii_lowercase)
        };
        for (index, wanted) in self.interfaces.iter().enumerate() {
            let at = format!("/interfaces/{index}");
            let Some(interface) = found.iter().find(|one| address(one).as_deref() == Some(&wanted.mac)) else {
                compare(drift, &at, json!(wanted.mac), Value::Null);
                continue;
            };
            let network = interface.of("source", "network");
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

fn outgrown() -> FieldDrift {
    FieldDrift {
        path: "/xml".into(),
        wanted: None,
        found: None,
    }
}

/// The host's own processor.
fn own_cpu() -> Element {
    Element::new("cpu").with("mode", "host-passthrough").with("check", "none")
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

/// An amount of memory of a domain's, in KiB.
fn kib(live: &Element, name: &str) -> u64 {
    let Some(element) = live.child(name) else { return u64::MAX };
    let count: u64 = element.text.trim().parse().unwrap_or_default();
    match element.attribute("unit") {
        Some("MiB") => count.saturating_mul(KIB_PER_MIB),
        Some("GiB") => count.saturating_mul(KIB_PER_MIB * KIB_PER_MIB),
        Some("b" | "bytes") => count / 1024,
        _ => count,
    }
}

/// An amount of KiB in MiB, where it is a whole number of them.
fn in_mib(kib: u64) -> Value {
    match kib % KIB_PER_MIB {
        0 => json!(kib / KIB_PER_MIB),
        _ => json!(format!("{kib} KiB")),
    }
}

/// The virtual CPUs that a domain has, and those that it may have.
fn cpus(live: &Element) -> (u64, u64) {
    let Some(vcpu) = live.child("vcpu") else { return (1, 1) };
    let most = vcpu.text.trim().parse().unwrap_or(1);
    let has = vcpu.attribute("current").and_then(|current| current.parse().ok());
    (has.unwrap_or(most), most)
}

/// Words for a kernel, in one line.
fn words(all: &[Text]) -> Result<String, String> {
    let words: Vec<&str> = all.iter().map(|word| literal("kernel/arguments", word)).collect::<Result<_, _>>()?;
    match words
        .iter()
        .find(|word| word.is_empty() || !word.bytes().all(|b| b.is_ascii_graphic()))
    {
        Some(word) => Err(format!("kernel/arguments: {word:?} is no word of plain characters")),
        None => Ok(words.join(" ")),
    }
}
