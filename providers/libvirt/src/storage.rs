//! Pools and volumes: what is defined for them, and how those that are there differ.

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use state::ids::SecretName;
use state::resource::Origin;

use crate::names;
use crate::spec::{Format, SeedSpec};
use crate::xml::Element;

/// The smallest seed, in bytes.
const SEED: usize = 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// What is defined for a pool.
pub(crate) fn pool(origin: &Origin, path: &str) -> Element {
    Element::new("pool")
        .with("type", "dir")
        .holding(Element::new("name").saying(names::external(origin)))
        .holding(Element::new("uuid").saying(names::uuid("pool", origin)))
        .holding(Element::new("target").holding(Element::new("path").saying(path)))
}

/// Where a pool is.
pub(crate) fn pool_path(live: &Element) -> &str {
    live.at(&["target", "path"]).map_or("", |path| path.text.as_str())
}

/// The name of a volume's file.
pub(crate) fn volume_name(origin: &Origin, format: Format) -> String {
    format!("{}.{}", names::external(origin), format.word())
}

/// What is made for a volume, of so many bytes.
pub(crate) fn volume(name: &str, format: Format, bytes: u64, base: Option<&str>) -> Element {
    let volume = Element::new("volume")
        .holding(Element::new("name").saying(name))
        .holding(Element::new("capacity").with("unit", "bytes").saying(bytes));
    let volume = match format {
        Format::Qcow2 => volume.holding(Element::new("allocation").with("unit", "bytes").saying(0)),
        Format::Raw => volume,
    };
    let volume = volume.holding(
        Element::new("target")
            .holding(Element::new("format").with("type", format.word()))
            .holding(Element::new("permissions").holding(Element::new("mode").saying("0600"))),
    );
    match base {
        Some(base) => volume.holding(
            Element::new("backingStore")
                .holding(Element::new("path").saying(base))
                .holding(Element::new("format").with("type", Format::of(base).word())),
        ),
        None => volume,
    }
}

/// A capacity in bytes: every volume has a whole number of MiB.
pub(crate) fn bytes(mib: u64) -> u64 {
    mib.saturating_mul(MIB)
}

/// The capacity of a volume that is there, in bytes.
pub(crate) fn capacity(live: &Element) -> u64 {
    let Some(capacity) = live.child("capacity") else { return 0 };
    let unit = match capacity.attribute("unit") {
        Some("KiB") => 1024,
        Some("MiB") => MIB,
        Some("GiB") => MIB * 1024,
        _ => 1,
    };
    capacity.text.trim().parse::<u64>().unwrap_or_default().saturating_mul(unit)
}

/// What a volume that is there stands on.
pub(crate) fn base(live: &Element) -> Option<&str> {
    live.at(&["backingStore", "path"]).map(|path| path.text.as_str())
}

/// Where a volume that is there is.
pub(crate) fn volume_path(live: &Element) -> &str {
    live.at(&["target", "path"]).map_or("", |path| path.text.as_str())
}

