//! Looking at everything at once, and what of it differs from what is asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use state::ids::{OutputName, ResourceName};
use state::observation::{FieldDrift, Observation};
use state::resource::{Origin, Outputs, Resource};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use providers::fields::literal;
use providers::{Observed, Orphan, Scope, Wanted};

use crate::domain::Domain;
use crate::label::{Label, Owner, owner};
use crate::live::{Live, Progress};
use crate::spec::{DomainSpec, Format, ImageSpec, NetworkSpec, PoolSpec, Ready, Restart, SeedSpec, Typed, VolumeSpec};
use crate::wire::{Seen, SeenVolume};
use crate::xml::Element;
use crate::{Hindrance, Site, check, compare, names, network, spec, storage};

/// How long a port of a guest's is tried.
const KNOCK: Duration = Duration::from_millis(300);
/// How much of a serial port's log is read.
const LOG: u64 = 1024 * 1024;

/// Looks at all wanted resources, and for owned things that none of them names.
pub(crate) async fn observe(site: &Site, scope: &Scope, wanted: &[Wanted<'_>]) -> Result<Observed, Hindrance> {
    let seen = site.client.look().await?;
    site.macs.keep(&seen);
    let mut observed = Observed::default();
    for one in wanted {
        let origin = Origin::of(&scope.channel, one.name, one.origin);
        let observation = match one.resource {
            Some(resource) => look(site, scope, &seen, resource).await,
            None => there(site, scope, &seen, one.name, &origin),
        };
        let observation = observation.unwrap_or_else(|why| Observation::Unknown { why });
        observed.resources.insert(one.name.clone(), observation);
    }
    let names: BTreeSet<&ResourceName> = wanted.iter().map(|one| one.name).collect();
    observed.orphans = orphans(site, scope, &seen, &names)?;
    Ok(observed)
}

/// What is seen of one resource, against what it asks for.
pub(crate) async fn look(site: &Site, scope: &Scope, seen: &Seen, resource: &Resource) -> Result<Observation, String> {
    let typed = check::read(&site.config, resource, Some(scope.channel.as_str())).map_err(|invalid| invalid.to_string())?;
    let origin = resource.origin(&scope.channel);
    let case = Case {
        site,
        scope,
        seen,
        resource,
        external: names::external(&origin),
        origin,
    };
    match &typed {
        Typed::Network(spec) => case.network(spec),
        Typed::Pool(spec) => case.pool(spec),
        Typed::Volume(spec) => case.volume(spec),
        Typed::Seed(spec) => case.seed(spec),
        Typed::Domain(spec) => case.domain(spec).await,
    }
}

/// A resource to look at.
struct Case<'a> {
    site: &'a Site,
    scope: &'a Scope,
    seen: &'a Seen,
    resource: &'a Resource,
    origin: Origin,
    external: String,
}

/// What is there of a resource.
#[derive(Default)]
struct Sight {
    outputs: Outputs,
    drift: Vec<FieldDrift>,
    replace: Option<String>,
    blocked: Option<String>,
    waits: Option<String>,
}

