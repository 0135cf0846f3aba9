//! An engine's plan, as it says it in JSON: what would be made, changed and destroyed, attribute by attribute.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use state::canonical::Digest;
use state::ids::OutputName;
use state::observation::FieldDrift;
use state::resource::Outputs;

/// The most fields of a plan that are shown one by one.
const MAX_FIELDS: usize = 200;

/// A plan, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct EnginePlan {
    #[serde(default)]
    resource_changes: Vec<ResourceChange>,
    #[serde(default)]
    output_changes: BTreeMap<String, Change>,
    #[serde(default)]
    prior_state: Option<PriorState>,
    #[serde(default)]
    configuration: Configuration,
    #[serde(default)]
    errored: bool,
    #[serde(default = "yes")]
    complete: bool,
}

fn yes() -> bool {
    true
}

/// What the plan says of its configuration.
#[derive(Clone, Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    provider_config: BTreeMap<String, ProviderConfig>,
}

#[derive(Clone, Debug, Deserialize)]
struct ProviderConfig {
    #[serde(default)]
    full_name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ResourceChange {
    address: String,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    provider_name: String,
    change: Change,
}

#[derive(Clone, Debug, Deserialize)]
struct Change {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    before_sensitive: Value,
    #[serde(default)]
    after_sensitive: Value,
}

#[derive(Clone, Debug, Deserialize)]
struct PriorState {
    #[serde(default)]
    values: Option<StateValues>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct StateValues {
    #[serde(default)]
    outputs: BTreeMap<String, StateOutput>,
}

#[derive(Clone, Debug, Deserialize)]
struct StateOutput {
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    value: Value,
}

/// What a plan does to a thing, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    Destroy,
    Replace,
    Update,
    Create,
}

impl ResourceChange {
    fn effect(&self) -> Option<Effect> {
        if self.mode == "data" {
            return None;
        }
        let has = |action: &str| self.change.actions.iter().any(|one| one == action);
        match (has("delete"), has("create"), has("update")) {
            (true, true, _) => Some(Effect::Replace),
            (true, false, _) => Some(Effect::Destroy),
            (false, true, _) => Some(Effect::Create),
            (false, false, true) => Some(Effect::Update),
            // Nothing, reading, and letting go without touching.
            (false, false, false) => None,
        }
    }
}

impl EnginePlan {
    /// Reads one. The text says why it is none.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let plan: Self = serde_json::from_slice(bytes).map_err(|error| format!("the engine's plan can't be read: {error}"))?;
        match (plan.errored, plan.complete) {
            (true, _) => Err("the engine's plan is one that failed".to_owned()),
            (false, false) => Err("the engine's plan is not complete: it defers some changes to another one".to_owned()),
            (false, true) => Ok(plan),
        }
    }

    /// The providers that it takes, but for what is built into every engine.
    pub(crate) fn providers(&self) -> BTreeSet<&str> {
        let configured = self.configuration.provider_config.values().map(|one| one.full_name.as_str());
        let used = self.resource_changes.iter().map(|change| change.provider_name.as_str());
        let all = configured.chain(used);
        all.filter(|source| !source.is_empty() && !source.starts_with("terraform.io/builtin/"))
            .collect()
    }

    /// A digest of what it does, as it is shown.
    pub(crate) fn digest(&self) -> String {
        let text = serde_json::to_vec(&(self.drift(), self.destroyed())).unwrap_or_default();
        Digest::of(&text).hex()
    }

    /// The things that it destroys, for good or to make them anew.
    pub(crate) fn destroyed(&self) -> Vec<&str> {
        let gone = |change: &&ResourceChange| matches!(change.effect(), Some(Effect::Destroy | Effect::Replace));
        self.resource_changes
            .iter()
            .filter(gone)
            .map(|change| change.address.as_str())
            .collect()
    }

    /// Whether there is nothing yet: everything that it is about is made by it.
    pub(crate) fn only_creates(&self) -> bool {
        let mut managed = self.resource_changes.iter().filter(|change| change.mode != "data");
        managed.all(|change| change.effect() == Some(Effect::Create))
    }

    fn prior(&self) -> &BTreeMap<String, StateOutput> {
        static NONE: BTreeMap<String, StateOutput> = BTreeMap::new();
        let values = self.prior_state.as_ref().and_then(|state| state.values.as_ref());
        values.map_or(&NONE, |values| &values.outputs)
    }

