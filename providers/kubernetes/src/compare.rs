//! What is there against what applying would make of it: only fields that Charter applies can differ.

use serde_json::{Map, Value};
use state::observation::FieldDrift;
use state::spec::pointer_token;

use crate::object::LABEL_PREFIX;

/// The most fields that are named.
const MAX_FIELDS: usize = 64;
/// The longest value that is shown.
const SHOWN: usize = 200;
/// What the server writes by itself.
const SERVERS: [&str; 7] = [
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
    "deletionGracePeriodSeconds",
];

/// Names each field in which what is there differs from what applying would make of it, below a place.
pub(crate) fn differences(live: &Value, applied: &Value, at: &str, hide: bool) -> Vec<FieldDrift> {
    let mut fields = Vec::new();
    let (Value::Object(live), Value::Object(applied)) = (live, applied) else {
        return fields;
    };
    let keys = |map: &Map<String, Value>| -> Vec<String> { map.keys().cloned().collect() };
    let mut all = keys(live);
    all.extend(keys(applied).into_iter().filter(|key| !live.contains_key(key)));
    for key in all.iter().filter(|key| *key != "status") {
        let hide = hide && key != "metadata";
        let path = format!("{at}/{}", pointer_token(key));
        if key == "metadata" {
            let strip = |value: Option<&Value>| {
                let mut map = value.and_then(Value::as_object).cloned().unwrap_or_default();
                SERVERS.iter().for_each(|field| {
                    map.remove(*field);
                });
                Value::Object(map)
            };
            walk(path, Some(&strip(live.get(key))), Some(&strip(applied.get(key))), hide, &mut fields);
        } else {
            walk(path, live.get(key), applied.get(key), hide, &mut fields);
        }
    }
    fields.truncate(MAX_FIELDS);
    fields
}

/// The object without Charter's own labels and annotations: whose it would be is said by the plan itself.
pub(crate) fn unlabelled(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["labels", "annotations"] {
            let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) else {
                continue;
            };
            map.retain(|key, _| !key.starts_with(LABEL_PREFIX));
            if map.is_empty() {
                metadata.remove(field);
            }
        }
    }
    object
}

fn walk(path: String, live: Option<&Value>, applied: Option<&Value>, hide: bool, fields: &mut Vec<FieldDrift>) {
    match (live, applied) {
        (Some(live), Some(applied)) if live == applied => {}
        (Some(Value::Object(live)), Some(Value::Object(applied))) => {
            for key in live.keys().chain(applied.keys().filter(|key| !live.contains_key(*key))) {
                let path = format!("{path}/{}", pointer_token(key));
                walk(path, live.get(key), applied.get(key), hide, fields);
            }
        }
        (Some(Value::Array(live)), Some(Value::Array(applied))) if live.len() == applied.len() => {
            for (index, (live, applied)) in live.iter().zip(applied).enumerate() {
                walk(format!("{path}/{index}"), Some(live), Some(applied), hide, fields);
            }
        }
        _ => fields.push(FieldDrift {
            path,
            wanted: applied.filter(|_| !hide).map(shown),
            found: live.filter(|_| !hide).map(shown),
        }),
    }
}

fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => cut(text),
        // State holds no floating point: what a server writes so is shown as text.
        Value::Number(number) if number.is_f64() => Value::String(number.to_string()),
        Value::Object(_) | Value::Array(_) => cut(&value.to_string()),
        value => value.clone(),
    }
}

fn cut(text: &str) -> Value {
    match text.char_indices().nth(SHOWN) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_applying_would_change_differs() {
        let live = json!({
            "metadata": { "name": "x", "resourceVersion": "4", "labels": { "a": "1", "b/c": "2" } },
            "spec": { "replicas": 3, "ports": [{ "port": 80 }] }, "status": { "ready": 1 },
        });
        let mut applied = live.clone();
        applied["metadata"]["resourceVersion"] = json!("5");
        applied["status"] = json!({});
        assert!(differences(&live, &applied, "/objects/0", false).is_empty());
        applied["metadata"]["labels"]["b/c"] = json!("3");
        applied["spec"]["ports"][0]["port"] = json!(81);
        let paths: Vec<String> = differences(&live, &applied, "/objects/0", false)
            .into_iter()
            .map(|field| field.path)
            .collect();
        assert_eq!(paths, ["/objects/0/metadata/labels/b~1c", "/objects/0/spec/ports/0/port"]);
    }

    #[test]
    fn a_secrets_values_are_never_shown() {
        let (live, applied) = (json!({ "data": { "p": "Y2FuYXJ5" } }), json!({ "data": { "p": "b3RoZXI=" } }));
        let fields = differences(&live, &applied, "", true);
        assert_eq!(
            (fields[0].path.as_str(), &fields[0].wanted, &fields[0].found),
            ("/data/p", &None, &None)
        );
    }
}