impl Case<'_> {
    /// What is there, by whose it is.
    fn seen(&self, label: Option<&Label>, sight: Sight) -> Observation {
        let external = self.external.clone();
        let owned = match owner(label, self.scope, &self.resource.name) {
            Owner::Anothers(by) if self.resource.origin.is_some() => {
                let why = providers::still_held(&by);
                return Observation::Pending { external, why };
            }
            Owner::Ours => true,
            Owner::Anothers(_) | Owner::Nobody => false,
        };
        if let Some(why) = sight.waits.filter(|_| owned && sight.drift.is_empty()) {
            return Observation::Pending { external, why };
        }
        Observation::Present {
            external,
            owned,
            outputs: sight.outputs,
            drift: sight.drift,
            replace: sight.replace,
            blocked: sight.blocked,
        }
    }

    /// Whose it is, of what has no metadata.
    fn label(&self) -> Result<Option<Label>, String> {
        self.site.label(&self.external).map_err(|error| error.to_string())
    }

    fn network(&self, spec: &NetworkSpec) -> Result<Observation, String> {
        let Some(found) = self.seen.networks.iter().find(|network| network.name == self.external) else {
            return Ok(Observation::Absent);
        };
        let inactive = read(&found.inactive)?;
        let mut sight = Sight {
            drift: network::differences(spec, &inactive),
            ..Sight::default()
        };
        match &found.active {
            None => compare(&mut sight.drift, "/active", json!(true), json!(false)),
            Some(active) => {
                let running = network::differences(spec, &read(active)?);
                if !running.is_empty() {
                    sight.blocked = network::held(self.seen, &self.external, &running);
                    let known: BTreeSet<String> = sight.drift.iter().map(|field| field.path.clone()).collect();
                    sight.drift.extend(running.into_iter().filter(|field| !known.contains(&field.path)));
                }
            }
        }
        compare(&mut sight.drift, "/autostart", json!(true), json!(found.autostart));
        let bridge = inactive.of("bridge", "name").unwrap_or_default();
        sight.outputs = outputs([
            ("name", json!(self.external)),
            ("bridge", json!(bridge)),
            ("address", json!(spec.address.address())),
        ]);
        Ok(self.seen(Label::of(&inactive).as_ref(), sight))
    }

    fn pool(&self, spec: &PoolSpec) -> Result<Observation, String> {
        let Some(found) = self.seen.pools.iter().find(|pool| pool.name == self.external) else {
            return Ok(Observation::Absent);
        };
        let live = read(&found.xml)?;
        let mut sight = Sight::default();
        compare(&mut sight.drift, "/path", json!(spec.path), json!(storage::pool_path(&live)));
        if !sight.drift.is_empty() {
            sight.replace = Some("a pool can't be moved".into());
        }
        compare(&mut sight.drift, "/active", json!(true), json!(found.active));
        compare(&mut sight.drift, "/autostart", json!(true), json!(found.autostart));
        sight.outputs = outputs([("name", json!(self.external)), ("path", json!(storage::pool_path(&live)))]);
        Ok(self.seen(self.label()?.as_ref(), sight))
    }

    /// Finds a volume in its pool. `Err`: it can't be seen; `None`: it isn't there.
    fn find(&self, pool: &str, name: &str) -> Result<Option<&SeenVolume>, String> {
        let Some(pool) = self.seen.pools.iter().find(|found| found.name == pool) else {
            return Ok(None);
        };
        match pool.active {
            true => Ok(pool.volumes.iter().find(|volume| volume.name == name)),
            false => Err(format!("the pool {} is not active: what is in it can't be seen", pool.name)),
        }
    }

    /// A volume, as far as volumes and seeds are alike: its definition and its label, or how it is seen without them.
    fn stored(&self, pool: &str, name: &str, content: &str) -> Result<Result<(Element, Sight), Observation>, String> {
        let label = self.label()?;
        let place = label.as_ref().and_then(|label| label.place.as_ref());
        if let Some(place) = place.filter(|place| (place.pool.as_str(), place.volume.as_str()) != (pool, name)) {
            // It was made elsewhere, or otherwise.
            return match self.find(&place.pool, &place.volume)? {
                None => Ok(Err(Observation::Absent)),
                Some(_) => {
                    let mut sight = Sight {
                        replace: Some("a volume can't be moved, nor laid out otherwise".into()),
                        ..Sight::default()
                    };
                    compare(
                        &mut sight.drift,
                        "/volume",
                        json!(format!("{pool}/{name}")),
                        json!(format!("{}/{}", place.pool, place.volume)),
                    );
                    Ok(Err(self.seen(label.as_ref(), sight)))
                }
            };
        }
        let Some(found) = self.find(pool, name)? else {
            return Ok(Err(Observation::Absent));
        };
        let live = read(&found.xml)?;
        let mut sight = Sight::default();
        if let Some(place) = place
            && !place.whole
        {
            compare(&mut sight.drift, "/content", json!("whole"), json!("a part of it"));
        }
        if let Some(place) = place
            && place.whole
            && place.content != content
        {
            sight.drift.push(FieldDrift {
                path: "/content".into(),
                wanted: None,
                found: None,
            });
        }
        sight.outputs = outputs([
            ("path", json!(storage::volume_path(&live))),
            ("name", json!(name)),
            ("pool", json!(pool)),
        ]);
        Ok(Ok((live, sight)))
    }

    fn volume(&self, spec: &VolumeSpec) -> Result<Observation, String> {
        let pool = literal("pool", &spec.pool)?;
        let name = storage::volume_name(&self.origin, spec.format);
        let content = image(spec.image.as_ref());
        let (live, mut sight) = match self.stored(pool, &name, &content)? {
            Ok(stored) => stored,
            Err(observation) => return Ok(observation),
        };
        if sight.drift.iter().any(|field| field.path == "/content" && field.wanted.is_none()) {
            sight.replace = Some("it was made from another image, and holds what was written since".into());
        }
        let base = spec.base.as_ref().map(|base| literal("base", base)).transpose()?;
        if base.is_some() || spec.image.is_none() {
            let before = sight.drift.len();
            compare(&mut sight.drift, "/base", json!(base), json!(storage::base(&live)));
            if sight.drift.len() > before {
                sight.replace = Some("it stands on another volume".into());
            }
        }
        if let Some(wanted) = spec.capacity_mib.map(storage::bytes) {
            let found = storage::capacity(&live);
            compare(&mut sight.drift, "/capacity_mib", mib(wanted), mib(found));
            if found > wanted {
                sight.blocked = Some(format!(
                    "a volume is never made smaller: it has {} bytes, and {wanted} are asked for",
                    found
                ));
            }
        }
        Ok(self.seen(self.label()?.as_ref(), sight))
    }

    fn seed(&self, spec: &SeedSpec) -> Result<Observation, String> {
        let pool = literal("pool", &spec.pool)?;
        let name = storage::volume_name(&self.origin, Format::Raw);
        let content = self.site.seed(&self.origin, spec).map_err(|hindrance| hindrance.to_string())?;
        match self.stored(pool, &name, &content.1)? {
            Ok((_, sight)) => Ok(self.seen(self.label()?.as_ref(), sight)),
            Err(observation) => Ok(observation),
        }
    }

    async fn domain(&self, spec: &DomainSpec) -> Result<Observation, String> {
        let Some(found) = self.seen.domains.iter().find(|domain| domain.name == self.external) else {
            return Ok(Observation::Absent);
        };
        let wanted = Domain::new(&self.site.config, &self.origin, spec)?;
        let inactive = read(&found.inactive)?;
        let mut sight = Sight {
            drift: wanted.differences(&inactive),
            ..Sight::default()
        };
        compare(&mut sight.drift, "/autostart", json!(spec.autostart), json!(found.autostart));
        compare(&mut sight.drift, "/running", json!(spec.running), json!(found.active.is_some()));
        if let Some(active) = found.active.as_ref().filter(|_| spec.running && sight.drift.is_empty()) {
            self.running(spec, &Live::new(&wanted, &self.external, &read(active)?), &mut sight);
        }
        if sight.waits.is_none() {
            sight.waits = self.unready(spec, &found.addresses).await;
        }
        let uuid = inactive.child("uuid").map_or("", |uuid| uuid.text.as_str());
        sight.outputs = outputs([("name", json!(self.external)), ("uuid", json!(uuid))]);
        let more = [
            ("mac", wanted.macs().next().map(str::to_owned)),
            ("address", found.addresses.first().cloned()),
        ];
        let more = more.into_iter().filter_map(|(name, value)| Some((name, json!(value?))));
        sight.outputs.extend(outputs(more));
        Ok(self.seen(Label::of(&inactive).as_ref(), sight))
    }

    /// How a running guest is seen that is otherwise than it is defined.
    fn running(&self, spec: &DomainSpec, live: &Live, sight: &mut Sight) {
        let mut cold: Vec<String> = live.cold.iter().map(|field| field.path.clone()).collect();
        if live.hot.is_empty() {
            self.site.asked.forget(&self.external);
        } else {
            let fields = live.hot.iter().map(|(field, _)| field);
            let paths: Vec<&str> = fields.clone().map(|field| field.path.as_str()).collect();
            match self.site.asked.progress(&self.external, live) {
                Progress::New => sight.drift.extend(fields.cloned()),
                Progress::Asked => sight.waits = Some(format!("{}: the guest was asked for it", paths.join(", "))),
                Progress::Failed(why) => cold.push(format!("{} ({why})", paths.join(", "))),
            }
        }
        if cold.is_empty() || !sight.drift.is_empty() {
            return;
        }
        let fields = cold.join(", ");
        match spec.restart {
            Restart::Allowed => compare(&mut sight.drift, "/restart", json!("as it is defined"), json!(fields)),
            Restart::Never => sight.waits = Some(format!("{fields}: it has the change from its next start on (restart: never)")),
        }
    }

    /// Why a domain is not ready yet.
    async fn unready(&self, spec: &DomainSpec, addresses: &[String]) -> Option<String> {
        match spec.ready.as_ref()? {
            Ready::Address(_) => addresses.is_empty().then(|| "it has no address yet".into()),
            Ready::Port(port) => {
                let Some(address) = addresses.first().and_then(|address| address.parse::<IpAddr>().ok()) else {
                    return Some("it has no address yet".into());
                };
                match tokio::time::timeout(KNOCK, TcpStream::connect((address, *port))).await {
                    Ok(Ok(_)) => None,
                    Ok(Err(error)) => Some(format!("port {port} of {address} takes no connection yet: {error}")),
                    Err(_) => Some(format!("port {port} of {address} takes no connection yet")),
                }
            }
            Ready::Serial(words) => {
                let path = self.site.config.serial_log(&self.external);
                let read = async {
                    let mut text = Vec::new();
                    tokio::fs::File::open(&path).await?.take(LOG).read_to_end(&mut text).await?;
                    Ok::<_, std::io::Error>(text)
                };
                match read.await {
                    Ok(text) if text.windows(words.len().max(1)).any(|part| part == words.as_bytes()) => None,
                    Ok(_) => Some(format!("its serial port has not said {words:?} yet")),
                    Err(error) => Some(format!("what its serial port says can't be read in {}: {error}", path.display())),
                }
            }
        }
    }
}