    /// What differs from the configuration, the worst first: a thing, or an attribute of one. Sensitive values are not shown.
    pub(crate) fn drift(&self) -> Vec<FieldDrift> {
        let mut all: Vec<(Effect, FieldDrift)> = Vec::new();
        for resource in &self.resource_changes {
            let at = format!("/{}", escaped(&resource.address));
            match resource.effect() {
                None => {}
                Some(Effect::Update) => {
                    let mut fields = Vec::new();
                    let change = &resource.change;
                    differences(
                        &at,
                        [&change.before, &change.after],
                        &change.after_unknown,
                        [&change.before_sensitive, &change.after_sensitive],
                        &mut fields,
                    );
                    // What is known only afterwards follows from what is asked for, where something is.
                    let (asked, follows): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(comes, _)| !comes);
                    let mut fields = if asked.is_empty() { follows } else { asked };
                    if fields.is_empty() {
                        fields.push((false, field(&at, None, None)));
                    }
                    all.extend(fields.into_iter().map(|(_, field)| (Effect::Update, field)));
                }
                Some(Effect::Create) => all.push((Effect::Create, field(&at, Some(json!("created")), None))),
                Some(Effect::Destroy) => all.push((Effect::Destroy, field(&at, None, Some(json!("destroyed"))))),
                Some(Effect::Replace) => all.push((Effect::Replace, field(&at, Some(json!("destroyed and created")), None))),
            }
        }
        // What is given follows from what is there: where that differs, it is told of that.
        if all.is_empty() {
            let changed = |change: &Change| change.actions.iter().any(|action| action != "no-op");
            for (name, change) in self.output_changes.iter().filter(|(_, change)| changed(change)) {
                let wanted = match marked(&change.after_unknown) {
                    true => None,
                    false => shown(&change.after, &change.after_sensitive),
                };
                let found = shown(&change.before, &change.before_sensitive);
                all.push((Effect::Update, field(&format!("/outputs/{}", escaped(name)), wanted, found)));
            }
        }
        all.sort_by(|(left, a), (right, b)| (left, &a.path).cmp(&(right, &b.path)));
        let more = all.len().saturating_sub(MAX_FIELDS);
        let mut fields: Vec<FieldDrift> = all.into_iter().take(MAX_FIELDS).map(|(_, field)| field).collect();
        if more > 0 {
            fields.push(field("/…", Some(json!(format!("{more} differences more"))), None));
        }
        fields
    }

    /// The outputs of what is there, without sensitive ones.
    pub(crate) fn outputs(&self) -> Outputs {
        outputs(
            self.prior()
                .iter()
                .map(|(name, output)| (name.as_str(), output.sensitive, &output.value)),
        )
    }
}

/// Reads what the engine says its outputs are.
pub(crate) fn read_outputs(bytes: &[u8]) -> Result<Outputs, String> {
    let all: BTreeMap<String, StateOutput> =
        serde_json::from_slice(bytes).map_err(|error| format!("the engine's outputs can't be read: {error}"))?;
    Ok(outputs(
        all.iter().map(|(name, output)| (name.as_str(), output.sensitive, &output.value)),
    ))
}

/// Outputs by their names, whether they are sensitive, and their values.
pub(crate) fn outputs<'a>(all: impl Iterator<Item = (&'a str, bool, &'a Value)>) -> Outputs {
    all.filter(|(_, sensitive, _)| !sensitive)
        .filter_map(|(name, _, value)| Some((OutputName::new(name).ok()?, exact(value))))
        .collect()
}

fn field(path: &str, wanted: Option<Value>, found: Option<Value>) -> FieldDrift {
    FieldDrift {
        path: path.to_owned(),
        wanted,
        found,
    }
}

/// A part of a JSON pointer.
fn escaped(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

/// A value without floating point: such a number becomes its digits.
fn exact(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::String(number.to_string()),
        Value::Array(list) => Value::Array(list.iter().map(exact).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(name, value)| (name.clone(), exact(value))).collect()),
        other => other.clone(),
    }
}

/// Whether a mark of the engine's (sensitive, unknown) is set on a value or anywhere in it.
fn marked(mark: &Value) -> bool {
    match mark {
        Value::Bool(set) => *set,
        Value::Array(list) => list.iter().any(marked),
        Value::Object(map) => map.values().any(marked),
        _ => false,
    }
}

/// A value as it may be shown.
fn shown(value: &Value, mark: &Value) -> Option<Value> {
    match marked(mark) || value.is_null() {
        true => None,
        false => Some(exact(value)),
    }
}

fn child<'a>(value: &'a Value, name: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    value.get(name).unwrap_or(&NONE)
}

