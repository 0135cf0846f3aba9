//! Networks: what is defined for one, and how one that is there differs.

use serde_json::json;
use state::observation::FieldDrift;
use state::resource::Origin;

use crate::compare;
use crate::label::{Label, relabel};
use crate::names;
use crate::spec::{Forward, NetworkSpec};
use crate::wire::{Seen, SeenDomain};
use crate::xml::Element;

/// What is defined. Of one that is there, everything is kept that nobody asks for otherwise.
pub(crate) fn definition(origin: &Origin, label: &Label, spec: &NetworkSpec, live: Option<&Element>) -> Element {
    let mut network = match live {
        Some(live) => live.clone(),
        None => Element::new("network")
            .holding(Element::new("name").saying(names::external(origin)))
            .holding(Element::new("uuid").saying(names::uuid("network", origin)))
            .holding(
                Element::new("bridge")
                    .with("name", names::bridge(origin))
                    .with("stp", "on")
                    .with("delay", "0"),
            )
            .holding(Element::new("mac").with("address", names::mac(origin, usize::MAX))),
    };
    relabel(&mut network, Some(label));
    network.remove("forward");
    if spec.forward == Forward::Nat {
        network.children.push(Element::new("forward").with("mode", "nat"));
    }
    let mut ip = Element::new("ip")
        .with("address", spec.address.address())
        .with("netmask", spec.address.netmask());
    if let Some(dhcp) = &spec.dhcp {
        ip = ip.holding(Element::new("dhcp").holding(Element::new("range").with("start", dhcp.from).with("end", dhcp.to)));
    }
    network.remove("ip");
    network.children.push(ip);
    network
}

/// The running domains that have an interface in a network.
pub(crate) fn users<'a>(seen: &'a Seen, network: &str) -> Vec<&'a str> {
    let uses = |domain: &&SeenDomain| {
        let active = domain.active.as_ref().and_then(|text| Element::read(text).ok());
        active
            .as_ref()
            .and_then(|active| active.child("devices"))
            .is_some_and(|devices| devices.all("interface").any(|one| one.of("source", "network") == Some(network)))
    };
    seen.domains.iter().filter(uses).map(|domain| domain.name.as_str()).collect()
}

/// Why a running network can't be changed in these fields: what it is to its guests.
pub(crate) fn held(seen: &Seen, network: &str, differences: &[FieldDrift]) -> Option<String> {
    let users = users(seen, network);
    let held = !users.is_empty() && differences.iter().any(|field| field.path != "/dhcp");
    held.then(|| {
        format!(
            "a network is not taken from under its guests: {} has an interface in it",
            users.join(", ")
        )
    })
}

/// The addresses that a network hands out, as a part of its definition.
pub(crate) fn range(network: &Element) -> Option<Element> {
    let range = network.at(&["ip", "dhcp", "range"])?;
    // What the daemon keeps of the range's leases is no part of it.
    let said = |name: &str| range.attribute(name).unwrap_or_default().to_owned();
    Some(Element::new("range").with("start", said("start")).with("end", said("end")))
}

/// How a network differs from what is asked for.
pub(crate) fn differences(spec: &NetworkSpec, live: &Element) -> Vec<FieldDrift> {
    let mut drift = Vec::new();
    let forward = live
        .child("forward")
        .map_or("isolated", |forward| forward.attribute("mode").unwrap_or("nat"));
    let wanted = match spec.forward {
        Forward::Isolated => "isolated",
        Forward::Nat => "nat",
    };
    compare(&mut drift, "/forward", json!(wanted), json!(forward));
    let ip = live.child("ip");
    let said = |name: &str| ip.and_then(|ip| ip.attribute(name));
    compare(
        &mut drift,
        "/address",
        json!(format!("{} {}", spec.address.address(), spec.address.netmask())),
        json!(format!(
            "{} {}",
            said("address").unwrap_or("none"),
            said("netmask").unwrap_or("none")
        )),
    );
    let range = ip.and_then(|ip| ip.at(&["dhcp", "range"]));
    let range = range.map(|range| json!({ "from": range.attribute("start"), "to": range.attribute("end") }));
    let wanted = spec.dhcp.as_ref().map(|dhcp| json!({ "from": dhcp.from, "to": dhcp.to }));
    compare(&mut drift, "/dhcp", json!(wanted), json!(range));
    drift
}
