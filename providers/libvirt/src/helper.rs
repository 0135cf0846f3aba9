//! The process that speaks to the daemon through the C library: it reads calls, makes them one after the other, and writes what came of them.
//!
//! It blocks for as long as the library does, and dies with it: whoever started it watches the clock.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::network::Network;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;
use virt::sys;

use crate::agent::Agents;
use crate::wire::{Answer, Ask, Seen, SeenDomain, SeenNetwork, SeenPool, SeenVolume};

/// How much of a file is sent at a time.
const CHUNK: usize = 256 * 1024;
/// How often it is told how much was sent.
const TELL: Duration = Duration::from_millis(500);

/// Why a call was not made.
enum Refusal {
    Libvirt(Error),
    File(io::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Libvirt(error)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::File(error)
    }
}

/// Serves calls from standard input until it ends. Errors are told on standard error, in one line.
///
/// # Errors
/// When the daemon can't be reached, or a call can't be read.
pub fn run(uri: &str) -> Result<(), String> {
    // What the library would print itself comes back as an error anyway.
    virt::error::clear_error_callback();
    let connection = Connect::open(Some(uri)).map_err(|error| format!("{uri}: {}", error.message()))?;
    let mut agents = Agents::default();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let ask: Ask = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let sent = |bytes| say(&Answer::Sent(bytes));
        let answer = match call(&connection, &mut agents, ask, &sent) {
            Ok(answer) => answer,
            Err(Refusal::Libvirt(error)) if is_missing(&error) => Answer::Missing,
            // The daemon has gone: another process asks the one that comes.
            Err(Refusal::Libvirt(error)) if !connection.is_alive().unwrap_or(false) => {
                return Err(format!("{uri}: {}", error.message()));
            }
            Err(Refusal::Libvirt(error)) => Answer::Refused(error.message().to_owned()),
            Err(Refusal::File(error)) => Answer::Refused(error.to_string()),
        };
        say(&answer).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorNumber::NoDomain | ErrorNumber::NoNetwork | ErrorNumber::NoStoragePool | ErrorNumber::NoStorageVolume
    )
}