/// The attributes that differ: before and after, and what of them is unknown or sensitive. With each: whether it is known only afterwards.
fn differences(
    at: &str,
    [before, after]: [&Value; 2],
    unknown: &Value,
    [hidden, veiled]: [&Value; 2],
    fields: &mut Vec<(bool, FieldDrift)>,
) {
    let whole = [hidden, veiled].into_iter().any(|mark| mark == &Value::Bool(true));
    if let (Value::Object(old), Value::Object(new), false) = (before, after, whole) {
        let empty = Map::new();
        let unknown_names = unknown.as_object().unwrap_or(&empty);
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).chain(unknown_names.keys()).collect();
        for name in names {
            differences(
                &format!("{at}/{}", escaped(name)),
                [child(before, name), child(after, name)],
                child(unknown, name),
                [child(hidden, name), child(veiled, name)],
                fields,
            );
        }
        return;
    }
    let comes = marked(unknown);
    if before == after && !comes {
        return;
    }
    let wanted = if comes { None } else { shown(after, veiled) };
    fields.push((comes, field(at, wanted, shown(before, hidden))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(value: &Value) -> EnginePlan {
        EnginePlan::read(value.to_string().as_bytes()).unwrap()
    }

    fn change(address: &str, actions: &[&str], before: Value, after: Value) -> Value {
        json!({ "address": address, "mode": "managed", "change": { "actions": actions, "before": before, "after": after } })
    }

    #[test]
    fn a_plan_is_read_attribute_by_attribute_and_secrets_are_not_shown() {
        let mut update = change(
            "x.b",
            &["update"],
            json!({ "size": 1.5, "tags": { "a": "1" }, "token": "old", "same": 1, "id": "i" }),
            json!({ "size": 2, "tags": { "a": "2" }, "token": "new", "same": 1 }),
        );
        update["change"]["after_sensitive"] = json!({ "token": true });
        update["change"]["before_sensitive"] = json!({ "token": true });
        update["change"]["after_unknown"] = json!({ "id": true });
        let plan = plan(&json!({ "resource_changes": [
            change("x.z[\"a/b\"]", &["create"], Value::Null, json!({})), update,
            change("x.c", &["delete", "create"], json!({}), json!({})), change("x.d", &["delete"], json!({}), Value::Null),
            change("x.e", &["no-op"], json!({}), json!({})), change("x.f", &["forget"], json!({}), Value::Null),
            { "address": "data.x.g", "mode": "data", "change": { "actions": ["read"] } },
        ] }));
        let drift = plan.drift();
        let paths: Vec<&str> = drift.iter().map(|field| field.path.as_str()).collect();
        assert_eq!(paths, ["/x.d", "/x.c", "/x.b/size", "/x.b/tags/a", "/x.b/token", "/x.z[\"a~1b\"]"]);
        assert_eq!((&drift[2].wanted, &drift[2].found), (&Some(json!(2)), &Some(json!("1.5"))));
        assert_eq!((&drift[4].wanted, &drift[4].found), (&None, &None));
        assert_eq!(plan.destroyed(), ["x.c", "x.d"]);
        assert!(!plan.only_creates());
    }

    #[test]
    fn what_is_no_whole_plan_is_refused_and_long_ones_are_cut() {
        for (bad, words) in [
            (json!({ "errored": true }), "failed"),
            (json!({ "complete": false }), "not complete"),
            (json!({ "resource_changes": [{}] }), "can't be read"),
        ] {
            let said = EnginePlan::read(bad.to_string().as_bytes()).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let many: Vec<Value> = (0..500)
            .map(|index| change(&format!("x.a[{index}]"), &["create"], Value::Null, json!({})))
            .collect();
        let drift = plan(&json!({ "resource_changes": many })).drift();
        assert_eq!(drift.len(), MAX_FIELDS + 1);
        assert_eq!(drift[MAX_FIELDS].wanted, Some(json!("300 differences more")));
    }

    #[test]
    fn sensitive_outputs_stay_and_numbers_are_exact() {
        let outputs = read_outputs(
            json!({ "a": { "value": 0.5 }, "b": { "sensitive": true, "value": "x" }, "Bad": { "value": 1 }, "c": { "value": [1, 2.5] } })
                .to_string()
                .as_bytes(),
        );
        assert_eq!(
            serde_json::to_value(outputs.unwrap()).unwrap(),
            json!({ "a": "0.5", "c": [1, "2.5"] })
        );
    }
}
