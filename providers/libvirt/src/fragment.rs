//! A fragment of XML that an order adds to a domain's definition, for what its fields don't say.
//!
//! Only elements that stay within the guest are taken: none names a file, a device or a network of the host's.

use state::observation::FieldDrift;

use crate::compare;
use crate::xml::Element;

/// The largest fragment, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// The longest value of an attribute, or text of an element.
const MAX_VALUE: usize = 64;

/// What may stand in a fragment: the names on the way to an element, and the attributes that it may have.
const ALLOWED: &[(&str, &[&str])] = &[
    ("clock", &["offset"]),
    ("clock/timer", &["name", "present", "tickpolicy", "track"]),
    ("cpu", &["mode", "match", "check", "migratable"]),
    ("cpu/cache", &["level", "mode"]),
    ("cpu/feature", &["name", "policy"]),
    ("cpu/model", &["fallback"]),
    ("cpu/topology", &["sockets", "dies", "cores", "threads"]),
    ("cpu/vendor", &[]),
    ("description", &[]),
    ("devices", &[]),
    ("devices/input", &["bus", "type"]),
    ("devices/memballoon", &["autodeflate", "freePageReporting", "model"]),
    ("devices/memballoon/stats", &["period"]),
    ("devices/panic", &["model"]),
    ("devices/sound", &["model"]),
    ("devices/tpm", &["model"]),
    ("devices/tpm/backend", &["type", "version"]),
    ("devices/video", &[]),
    ("devices/video/model", &["heads", "primary", "ram", "type", "vgamem", "vram"]),
    ("devices/watchdog", &["action", "model"]),
    ("features", &[]),
    ("features/apic", &["eoi"]),
    ("features/hyperv", &["mode"]),
    ("features/hyperv/relaxed", &["state"]),
    ("features/hyperv/spinlocks", &["retries", "state"]),
    ("features/hyperv/vapic", &["state"]),
    ("features/kvm", &[]),
    ("features/kvm/hidden", &["state"]),
    ("features/pae", &[]),
    ("features/pmu", &["state"]),
    ("features/smm", &["state"]),
    ("features/vmport", &["state"]),
    ("on_crash", &[]),
    ("on_poweroff", &[]),
    ("on_reboot", &[]),
    ("pm", &[]),
    ("pm/suspend-to-disk", &["enabled"]),
    ("pm/suspend-to-mem", &["enabled"]),
    ("title", &[]),
];

/// A fragment that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment(Element);

impl Fragment {
    /// Reads and checks one: a `domain` with some of what it may hold. The text says what is wrong.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("{} bytes, at most {MAX_BYTES} are taken", text.len()));
        }
        let root = Element::read(text).map_err(|error| error.to_string())?;
        if root.name != "domain" || !root.attributes.is_empty() || root.children.is_empty() {
            return Err("it is a <domain> without attributes that holds what is to be added".to_owned());
        }
        for child in &root.children {
            check(child, &child.name)?;
        }
        for (index, child) in root.children.iter().enumerate() {
            if root.children[..index].iter().any(|before| before.name == child.name) {
                return Err(format!("{} stands there twice", child.name));
            }
        }
        Ok(Self(root))
    }

    /// As it is kept with a domain's label: the same fragment is the same text.
    pub(crate) fn to_text(&self) -> String {
        self.0.to_xml()
    }

    /// Puts it into a definition. What an earlier fragment has put there and this one doesn't hold is taken out.
    pub(crate) fn merge(earlier: Option<&Fragment>, now: Option<&Fragment>, definition: &mut Element) {
        let holds = |part: &Element, within: Option<&Element>| {
            within.is_some_and(|within| within.children.iter().any(|child| child.name == part.name && child == part))
        };
        for part in earlier.into_iter().flat_map(|earlier| &earlier.0.children) {
            let again = now.and_then(|now| now.0.child(&part.name));
            match part.name.as_str() {
                "devices" | "features" => {
                    let Some(place) = definition.children.iter_mut().find(|child| child.name == part.name) else {
                        continue;
                    };
                    for one in part.children.iter().filter(|one| !holds(one, again)) {
                        if let Some(index) = place.children.iter().position(|live| covers(one, live)) {
                            place.children.remove(index);
                        }
                    }
                }
                name if again.is_none() => definition.remove(name),
                _ => {}
            }
        }
        for part in now.into_iter().flat_map(|now| &now.0.children) {
            match part.name.as_str() {
                "devices" | "features" => {
                    let mut place = definition.child(&part.name).cloned().unwrap_or_else(|| Element::new(&part.name));
                    for one in &part.children {
                        if place.children.iter().any(|live| covers(one, live)) {
                            continue;
                        }
                        // A domain has one of each of these.
                        place.put(one.clone());
                    }
                    definition.put(place);
                }
                _ if definition.child(&part.name).is_some_and(|live| covers(part, live)) => {}
                _ => definition.put(part.clone()),
            }
        }
    }

    /// What of it a definition doesn't have.
    pub(crate) fn differences(&self, live: &Element, drift: &mut Vec<FieldDrift>) {
        for part in &self.0.children {
            let found = live.child(&part.name);
            match part.name.as_str() {
                "devices" | "features" => {
                    for one in &part.children {
                        let candidates: Vec<&Element> = found.into_iter().flat_map(|found| found.all(&one.name)).collect();
                        if !candidates.iter().any(|live| covers(one, live)) {
                            differs(drift, &format!("/xml/{}/{}", part.name, one.name), one, candidates.first().copied());
                        }
                    }
                }
                name => {
                    if !found.is_some_and(|live| covers(part, live)) {
                        differs(drift, &format!("/xml/{name}"), part, found);
                    }
                }
            }
        }
    }
}

