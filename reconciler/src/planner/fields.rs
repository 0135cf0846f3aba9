//! Changed fields: from what is there to what will be, with values that are known only later left open.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use state::canonical::CanonicalError;
use state::ids::ResourceName;
use state::observation::FieldDrift;
use state::plan::FieldChange;
use state::resource::Resource;
use state::spec::pointer_token;

use super::references::{Known, reference};

/// Every field of a new specification.
pub(super) fn created(resource: &Resource, known: &Known<'_>) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare_maps("", &Map::new(), resource.spec.as_map(), known, &mut changes);
    changes
}

/// The fields in which an order differs from what was applied: the specification's, and the resource's own by their names.
pub(super) fn amended(applied: &Resource, ordered: &Resource, known: &Known<'_>) -> Result<Vec<FieldChange>, CanonicalError> {
    let mut changes = Vec::new();
    compare_maps("", applied.spec.as_map(), ordered.spec.as_map(), known, &mut changes);
    own_fields(applied, ordered, &mut changes)?;
    Ok(changes)
}

/// The fields outside the specification in which an order differs from what was applied.
pub(super) fn own_fields(applied: &Resource, ordered: &Resource, changes: &mut Vec<FieldChange>) -> Result<(), CanonicalError> {
    // What was applied names what its references meant among its dependencies: a reference is told as the field that holds it.
    let referred: BTreeSet<&ResourceName> = ordered.spec.referred().collect();
    let named = |all: &BTreeSet<ResourceName>| -> BTreeSet<ResourceName> {
        let named = all.iter().filter(|name| !referred.contains(name));
        named.cloned().collect()
    };
    let (came_after, comes_after) = (named(&applied.depends_on), named(&ordered.depends_on));
    for (path, same, from, to) in [
        (
            "region",
            applied.region == ordered.region,
            applied.region.as_ref().map(|r| Value::String(r.to_string())),
            ordered.region.as_ref().map(|r| Value::String(r.to_string())),
        ),
        (
            "on_retire",
            applied.on_retire == ordered.on_retire,
            Some(serde_json::to_value(applied.on_retire)?),
            Some(serde_json::to_value(ordered.on_retire)?),
        ),
        (
            "on_drift",
            applied.on_drift == ordered.on_drift,
            Some(serde_json::to_value(applied.on_drift)?),
            Some(serde_json::to_value(ordered.on_drift)?),
        ),
        (
            "protect",
            applied.protect == ordered.protect,
            Some(Value::Bool(applied.protect)),
            Some(Value::Bool(ordered.protect)),
        ),
        (
            "adopt",
            applied.adopt == ordered.adopt,
            Some(Value::Bool(applied.adopt)),
            Some(Value::Bool(ordered.adopt)),
        ),
        (
            "depends_on",
            came_after == comes_after,
            Some(names(&came_after)),
            Some(names(&comes_after)),
        ),
        (
            "exports",
            applied.exports == ordered.exports,
            Some(names(&applied.exports)),
            Some(names(&ordered.exports)),
        ),
    ] {
        if !same {
            changes.push(FieldChange {
                path: path.to_owned(),
                from,
                to,
            });
        }
    }
    Ok(())
}

fn names<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    items.into_iter().map(|item| Value::String(item.to_string())).collect()
}

/// The fields that an observation found different.
pub(super) fn drifted(drift: &[FieldDrift]) -> Vec<FieldChange> {
    drift
        .iter()
        .map(|field| FieldChange {
            path: field.path.clone(),
            from: field.found.clone(),
            to: field.wanted.clone(),
        })
        .collect()
}

/// The fields that refer to one of `resources`, whose values are known after these are made anew.
pub(super) fn referring(applied: &Resource, ordered: &Resource, resources: &dyn Fn(&str) -> bool) -> Vec<FieldChange> {
    fn walk(path: &str, applied: Option<&Value>, ordered: &Value, resources: &dyn Fn(&str) -> bool, out: &mut Vec<FieldChange>) {
        if let Some((resource, _)) = reference(ordered) {
            if resources(resource) {
                out.push(FieldChange {
                    path: path.to_owned(),
                    from: applied.cloned(),
                    to: None,
                });
            }
            return;
        }
        match ordered {
            Value::Object(map) => {
                for (key, value) in map {
                    let inner = applied.and_then(|applied| applied.get(key));
                    walk(&format!("{path}/{}", pointer_token(key)), inner, value, resources, out);
                }
            }
            Value::Array(items) => {
                for (at, value) in items.iter().enumerate() {
                    walk(
                        &format!("{path}/{at}"),
                        applied.and_then(|applied| applied.get(at)),
                        value,
                        resources,
                        out,
                    );
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for (key, value) in ordered.spec.as_map() {
        walk(
            &format!("/{}", pointer_token(key)),
            applied.spec.as_map().get(key),
            value,
            resources,
            &mut out,
        );
    }
    out
}

fn compare_maps(at: &str, from: &Map<String, Value>, to: &Map<String, Value>, known: &Known<'_>, out: &mut Vec<FieldChange>) {
    for (key, was) in from {
        if !to.contains_key(key) {
            out.push(FieldChange {
                path: format!("{at}/{}", pointer_token(key)),
                from: Some(was.clone()),
                to: None,
            });
        }
    }
    for (key, will) in to {
        compare(&format!("{at}/{}", pointer_token(key)), from.get(key), will, known, out);
    }
}

fn compare(at: &str, from: Option<&Value>, to: &Value, known: &Known<'_>, out: &mut Vec<FieldChange>) {
    if let Some((resource, output)) = reference(to) {
        let value = known.output(resource, output);
        if value.is_none() || value != from {
            out.push(FieldChange {
                path: at.to_owned(),
                from: from.cloned(),
                to: value.cloned(),
            });
        }
        return;
    }
    match (from, to) {
        (Some(Value::Object(from)), Value::Object(to)) => compare_maps(at, from, to, known, out),
        (None, Value::Object(to)) if !to.is_empty() && !to.contains_key("$secret") => compare_maps(at, &Map::new(), to, known, out),
        (Some(Value::Array(from)), Value::Array(to)) if from.len() == to.len() => {
            for (index, (from, to)) in from.iter().zip(to).enumerate() {
                compare(&format!("{at}/{index}"), Some(from), to, known, out);
            }
        }
        (None, Value::Array(to)) if to.iter().any(Value::is_object) => {
            for (index, to) in to.iter().enumerate() {
                compare(&format!("{at}/{index}"), None, to, known, out);
            }
        }
        (Some(from), to) if from == to => {}
        _ => out.push(FieldChange {
            path: at.to_owned(),
            from: from.cloned(),
            to: Some(to.clone()),
        }),
    }
}