fn mib(bytes: u64) -> serde_json::Value {
    match bytes % storage::bytes(1) {
        0 => json!(bytes / storage::bytes(1)),
        _ => json!(format!("{bytes} bytes")),
    }
}

/// What is remembered of the image that a volume is made from.
pub(crate) fn image(image: Option<&ImageSpec>) -> String {
    image.map(|image| image.sha256.clone()).unwrap_or_default()
}

fn read(text: &str) -> Result<Element, String> {
    Element::read(text).map_err(|error| error.to_string())
}

fn outputs<'a>(all: impl IntoIterator<Item = (&'a str, serde_json::Value)>) -> Outputs {
    let named = |(name, value)| Some((OutputName::new(name).ok()?, value));
    all.into_iter().filter_map(named).collect()
}

/// Whether anything is there of what is going, by its name.
fn there(site: &Site, scope: &Scope, seen: &Seen, name: &ResourceName, origin: &Origin) -> Result<Observation, String> {
    let external = names::external(origin);
    for (found, label) in owned(site, scope, seen).map_err(|error| error.to_string())? {
        if found == external && label.made.resource == *name {
            return Ok(Observation::Present {
                external,
                owned: true,
                outputs: Outputs::new(),
                drift: Vec::new(),
                replace: None,
                blocked: None,
            });
        }
    }
    // What is in a pool that can't be seen may be there.
    let label = site.label(&external).map_err(|error| error.to_string())?;
    let pool = label
        .filter(|label| label.made.is_of(scope))
        .and_then(|label| label.place)
        .map(|place| place.pool);
    match pool.and_then(|pool| seen.pools.iter().find(|found| found.name == pool && !found.active)) {
        Some(pool) => Err(format!("the pool {} is not active: what is in it can't be seen", pool.name)),
        None => Ok(Observation::Absent),
    }
}