fn call(connection: &Connect, agents: &mut Agents, ask: Ask, sent: &dyn Fn(u64) -> io::Result<()>) -> Result<Answer, Refusal> {
    let domain = |name: &str| Domain::lookup_by_name(connection, name);
    let network = |name: &str| Network::lookup_by_name(connection, name);
    let pool = |name: &str| StoragePool::lookup_by_name(connection, name);
    match ask {
        Ask::Look => return Ok(Answer::Seen(Box::new(look(connection, agents)?))),
        Ask::LookAt { name, pool } => {
            return Ok(Answer::Seen(Box::new(look_at(connection, agents, &name, pool.as_deref())?)));
        }
        Ask::DefineDomain { xml } => {
            Domain::define_xml_flags(connection, &xml, sys::VIR_DOMAIN_DEFINE_VALIDATE)?;
        }
        Ask::StartDomain(name) => {
            domain(&name)?.create()?;
        }
        Ask::ShutDomain(name) => {
            domain(&name)?.shutdown()?;
        }
        Ask::DestroyDomain(name) => domain(&name)?.destroy()?,
        Ask::UndefineDomain(name) => {
            let all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_NVRAM
                | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
            domain(&name)?.undefine_flags(all)?;
        }
        Ask::AutostartDomain { name, on } => {
            domain(&name)?.set_autostart(on)?;
        }
        Ask::AttachDevice { name, xml } => {
            domain(&name)?.attach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)?;
        }
        Ask::DetachDevice { name, xml } => {
            domain(&name)?.detach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)?;
        }
        Ask::UpdateDevice { name, xml } => {
            domain(&name)?.update_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)?;
        }
        Ask::SetMemory { name, kib } => {
            domain(&name)?.set_memory_flags(kib, sys::VIR_DOMAIN_AFFECT_LIVE)?;
        }
        Ask::SetCpus { name, count } => {
            domain(&name)?.set_vcpus_flags(count, sys::VIR_DOMAIN_AFFECT_LIVE)?;
        }
        Ask::ResizeDisk { name, path, bytes } => {
            domain(&name)?.block_resize(&path, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES)?;
        }
        Ask::UpdateRange { name, old, new } => {
            let network = network(&name)?;
            let update = |command, xml: Option<String>| match xml {
                Some(xml) => network
                    .update(
                        command,
                        sys::VIR_NETWORK_SECTION_IP_DHCP_RANGE,
                        -1,
                        &xml,
                        sys::VIR_NETWORK_UPDATE_AFFECT_LIVE,
                    )
                    .map(drop),
                None => Ok(()),
            };
            update(sys::VIR_NETWORK_UPDATE_COMMAND_DELETE, old)?;
            update(sys::VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, new)?;
        }
        Ask::DefineNetwork { xml } => {
            Network::define_xml(connection, &xml)?;
        }
        Ask::StartNetwork(name) => {
            let network = network(&name)?;
            if !network.is_active()? {
                network.create()?;
            }
            network.set_autostart(true)?;
        }
        Ask::StopNetwork(name) => network(&name)?.destroy()?,
        Ask::UndefineNetwork(name) => network(&name)?.undefine()?,
        Ask::DefinePool { xml } => {
            StoragePool::define_xml(connection, &xml, 0)?;
        }
        Ask::StartPool(name) => {
            let pool = pool(&name)?;
            if !pool.is_active()? {
                // A folder that is there already is fine.
                pool.build(0)?;
                pool.create(0)?;
            }
            pool.set_autostart(true)?;
        }
        Ask::DropPool(name) => {
            let pool = pool(&name)?;
            if pool.is_active()? {
                pool.destroy()?;
            }
            // A folder that holds anything else stays.
            let _ = pool.delete(0);
            pool.undefine()?;
        }
        Ask::CreateVolume { pool: name, xml } => {
            StorageVol::create_xml(&pool(&name)?, &xml, 0)?;
        }
        Ask::UploadVolume { pool: place, name, from } => {
            let volume = StorageVol::lookup_by_name(&pool(&place)?, &name)?;
            upload(connection, &volume, &from, sent)?;
        }
        Ask::ResizeVolume { pool: place, name, bytes } => {
            StorageVol::lookup_by_name(&pool(&place)?, &name)?.resize(bytes, 0)?;
        }
        Ask::DeleteVolume { pool: place, name } => {
            StorageVol::lookup_by_name(&pool(&place)?, &name)?.delete(0)?;
        }
    }
    Ok(Answer::Done)
}

/// Fills a volume with a file. Who waits is told now and then how far it is: who hears nothing takes it that the daemon hangs.
fn upload(connection: &Connect, volume: &StorageVol, from: &Path, told: &dyn Fn(u64) -> io::Result<()>) -> Result<(), Refusal> {
    let mut file = File::open(from)?;
    let size = file.metadata()?.len();
    let stream = Stream::new(connection, 0)?;
    volume.upload(&stream, 0, size, 0)?;
    let mut buffer = vec![0; CHUNK];
    let (mut all, mut last) = (0, Instant::now());
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => {
                let _ = stream.abort();
                return Err(error.into());
            }
        };
        let mut sent = 0;
        while sent < count {
            sent += stream.send(&buffer[sent..count])?;
        }
        all += u64::try_from(count).unwrap_or_default();
        if last.elapsed() > TELL {
            told(all)?;
            last = Instant::now();
        }
    }
    stream.finish()?;
    Ok(())
}