/// The SHA-256 of what can be read, in hexadecimal digits.
pub(crate) fn sha256(mut from: impl Read) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            count => digest.update(&buffer[..count]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The files of a seed. A secret's text is what `secret` says.
pub(crate) fn seed_files<E>(
    origin: &Origin,
    spec: &SeedSpec,
    secret: &dyn Fn(&SecretName) -> Result<String, E>,
) -> Result<Vec<(&'static str, String)>, E>
where
    E: From<state::ids::NameError>,
{
    let user_data = match &spec.user_data {
        Value::String(text) => text.clone(),
        // What is JSON is YAML too.
        data => format!("#cloud-config\n{:#}\n", filled(data, secret)?),
    };
    let meta_data = match &spec.meta_data {
        Some(data) => filled(&Value::Object(data.clone()), secret)?,
        None => json!({ "instance-id": names::external(origin), "local-hostname": origin.resource }),
    };
    let mut files = vec![("meta-data", format!("{meta_data:#}\n")), ("user-data", user_data)];
    if let Some(data) = &spec.network_config {
        files.push(("network-config", format!("{:#}\n", filled(&Value::Object(data.clone()), secret)?)));
    }
    Ok(files)
}

/// Data with secrets in the place of their names.
fn filled<E>(data: &Value, secret: &dyn Fn(&SecretName) -> Result<String, E>) -> Result<Value, E>
where
    E: From<state::ids::NameError>,
{
    Ok(match data {
        Value::Object(map) if map.len() == 1 && map.contains_key("$secret") => {
            let name = map.get("$secret").and_then(Value::as_str).unwrap_or_default();
            Value::String(secret(&SecretName::new(name)?)?)
        }
        Value::Object(map) => {
            let mut all = Map::new();
            for (key, value) in map {
                all.insert(key.clone(), filled(value, secret)?);
            }
            Value::Object(all)
        }
        Value::Array(list) => Value::Array(list.iter().map(|value| filled(value, secret)).collect::<Result<_, _>>()?),
        other => other.clone(),
    })
}

/// The bytes of a seed: a FAT file system that cloud-init finds by its label. The same files give the same bytes.
pub(crate) fn seed_image(files: &[(&'static str, String)]) -> io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, text)| text.len()).sum();
    // Twice the content leaves room for the tables.
    let size = SEED.max((content * 2).next_multiple_of(SEED));
    let mut disk = io::Cursor::new(vec![0; size]);
    let options = fatfs::FormatVolumeOptions::new()
        .volume_label(*b"CIDATA     ")
        .volume_id(0x00c1_da7a);
    fatfs::format_volume(&mut disk, options)?;
    disk.seek(SeekFrom::Start(0))?;
    {
        let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new().update_accessed_date(false))?;
        for (name, text) in files {
            let mut file = system.root_dir().create_file(name)?;
            file.truncate()?;
            file.write_all(text.as_bytes())?;
            file.flush()?;
        }
        system.unmount()?;
    }
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_function_of_its_files_and_holds_them() {
        let files = [("meta-data", "{}\n".to_owned()), ("user-data", "#cloud-config\n".repeat(100))];
        let image = seed_image(&files).unwrap();
        assert_eq!(image, seed_image(&files).unwrap());
        let system = fatfs::FileSystem::new(io::Cursor::new(image), fatfs::FsOptions::new()).unwrap();
        assert_eq!(system.volume_label(), "CIDATA");
        let mut text = String::new();
        system.root_dir().open_file("user-data").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, files[1].1);
    }

    #[test]
    fn secrets_are_filled_in_wherever_they_stand() {
        let spec: SeedSpec = serde_json::from_value(json!({
            "pool": "ch.data", "user_data": { "users": [{ "name": "me", "passwd": { "$secret": "pass" } }] }, "network_config": { "version": 2 },
        }))
        .unwrap();
        let secret = |name: &SecretName| Ok::<_, state::ids::NameError>(format!("<{name}>"));
        let files = seed_files(&"ch/web".parse().unwrap(), &spec, &secret).unwrap();
        let text = |name: &str| files.iter().find(|(found, _)| *found == name).unwrap().1.clone();
        assert!(text("user-data").starts_with("#cloud-config\n{") && text("user-data").contains("\"<pass>\""));
        assert!(text("meta-data").contains("\"local-hostname\": \"web\"") && text("network-config").contains("\"version\": 2"));
    }

    #[test]
    fn capacities_are_read_in_any_unit() {
        for (unit, text, wanted) in [("bytes", "1024", 1024), ("KiB", "2", 2048), ("GiB", "1", 1 << 30)] {
            let volume = Element::new("volume").holding(Element::new("capacity").with("unit", unit).saying(text));
            assert_eq!(capacity(&volume), wanted);
        }
    }
}
