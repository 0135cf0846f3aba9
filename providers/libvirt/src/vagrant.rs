//! The same machines in the words of Vagrant with its libvirt provider: a Vagrantfile, which is a program in Ruby.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use state::resource::Resource;

use providers::fields::{self, Text};
use providers::{Invalid, Scope, Script};

use crate::spec::{Boot, DiskKind, DomainSpec, Firmware, Format, PoolSpec, Typed, Virtualization};
use crate::{Site, check, names};

/// The firmware that Debian's package `ovmf` brings: Vagrant has to be told which.
const OVMF: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";

/// The names of the pools that are ordered beside the machines, by their folders.
type Pools = BTreeMap<PathBuf, String>;

/// Lines with their indentation.
#[derive(Default)]
struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn block(&mut self, opens: &str, inside: impl FnOnce(&mut Self)) {
        self.line(opens);
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("end");
    }
}

/// A text as Ruby has it: within single quotes nothing is replaced.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn shown(text: &Text) -> String {
    quoted(&text.shown())
}

/// Renders the domains among some resources; none: there is no domain.
pub(crate) fn render(site: &Site, scope: &Scope, resources: &[Resource]) -> Option<Result<Script, Invalid>> {
    let domains: Vec<&Resource> = resources.iter().filter(|resource| resource.kind.name() == "domain").collect();
    if domains.is_empty() {
        return None;
    }
    // Its tool finds a disk by its pool and its name there.
    let pools = resources
        .iter()
        .filter(|resource| resource.kind.name() == "pool")
        .filter_map(|resource| {
            let spec: PoolSpec = fields::read(&resource.spec).ok()?;
            Some((PathBuf::from(spec.path), names::external(&resource.origin(&scope.channel))))
        });
    Some(vagrantfile(site, scope, &domains, &pools.collect()).map(|text| Script {
        name: "Vagrantfile".to_owned(),
        bytes: text.into_bytes(),
    }))
}

fn vagrantfile(site: &Site, scope: &Scope, domains: &[&Resource], pools: &Pools) -> Result<String, Invalid> {
    let mut machines = Vec::new();
    for resource in domains {
        if let Typed::Domain(spec) = check::read(&site.config, resource, Some(scope.channel.as_str()))? {
            machines.push((resource, spec));
        }
    }
    let mut writer = Writer::default();
    writer.line(&format!("# The virtual machines of {} on {}.", scope.member, scope.channel));
    writer.line("# They stand on the volumes and networks that Charter makes: run either Charter's machine or Vagrant's, never both.");
    writer.block("Vagrant.configure('2') do |config|", |writer| {
        writer.line("config.vm.synced_folder '.', '/vagrant', disabled: true");
        for (resource, spec) in &machines {
            let opens = format!("config.vm.define {} do |machine|", quoted(resource.name.as_str()));
            writer.block(&opens, |writer| machine(site, scope, resource, spec, pools, writer));
        }
    });
    Ok(writer.text)
}

/// The pool that a volume is in, and its name there.
fn place<'a>(volume: &'a Text, pools: &'a Pools) -> Option<(&'a str, &'a str)> {
    let Text::Literal(path) = volume else { return None };
    let path = Path::new(path);
    let pool = pools.get(path.parent()?)?;
    Some((pool, path.file_name()?.to_str()?))
}

fn machine(site: &Site, scope: &Scope, resource: &Resource, spec: &DomainSpec, pools: &Pools, writer: &mut Writer) {
    let origin = resource.origin(&scope.channel);
    for (index, interface) in spec.interfaces.iter().enumerate() {
        writer.line(&format!(
            "machine.vm.network :private_network, auto_config: false, libvirt__network_name: {}, mac: {}",
            shown(&interface.network),
            quoted(&interface.address(&origin, index).replace(':', ""))
        ));
    }
    writer.block("machine.vm.provider :libvirt do |libvirt|", |writer| {
        let mut set = |name: &str, value: String| writer.line(&format!("libvirt.{name} = {value}"));
        set("uri", quoted(&site.config.uri));
        set(
            "driver",
            quoted(match spec.virtualization {
                Virtualization::Emulated => "qemu",
                Virtualization::Kvm | Virtualization::Any => "kvm",
            }),
        );
        if spec.virtualization == Virtualization::Emulated {
            set("cpu_mode", quoted("custom"));
            set("cpu_model", quoted("qemu64"));
        }
        set("title", quoted(&names::external(&origin)));
        set("cpus", spec.cpus.to_string());
        set("memory", spec.memory_mib.to_string());
        set("machine_type", quoted(spec.machine.word()));
        set("autostart", spec.autostart.to_string());
        // It wants one, whether it puts something there or not.
        let of_disk = spec.disks.iter().find_map(|disk| place(&disk.volume, pools));
        if let Some(pool) = of_disk.map(|(pool, _)| pool).or(pools.values().next().map(String::as_str)) {
            set("storage_pool_name", quoted(pool));
        }
        // Its own network for management is one that nobody has ordered.
        set("mgmt_attach", "false".to_owned());
        if spec.firmware == Firmware::Uefi {
            set("loader", quoted(OVMF));
        }
        if let Some(kernel) = &spec.kernel {
            set("kernel", shown(&kernel.image));
            if let Some(initrd) = &kernel.initrd {
                set("initrd", shown(initrd));
            }
            let words: Vec<String> = kernel.arguments.iter().map(Text::shown).collect();
            set("cmd_line", quoted(&words.join(" ")));
        }
        for boot in &spec.boot {
            match boot {
                Boot::Hd | Boot::Cdrom => writer.line(&format!("libvirt.boot {}", quoted(boot.word()))),
                Boot::Network => {
                    if let Some(interface) = spec.interfaces.first() {
                        writer.line(&format!("libvirt.boot 'network' => {}", shown(&interface.network)));
                    }
                }
            }
        }
        for disk in &spec.disks {
            let path = shown(&disk.volume);
            writer.line(&match disk.kind {
                DiskKind::Cdrom => format!("libvirt.storage :file, device: :cdrom, path: {path}"),
                DiskKind::Disk => {
                    let format = match &disk.volume {
                        Text::Literal(path) => Format::of(path),
                        Text::Reference(_) => Format::Qcow2,
                    };
                    let (pool, path) = match place(&disk.volume, pools) {
                        Some((pool, file)) => (format!("pool: {}, ", quoted(pool)), quoted(file)),
                        None => (String::new(), path),
                    };
                    format!(
                        "libvirt.storage :file, {pool}path: {path}, type: {}, bus: 'virtio', allow_existing: true",
                        quoted(format.word())
                    )
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_in_its_pool() {
        let pools: Pools = [(PathBuf::from("/disks/a"), "ch.a".to_owned())].into();
        let at = |path: &str| place(&Text::Literal(path.to_owned()), &pools).map(|(pool, file)| format!("{pool} {file}"));
        assert_eq!(at("/disks/a/root.qcow2").as_deref(), Some("ch.a root.qcow2"));
        assert_eq!(at("/disks/b/root.qcow2"), None);
    }

    #[test]
    fn a_text_stays_a_text() {
        for (text, wanted) in [
            ("plain", "'plain'"),
            ("it's", r"'it\'s'"),
            ("#{system('id')}", r"'#{system(\'id\')}'"),
            (r"a\", r"'a\\'"),
            (r"\'; exit #", r"'\\\'; exit #'"),
        ] {
            assert_eq!(quoted(text), wanted);
        }
    }
}
