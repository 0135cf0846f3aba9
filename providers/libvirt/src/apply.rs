//! Making and changing what a resource asks for, then looking at what came of it.

use std::io::Write;
use std::time::Duration;

use state::errors::chain;
use state::observation::Observation;
use state::resource::{Origin, Resource};

use providers::fields::{Text, literal};
use providers::refusal::wrong;
use providers::{Applied, Invalid, ProviderError, Scope, failed};

use crate::client::Trouble;
use crate::domain::Domain;
use crate::label::{Label, Owner, Place, owner};
use crate::live::{Live, Progress};
use crate::spec::{DomainSpec, Format, ImageSpec, NetworkSpec, PoolSpec, Restart, SeedSpec, Typed, VolumeSpec};
use crate::wire::{Ask, Seen};
use crate::xml::Element;
use crate::{Hindrance, Site, check, delete, names, network, observe, storage};

/// Applies one resource, and says how it is seen then.
pub(crate) async fn apply(site: &Site, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
    let typed = check::read(&site.config, resource, Some(scope.channel.as_str()))?;
    let origin = resource.origin(&scope.channel);
    let external = names::external(&origin);
    let make = |hindrance: Hindrance| match hindrance {
        Hindrance::NotOwned(external) => ProviderError::NotOwned { external },
        hindrance => failed("make", &external, hindrance),
    };
    let seen = look(site, &external, &typed).await.map_err(make)?;
    let work = Work {
        site,
        scope,
        resource,
        seen: &seen,
        origin: &origin,
        external: &external,
    };
    let done = match &typed {
        Typed::Network(spec) => work.network(spec).await,
        Typed::Pool(spec) => work.pool(spec).await,
        Typed::Volume(spec) => work.volume(spec).await,
        Typed::Seed(spec) => work.seed(spec).await,
        Typed::Domain(spec) => work.domain(spec).await,
    };
    if let Some(why) = done.map_err(make)? {
        return Ok(Applied::Pending { external, why });
    }
    let seen = look(site, &external, &typed).await.map_err(make)?;
    let observed = observe::look(site, scope, &seen, resource).await;
    Ok(match observed.map_err(|why| make(Hindrance::Invalid(why)))? {
        Observation::Present { drift, outputs, .. } if drift.is_empty() => Applied::Done { external, outputs },
        Observation::Present { drift, .. } => {
            let paths: Vec<&str> = drift.iter().map(|field| field.path.as_str()).collect();
            Applied::Pending {
                external,
                why: format!("{} is still otherwise", paths.join(", ")),
            }
        }
        Observation::Pending { why, .. } | Observation::Unknown { why } => Applied::Pending { external, why },
        Observation::Absent | Observation::Unmade { .. } => Applied::Pending {
            external,
            why: "it is not there yet".into(),
        },
    })
}

/// Looks at what one resource is about.
async fn look(site: &Site, external: &str, typed: &Typed) -> Result<Seen, Hindrance> {
    let pool = match typed {
        // Who uses it matters.
        Typed::Network(_) => return Ok(site.client.look().await?),
        Typed::Volume(VolumeSpec { pool, .. }) | Typed::Seed(SeedSpec { pool, .. }) => {
            Some(literal("pool", pool).map_err(Hindrance::Invalid)?)
        }
        Typed::Pool(_) | Typed::Domain(_) => None,
    };
    Ok(site.client.look_at(external, pool).await?)
}

/// What is made, and what was there before.
struct Work<'a> {
    site: &'a Site,
    scope: &'a Scope,
    resource: &'a Resource,
    seen: &'a Seen,
    origin: &'a Origin,
    external: &'a str,
}