fn differs(drift: &mut Vec<FieldDrift>, path: &str, wanted: &Element, found: Option<&Element>) {
    let text = |element: &Element| serde_json::Value::String(element.to_xml().trim_end().to_owned());
    compare(drift, path, text(wanted), found.map_or(serde_json::Value::Null, text));
}

/// Whether an element has everything that a part of one asks for. What the daemon has filled in besides is fine.
fn covers(part: &Element, live: &Element) -> bool {
    let attributes = part
        .attributes
        .iter()
        .all(|(name, value)| live.attribute(name).is_some_and(|found| found == value));
    part.name == live.name
        && attributes
        && (part.text.trim().is_empty() || part.text.trim() == live.text.trim())
        && part
            .children
            .iter()
            .all(|child| live.all(&child.name).any(|found| covers(child, found)))
}

fn check(element: &Element, path: &str) -> Result<(), String> {
    let Some((_, attributes)) = ALLOWED.iter().find(|(allowed, _)| *allowed == path) else {
        let all: Vec<&str> = ALLOWED
            .iter()
            .map(|(allowed, _)| *allowed)
            .filter(|one| !one.contains('/'))
            .collect();
        return Err(format!(
            "{path} may not stand in a fragment: what stays within the guest may, below {}",
            all.join(", ")
        ));
    };
    for (name, value) in &element.attributes {
        if !attributes.contains(&name.as_str()) {
            return Err(format!("{path} may not have the attribute {name} in a fragment"));
        }
        plain(path, value, false)?;
    }
    let says = matches!(path, "title" | "description");
    plain(path, element.text.trim(), says)?;
    for child in &element.children {
        check(child, &format!("{path}/{}", child.name))?;
    }
    Ok(())
}

/// A value without a path in it.
fn plain(path: &str, value: &str, says: bool) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+') || says && !c.is_control();
    match value.len() <= if says { 1_024 } else { MAX_VALUE } && value.chars().all(fine) {
        true => Ok(()),
        false => Err(format!("{path}: {value:?} is no plain word")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHDOG: &str = "<domain><clock offset='localtime'/><features><kvm><hidden state='on'/></kvm></features>\
                            <devices><watchdog model='i6300esb' action='reset'/></devices></domain>";

    #[test]
    fn what_reaches_out_of_the_guest_is_refused() {
        for (bad, words) in [
            ("<domain type='kvm'><title>x</title></domain>", "without attributes"),
            ("<network/>", "without attributes"),
            (
                "<domain><devices><disk type='file'/></devices></domain>",
                "devices/disk may not stand",
            ),
            ("<domain><devices><hostdev/></devices></domain>", "devices/hostdev may not stand"),
            ("<domain><seclabel type='none'/></domain>", "seclabel may not stand"),
            ("<domain><memory>9</memory></domain>", "memory may not stand"),
            ("<domain><qemu:commandline/></domain>", "qemu:commandline may not stand"),
            (
                "<domain><devices><tpm model='tpm-crb'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm></devices></domain>",
                "devices/tpm/backend/device may not stand",
            ),
            (
                "<domain><devices><watchdog model='/etc/passwd'/></devices></domain>",
                "no plain word",
            ),
            ("<domain><clock offset='utc' file='x'/></domain>", "may not have the attribute file"),
            ("<domain><title>a</title><title>b</title></domain>", "twice"),
            ("<domain><title>a</title>", "no XML"),
        ] {
            let said = Fragment::read(bad).unwrap_err();
            assert!(said.contains(words), "{bad}: {said}");
        }
        assert!(Fragment::read(&format!("<domain><title>{}</title></domain>", "x".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn a_fragment_is_put_in_once_and_taken_out_again() {
        let fragment = Fragment::read(WATCHDOG).unwrap();
        let before = Element::read(
            "<domain><features><acpi/></features><clock offset='utc'/><devices><disk device='disk'/><watchdog model='itco' action='reset'/></devices></domain>",
        )
        .unwrap();
        let paths = |live: &Element| {
            let mut drift = Vec::new();
            fragment.differences(live, &mut drift);
            drift.into_iter().map(|field| field.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(&before), ["/xml/clock", "/xml/features/kvm", "/xml/devices/watchdog"]);
        let mut with = before.clone();
        Fragment::merge(None, Some(&fragment), &mut with);
        assert!(paths(&with).is_empty());
        assert_eq!(with.at(&["devices"]).unwrap().all("watchdog").count(), 1);
        let once = with.clone();
        Fragment::merge(Some(&fragment), Some(&fragment), &mut with);
        assert_eq!(with, once);
        // What the daemon fills in besides is no difference.
        let filled = Element::read(&with.to_xml().replace("action=\"reset\"", "action=\"reset\" alias=\"x\"")).unwrap();
        assert!(paths(&filled).is_empty());
        let less = Fragment::read("<domain><clock offset='localtime'/></domain>").unwrap();
        Fragment::merge(Some(&fragment), Some(&less), &mut with);
        assert!(with.at(&["devices", "watchdog"]).is_none() && with.at(&["features", "kvm"]).is_none());
        assert!(with.at(&["features", "acpi"]).is_some() && with.child("clock").is_some());
        Fragment::merge(Some(&less), None, &mut with);
        assert!(with.child("clock").is_none());
    }
}