/// Everything that is there and a scope's, by external name.
fn owned(site: &Site, scope: &Scope, seen: &Seen) -> Result<Vec<(String, Label)>, Hindrance> {
    let mut all = Vec::new();
    let definitions = seen.domains.iter().map(|domain| (&domain.name, &domain.inactive));
    let definitions = definitions.chain(seen.networks.iter().map(|network| (&network.name, &network.inactive)));
    for (name, text) in definitions {
        let label = Label::in_text(text);
        all.extend(label.filter(|label| label.made.is_of(scope)).map(|label| (name.clone(), label)));
    }
    for (name, label) in site.labels()? {
        let found = seen.pools.iter().any(|pool| match &label.place {
            None => pool.name == name && label.made.kind == spec::kind("pool"),
            Some(place) => place.pool == pool.name && pool.volumes.iter().any(|volume| volume.name == place.volume),
        });
        if found && label.made.is_of(scope) {
            all.push((name, label));
        }
    }
    Ok(all)
}

/// Owned things that no wanted resource names.
fn orphans(site: &Site, scope: &Scope, seen: &Seen, wanted: &BTreeSet<&ResourceName>) -> Result<Vec<Orphan>, Hindrance> {
    let all = owned(site, scope, seen)?.into_iter();
    Ok(all
        .filter(|(_, label)| !wanted.contains(&label.made.resource))
        .map(|(external, label)| label.made.orphan(external))
        .collect())
}
