//! Making and changing what a resource asks for, then looking at what came of it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use state::observation::Observation;
use state::resource::{Origin, Resource};

use providers::fields::literal;
use providers::{Applied, Invalid, ProviderError, Scope, chain, failed};

use crate::client::Trouble;
use crate::domain::Domain;
use crate::label::{Label, Owner, Place, owner};
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
    let seen = site.client.look().await.map_err(|trouble| make(trouble.into()))?;
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
    let seen = site.client.look().await.map_err(|trouble| make(trouble.into()))?;
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
        Observation::Absent => Applied::Pending {
            external,
            why: "it is not there yet".into(),
        },
    })
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
        let differs = live.as_ref().is_none_or(|live| !network::differences(spec, live).is_empty());
        if differs || live.as_ref().and_then(Label::of) != Some(self.label()) {
            let xml = network::definition(self.origin, &self.label(), spec, live.as_ref()).to_xml();
            self.site.client.do_it(Ask::DefineNetwork { xml }).await?;
        }
        if found.is_none_or(|network| network.active.is_none() || !network.autostart) {
            self.site.client.do_it(Ask::StartNetwork(self.external.to_owned())).await?;
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
                Some(wanted) if wanted > found => self.resize(pool, &name, wanted).await?,
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

    /// Makes a volume that was just filled as large as it is to be.
    async fn grow(&self, pool: &str, name: &str, wanted: u64) -> Result<(), Hindrance> {
        let seen = self.site.client.look().await?;
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
        for other in self.seen.domains.iter().filter(|domain| domain.name != *self.external) {
            let definition = other.inactive.to_ascii_lowercase();
            if let Some(mac) = wanted.macs().find(|mac| definition.contains(*mac)) {
                return Err(Hindrance::Mac {
                    mac: mac.to_owned(),
                    other: other.name.clone(),
                });
            }
        }
        let label = Label {
            stop_seconds: Some(spec.stop_seconds),
            ..self.label()
        };
        let differs = live.as_ref().is_none_or(|live| !wanted.differences(live).is_empty());
        if differs || live.as_ref().and_then(Label::of) != Some(label.clone()) {
            let xml = wanted.definition(self.origin, &label, self.seen.kvm, live.as_ref()).to_xml();
            self.site.client.do_it(Ask::DefineDomain { xml }).await?;
        }
        let name = || self.external.to_owned();
        if found.is_none_or(|domain| domain.autostart != spec.autostart) {
            let on = spec.autostart;
            self.site.client.do_it(Ask::AutostartDomain { name: name(), on }).await?;
        }
        let active = found.and_then(|domain| domain.active.as_ref());
        let stale = match active {
            Some(active) => !wanted.differences(&read(active)?).is_empty(),
            None => false,
        };
        let stop = Duration::from_secs(spec.stop_seconds);
        match (active.is_some(), spec.running) {
            (false, true) => {
                self.site.client.do_it(Ask::StartDomain(name())).await?;
                Ok(None)
            }
            (true, false) => delete::stop(self.site, self.external, stop).await,
            (true, true) if stale && spec.restart == Restart::Allowed => {
                if let Some(why) = delete::stop(self.site, self.external, stop).await? {
                    return Ok(Some(why));
                }
                self.site.client.do_it(Ask::StartDomain(name())).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
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
    let _ = std::fs::remove_file(path);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// Renders the definitions that `virsh` takes. A secret's value is its name in angle brackets: the script holds none.
pub(crate) fn render(site: &Site, scope: &Scope, resource: &Resource) -> Result<Vec<providers::Script>, Invalid> {
    let typed = check::read(&site.config, resource, Some(scope.channel.as_str()))?;
    let origin = resource.origin(&scope.channel);
    let label = Label::new(scope, resource);
    let shown = |text: &providers::fields::Text| match text {
        providers::fields::Text::Literal(text) => text.clone(),
        providers::fields::Text::Reference(reference) => format!("<{reference}>"),
    };
    let wrong = |message: String| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    };
    let text = match &typed {
        Typed::Network(spec) => network::definition(&origin, &label, spec, None).to_xml(),
        Typed::Pool(spec) => storage::pool(&origin, &spec.path).to_xml(),
        Typed::Volume(spec) => {
            let bytes = spec.capacity_mib.map(storage::bytes).unwrap_or_default();
            let base = spec.base.as_ref().map(shown);
            storage::volume(&storage::volume_name(&origin, spec.format), spec.format, bytes, base.as_deref()).to_xml()
        }
        Typed::Seed(spec) => {
            let named = |name: &state::ids::SecretName| Ok::<_, state::ids::NameError>(format!("<{name}>"));
            let files = storage::seed_files(&origin, spec, &named).map_err(|error| wrong(error.to_string()))?;
            let scripts = files.into_iter().map(|(name, text)| providers::Script {
                name: format!("{}.{name}", resource.name),
                bytes: text.into_bytes(),
            });
            return Ok(scripts.collect());
        }
        Typed::Domain(spec) => {
            let mut known = spec.clone();
            for disk in &mut known.disks {
                disk.volume = providers::fields::Text::Literal(shown(&disk.volume));
            }
            for interface in &mut known.interfaces {
                interface.network = providers::fields::Text::Literal(shown(&interface.network));
            }
            let label = Label {
                stop_seconds: Some(spec.stop_seconds),
                ..label
            };
            let domain = Domain::new(&site.config, &origin, &known).map_err(wrong)?;
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