impl Work<'_> {
    /// Holds what is there to whose it is.
    fn may_take(&self, label: Option<&Label>) -> Result<(), Hindrance> {
        match owner(label, self.scope, &self.resource.name) {
            Owner::Ours => Ok(()),
            Owner::Anothers(other) if providers::adopts(self.resource) => Err(Hindrance::Anothers {
                what: self.external.to_owned(),
                other,
            }),
            Owner::Nobody if providers::adopts(self.resource) => Ok(()),
            Owner::Anothers(_) | Owner::Nobody => Err(Hindrance::NotOwned(self.external.to_owned())),
        }
    }

    fn label(&self) -> Label {
        Label::new(self.scope, self.resource)
    }

    async fn network(&self, spec: &NetworkSpec) -> Result<Option<String>, Hindrance> {
        let found = self.seen.networks.iter().find(|network| network.name == *self.external);
        let live = found.map(|network| read(&network.inactive)).transpose()?;
        if let Some(live) = &live {
            self.may_take(Label::of(live).as_ref())?;
        }
        let running = found.and_then(|network| network.active.as_ref());
        let running = running.map(|running| read(running)).transpose()?;
        let differences = running.as_ref().map(|running| network::differences(spec, running));
        let differences = differences.unwrap_or_default();
        if let Some(why) = network::held(self.seen, self.external, &differences) {
            return Err(Hindrance::Invalid(why));
        }
        let differs = live.as_ref().is_none_or(|live| !network::differences(spec, live).is_empty());
        if differs || live.as_ref().and_then(Label::of) != Some(self.label()) {
            let xml = network::definition(self.origin, &self.label(), spec, live.as_ref()).to_xml();
            self.site.client.do_it(Ask::DefineNetwork { xml }).await?;
        }
        let name = || self.external.to_owned();
        if let Some(running) = running.filter(|_| !differences.is_empty()) {
            if differences.iter().all(|field| field.path == "/dhcp") {
                let wanted = network::definition(self.origin, &self.label(), spec, Some(&running));
                let range = |network: &Element| network::range(network).map(|range| range.to_xml());
                let (old, new) = (range(&running), range(&wanted));
                self.site.client.do_it(Ask::UpdateRange { name: name(), old, new }).await?;
            } else {
                self.site.client.undo(Ask::StopNetwork(name())).await?;
                self.site.client.do_it(Ask::StartNetwork(name())).await?;
            }
        }
        if found.is_none_or(|network| network.active.is_none() || !network.autostart) {
            self.site.client.do_it(Ask::StartNetwork(name())).await?;
        }
        Ok(None)
    }

    async fn pool(&self, spec: &PoolSpec) -> Result<Option<String>, Hindrance> {
        let found = self.seen.pools.iter().find(|pool| pool.name == *self.external);
        if found.is_some() {
            self.may_take(self.site.label(self.external)?.as_ref())?;
        }
        self.site.put_label(self.external, self.label())?;
        if found.is_none() {
            let xml = storage::pool(self.origin, &spec.path).to_xml();
            self.site.client.do_it(Ask::DefinePool { xml }).await?;
        }
        if found.is_none_or(|pool| !pool.active || !pool.autostart) {
            self.site.client.do_it(Ask::StartPool(self.external.to_owned())).await?;
        }
        Ok(None)
    }

    /// The volume that is there already, if it may be taken; one that is not whole goes first.
    async fn standing(&self, pool: &str, name: &str) -> Result<Option<Element>, Hindrance> {
        let found = self
            .seen
            .pools
            .iter()
            .find(|found| found.name == pool)
            .ok_or_else(|| Hindrance::NoPool(pool.to_owned()))?;
        if !found.active {
            return Err(Hindrance::PoolAway(pool.to_owned()));
        }
        let Some(volume) = found.volumes.iter().find(|volume| volume.name == name) else {
            return Ok(None);
        };
        let label = self.site.label(self.external)?;
        self.may_take(label.as_ref())?;
        let whole = label.and_then(|label| label.place).is_none_or(|place| place.whole);
        if whole {
            return Ok(Some(read(&volume.xml)?));
        }
        // What was made to a part is never used.
        let (pool, name) = (pool.to_owned(), name.to_owned());
        self.site.client.undo(Ask::DeleteVolume { pool, name }).await?;
        Ok(None)
    }

    fn stored(&self, pool: &str, volume: &str, content: &str, whole: bool) -> Result<(), Hindrance> {
        let place = Place {
            pool: pool.to_owned(),
            volume: volume.to_owned(),
            content: content.to_owned(),
            whole,
        };
        let label = Label {
            place: Some(place),
            ..self.label()
        };
        self.site.put_label(self.external, label)
    }

    async fn volume(&self, spec: &VolumeSpec) -> Result<Option<String>, Hindrance> {
        let pool = literal("pool", &spec.pool).map_err(Hindrance::Invalid)?;
        let base = spec
            .base
            .as_ref()
            .map(|base| literal("base", base))
            .transpose()
            .map_err(Hindrance::Invalid)?;
        let name = storage::volume_name(self.origin, spec.format);
        let content = observe::image(spec.image.as_ref());
        let wanted = spec.capacity_mib.map(storage::bytes);
        if let Some(live) = self.standing(pool, &name).await? {
            let found = storage::capacity(&live);
            match wanted {
                Some(wanted) if wanted > found => match self.user(storage::volume_path(&live)).await? {
                    // Who runs with it has it open: nobody else may change it.
                    Some(domain) => {
                        let resize = Ask::ResizeDisk {
                            name: domain,
                            path: storage::volume_path(&live).to_owned(),
                            bytes: wanted,
                        };
                        self.site.client.do_it(resize).await?;
                    }
                    None => self.resize(pool, &name, wanted).await?,
                },
                Some(wanted) if wanted < found => return Err(Hindrance::Smaller(self.external.to_owned())),
                _ => {}
            }
            self.stored(pool, &name, &content, true)?;
            return Ok(None);
        }
        let image = match &spec.image {
            Some(image) => Some(self.checked(image).await?),
            None => None,
        };
        let size = image.as_ref().map(|(_, size)| *size).or(wanted).unwrap_or_default();
        self.stored(pool, &name, &content, false)?;
        let xml = storage::volume(&name, spec.format, size, base).to_xml();
        let pool = pool.to_owned();
        self.site.client.do_it(Ask::CreateVolume { pool: pool.clone(), xml }).await?;
        if let Some((from, _)) = image {
            let (place, volume) = (pool.clone(), name.clone());
            let upload = Ask::UploadVolume {
                pool: place,
                name: volume,
                from,
            };
            self.site.client.do_it(upload).await?;
            if let Some(wanted) = wanted {
                self.grow(&pool, &name, wanted).await?;
            }
        }
        self.stored(&pool, &name, &content, true)?;
        Ok(None)
    }

    /// The running domain that has a volume as its disk.
    async fn user(&self, path: &str) -> Result<Option<String>, Hindrance> {
        for domain in self.site.client.look().await?.domains {
            let Some(active) = &domain.active else { continue };
            let active = read(active)?;
            let mut disks = active.child("devices").into_iter().flat_map(|devices| devices.all("disk"));
            if disks.any(|disk| disk.of("source", "file") == Some(path)) {
                return Ok(Some(domain.name));
            }
        }
        Ok(None)
    }

    /// Makes a volume that was just filled as large as it is to be.
    async fn grow(&self, pool: &str, name: &str, wanted: u64) -> Result<(), Hindrance> {
        let seen = self.site.client.look_at(name, Some(pool)).await?;
        let place = seen.pools.iter().find(|found| found.name == pool);
        let volume = place.and_then(|place| place.volumes.iter().find(|volume| volume.name == name));
        match volume.and_then(|volume| read(&volume.xml).ok()) {
            Some(live) if storage::capacity(&live) < wanted => self.resize(pool, name, wanted).await,
            _ => Ok(()),
        }
    }

    async fn resize(&self, pool: &str, name: &str, bytes: u64) -> Result<(), Hindrance> {
        let (pool, name) = (pool.to_owned(), name.to_owned());
        Ok(self.site.client.do_it(Ask::ResizeVolume { pool, name, bytes }).await?)
    }

    /// The file of an image and its size, when it is what the order says.
    async fn checked(&self, image: &ImageSpec) -> Result<(std::path::PathBuf, u64), Hindrance> {
        let folder = self
            .site
            .config
            .images
            .as_ref()
            .ok_or_else(|| Hindrance::Invalid("image: libvirt.images is not set".into()))?;
        let path = folder.join(&image.file);
        let unread = |source| Hindrance::Image {
            path: path.clone(),
            source,
        };
        let file = std::fs::File::open(&path).map_err(unread)?;
        let size = file.metadata().map_err(unread)?.len();
        let digest = tokio::task::spawn_blocking(move || storage::sha256(file)).await;
        let digest = digest.map_err(|error| unread(std::io::Error::other(error)))?.map_err(unread)?;
        match digest == image.sha256 {
            true => Ok((path, size)),
            false => Err(Hindrance::Digest {
                path,
                wanted: image.sha256.clone(),
                found: digest,
            }),
        }
    }

    async fn seed(&self, spec: &SeedSpec) -> Result<Option<String>, Hindrance> {
        let pool = literal("pool", &spec.pool).map_err(Hindrance::Invalid)?.to_owned();
        let name = storage::volume_name(self.origin, Format::Raw);
        let (bytes, content) = self.site.seed(self.origin, spec)?;
        let standing = self.standing(&pool, &name).await?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let label = self.site.label(self.external)?;
        let same = label
            .and_then(|label| label.place)
            .is_some_and(|place| place.whole && place.content == content);
        if same && standing.is_some() {
            self.stored(&pool, &name, &content, true)?;
            return Ok(None);
        }
        self.stored(&pool, &name, &content, false)?;
        if standing.as_ref().is_none_or(|live| storage::capacity(live) < size) {
            if standing.is_some() {
                let (pool, name) = (pool.clone(), name.clone());
                self.site.client.undo(Ask::DeleteVolume { pool, name }).await?;
            }
            let xml = storage::volume(&name, Format::Raw, size, None).to_xml();
            self.site.client.do_it(Ask::CreateVolume { pool: pool.clone(), xml }).await?;
        }
        let from = self.site.config.records.join(format!(".{}.seed", self.external));
        let written = write_private(&from, &bytes).map_err(Hindrance::Record);
        let sent = match written {
            Ok(()) => {
                let (pool, name, from) = (pool.clone(), name.clone(), from.clone());
                self.site
                    .client
                    .do_it(Ask::UploadVolume { pool, name, from })
                    .await
                    .map_err(Hindrance::from)
            }
            Err(error) => Err(error),
        };
        // Whatever came of it: the file may hold secrets.
        let _ = std::fs::remove_file(&from);
        sent?;
        self.stored(&pool, &name, &content, true)?;
        Ok(None)
    }

    async fn domain(&self, spec: &DomainSpec) -> Result<Option<String>, Hindrance> {
        let wanted = Domain::new(&self.site.config, self.origin, spec).map_err(Hindrance::Invalid)?;
        let found = self.seen.domains.iter().find(|domain| domain.name == *self.external);
        let live = found.map(|domain| read(&domain.inactive)).transpose()?;
        if let Some(live) = &live {
            self.may_take(Label::of(live).as_ref())?;
        }
        if wanted.macs().next().is_some() {
            if self.site.macs.is_empty() {
                self.site.macs.keep(&self.site.client.look().await?);
            }
            self.site.macs.take(self.external, wanted.macs())?;
        }
        let label = Label::of_domain(self.scope, self.resource, spec);
        let differs = live.as_ref().is_none_or(|live| !wanted.differences(live).is_empty());
        if differs || live.as_ref().and_then(Label::of) != Some(label.clone()) {
            let xml = wanted.definition(self.origin, &label, self.seen.kvm, live.as_ref()).to_xml();
            self.on_kvm(Ask::DefineDomain { xml }).await?;
        }
        let name = || self.external.to_owned();
        if found.is_none_or(|domain| domain.autostart != spec.autostart) {
            let on = spec.autostart;
            self.site.client.do_it(Ask::AutostartDomain { name: name(), on }).await?;
        }
        let active = found.and_then(|domain| domain.active.as_ref());
        match (active, spec.running) {
            (None, true) => self.start().await,
            (Some(_), false) => delete::stop(self.site, self.external, Duration::from_secs(spec.stop_seconds)).await,
            (Some(active), true) => {
                let live = Live::new(&wanted, self.external, &read(active)?);
                self.hand_over(spec, &live).await
            }
            (None, false) => Ok(None),
        }
    }

    async fn start(&self) -> Result<Option<String>, Hindrance> {
        self.site.asked.forget(self.external);
        self.on_kvm(Ask::StartDomain(self.external.to_owned())).await?;
        Ok(None)
    }

    /// Has something done that KVM may refuse. That the host says it has it doesn't tell: where machines are nested, a processor like the
    /// host's may not run.
    async fn on_kvm(&self, ask: Ask) -> Result<(), Hindrance> {
        match self.site.client.do_it(ask).await {
            Err(Trouble::Refused(words)) if words.to_lowercase().contains("kvm") => Err(Hindrance::Kvm(words)),
            done => Ok(done?),
        }
    }

    /// Gives a running guest what its definition says by now: while it runs where that can be, else by another start if it may have one.
    async fn hand_over(&self, spec: &DomainSpec, live: &Live) -> Result<Option<String>, Hindrance> {
        let progress = match live.hot.is_empty() {
            true => None,
            false => Some(self.site.asked.progress(self.external, live)),
        };
        let restarts = !live.cold.is_empty() || matches!(progress, Some(Progress::Failed(_)));
        if restarts && spec.restart == Restart::Allowed {
            let patience = Duration::from_secs(spec.stop_seconds);
            return match delete::stop(self.site, self.external, patience).await? {
                Some(why) => Ok(Some(why)),
                None => self.start().await,
            };
        }
        if progress == Some(Progress::New) {
            let mut refused = None;
            for (field, ask) in &live.hot {
                match self.site.client.do_it(ask.clone()).await {
                    Ok(()) => {}
                    Err(Trouble::Refused(words)) => refused = Some(format!("{}: libvirt says: {words}", field.path)),
                    Err(trouble) => return Err(trouble.into()),
                }
            }
            self.site.asked.keep(self.external, live, refused);
        }
        Ok(None)
    }
}