fn look(connection: &Connect, agents: &mut Agents) -> Result<Seen, Error> {
    agents.begin();
    let mut seen = Seen {
        kvm: has_kvm(connection)?,
        ..Seen::default()
    };
    // What one call tells of all of them is not asked of each.
    let autostart = connection.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_AUTOSTART)?;
    let autostart: BTreeSet<String> = autostart.iter().map(Domain::get_name).collect::<Result<_, _>>()?;
    for domain in connection.list_all_domains(0)? {
        // What goes between two calls is not there.
        seen.domains.extend(unless_missing(look_at_domain(&domain, &autostart, agents))?);
    }
    for network in connection.list_all_networks(0)? {
        seen.networks.extend(unless_missing(look_at_network(&network))?);
    }
    for pool in connection.list_all_storage_pools(0)? {
        seen.pools.extend(unless_missing(look_at_pool(&pool))?);
    }
    Ok(seen)
}

fn look_at(connection: &Connect, agents: &mut Agents, name: &str, pool: Option<&str>) -> Result<Seen, Error> {
    agents.begin();
    let mut seen = Seen {
        kvm: has_kvm(connection)?,
        ..Seen::default()
    };
    let mut domain = || {
        let domain = Domain::lookup_by_name(connection, name)?;
        let autostart = domain.get_autostart()?.then(|| name.to_owned()).into_iter().collect();
        look_at_domain(&domain, &autostart, agents)
    };
    seen.domains.extend(unless_missing(domain())?);
    let network = Network::lookup_by_name(connection, name).and_then(|network| look_at_network(&network));
    seen.networks.extend(unless_missing(network)?);
    for name in pool.into_iter().chain([name]) {
        let pool = StoragePool::lookup_by_name(connection, name).and_then(|pool| look_at_pool(&pool));
        seen.pools.extend(unless_missing(pool)?);
    }
    Ok(seen)
}

fn has_kvm(connection: &Connect) -> Result<bool, Error> {
    Ok(connection.get_capabilities()?.contains("<domain type='kvm'"))
}

fn unless_missing<T>(seen: Result<T, Error>) -> Result<Option<T>, Error> {
    match seen {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn look_at_domain(domain: &Domain, autostart: &BTreeSet<String>, agents: &mut Agents) -> Result<SeenDomain, Error> {
    let active = match domain.get_id() {
        Some(_) => domain.get_xml_desc(0).ok(),
        None => None,
    };
    let name = domain.get_name()?;
    let mut addresses = Vec::new();
    if let Some(active) = &active {
        // Whoever knows an address: who has handed it out, who has heard from it, the guest itself. Asking fails where nobody does.
        addresses = known(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE);
        if addresses.is_empty() {
            addresses = known(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP);
        }
        if addresses.is_empty() {
            addresses = agents.addresses(&name, domain, active);
        }
    }
    Ok(SeenDomain {
        inactive: domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?,
        active,
        autostart: autostart.contains(&name),
        name,
        addresses,
    })
}

fn known(domain: &Domain, source: sys::virDomainInterfaceAddressesSource) -> Vec<String> {
    let interfaces = domain.interface_addresses(source, 0).unwrap_or_default();
    let addresses = interfaces.into_iter().flat_map(|interface| interface.addrs);
    addresses.map(|address| address.addr).collect()
}

fn look_at_network(network: &Network) -> Result<SeenNetwork, Error> {
    let active = match network.is_active()? {
        true => Some(network.get_xml_desc(0)?),
        false => None,
    };
    Ok(SeenNetwork {
        name: network.get_name()?,
        inactive: network.get_xml_desc(sys::VIR_NETWORK_XML_INACTIVE)?,
        active,
        autostart: network.get_autostart()?,
    })
}

fn look_at_pool(pool: &StoragePool) -> Result<SeenPool, Error> {
    let active = pool.is_active()?;
    let mut volumes = Vec::new();
    if active {
        for volume in pool.list_all_volumes(0)? {
            let look = || {
                Ok(SeenVolume {
                    name: volume.get_name()?,
                    xml: volume.get_xml_desc(0)?,
                })
            };
            volumes.extend(unless_missing(look())?);
        }
    }
    Ok(SeenPool {
        name: pool.get_name()?,
        xml: pool.get_xml_desc(0)?,
        active,
        autostart: pool.get_autostart()?,
        volumes,
    })
}