fn read(text: &str) -> Result<Element, Hindrance> {
    Element::read(text).map_err(|error| Hindrance::Invalid(error.to_string()))
}

/// Writes a file that nobody else can read.
fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = providers::records::private(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// Renders the definitions that `virsh` takes. A secret's value is its name in angle brackets: the script holds none.
pub(crate) fn render(site: &Site, scope: &Scope, resource: &Resource) -> Result<Vec<providers::Script>, Invalid> {
    let typed = check::read(&site.config, resource, Some(scope.channel.as_str()))?;
    let origin = resource.origin(&scope.channel);
    let label = Label::new(scope, resource);
    let invalid = |message: String| wrong(message).of(&resource.name);
    let text = match &typed {
        Typed::Network(spec) => network::definition(&origin, &label, spec, None).to_xml(),
        Typed::Pool(spec) => storage::pool(&origin, &spec.path).to_xml(),
        Typed::Volume(spec) => {
            let bytes = spec.capacity_mib.map(storage::bytes).unwrap_or_default();
            let base = spec.base.as_ref().map(Text::shown);
            storage::volume(&storage::volume_name(&origin, spec.format), spec.format, bytes, base.as_deref()).to_xml()
        }
        Typed::Seed(spec) => {
            let named = |name: &state::ids::SecretName| Ok::<_, state::ids::NameError>(format!("<{name}>"));
            let files = storage::seed_files(&origin, spec, &named).map_err(|error| invalid(error.to_string()))?;
            let scripts = files.into_iter().map(|(name, text)| providers::Script {
                name: format!("{}.{name}", resource.name),
                bytes: text.into_bytes(),
            });
            return Ok(scripts.collect());
        }
        Typed::Domain(spec) => {
            let mut known = spec.clone();
            for text in known.texts_mut() {
                *text = Text::Literal(text.shown());
            }
            let label = Label::of_domain(scope, resource, spec);
            let domain = Domain::new(&site.config, &origin, &known).map_err(invalid)?;
            domain.definition(&origin, &label, true, None).to_xml()
        }
    };
    Ok(vec![providers::Script {
        name: format!("{}.xml", resource.name),
        bytes: text.into_bytes(),
    }])
}

impl From<Trouble> for Hindrance {
    fn from(trouble: Trouble) -> Self {
        Hindrance::Libvirt(chain(&trouble))
    }
}
