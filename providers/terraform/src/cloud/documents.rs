//! What is read of a server's documents. All of it is untrusted: identities stand in paths.

use serde_json::Value;
use state::resource::Outputs;

use crate::plan;

/// A run, as far as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) message: String,
    pub(crate) confirmable: bool,
    pub(crate) discardable: bool,
    pub(crate) cancelable: bool,
    plan: Option<String>,
    apply: Option<String>,
}

/// A workspace, as far as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workspace {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) state: Option<String>,
    /// Who has locked it: the type and identity of somebody.
    pub(crate) locked: Option<String>,
    pub(crate) current_run: Option<String>,
}

/// Whether a text may be an identity.
fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// An object's identity.
pub(crate) fn id(value: &Value) -> Result<String, String> {
    let id = value["id"].as_str().filter(|id| is_id(id));
    id.map(str::to_owned).ok_or_else(|| "it has no identity".to_owned())
}

/// The identity of what a relationship leads to.
fn related(value: &Value, name: &str) -> Option<String> {
    id(&value["relationships"][name]["data"]).ok()
}

fn text(value: &Value, name: &str) -> String {
    value["attributes"][name].as_str().unwrap_or_default().to_owned()
}

impl Run {
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let action = |name: &str| value["attributes"]["actions"][name] == true;
        Ok(Self {
            id: id(value)?,
            status: text(value, "status"),
            message: text(value, "message"),
            confirmable: action("is-confirmable"),
            discardable: action("is-discardable"),
            cancelable: action("is-cancelable"),
            plan: related(value, "plan"),
            apply: related(value, "apply"),
        })
    }

    /// The path of its plan.
    pub(crate) fn plan(&self) -> Result<String, String> {
        let plan = self.plan.as_ref().ok_or("the run has no plan")?;
        Ok(format!("/plans/{plan}"))
    }

    /// The path of its application.
    pub(crate) fn apply(&self) -> Result<String, String> {
        let apply = self.apply.as_ref().ok_or("the run has no application")?;
        Ok(format!("/applies/{apply}"))
    }

    /// Whether nothing comes after its status. What nobody knows isn't final.
    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.status.as_str(),
            "planned_and_finished" | "applied" | "discarded" | "errored" | "canceled" | "force_canceled"
        )
    }

    /// Whether all that it planned is done.
    pub(crate) fn is_applied(&self) -> bool {
        self.status == "applied"
    }

    /// Whether somebody has ended it who is not its workspace's engine.
    pub(crate) fn was_ended(&self) -> bool {
        matches!(self.status.as_str(), "discarded" | "canceled" | "force_canceled")
    }
}

impl Workspace {
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let locked = match value["attributes"]["locked"] == true {
            false => None,
            true => Some(related(value, "locked-by").unwrap_or_else(|| "somebody".to_owned())),
        };
        Ok(Self {
            id: id(value)?,
            description: text(value, "description"),
            state: related(value, "current-state-version"),
            locked,
            current_run: related(value, "current-run"),
        })
    }
}

/// The outputs that stand beside a state version, without sensitive ones.
pub(crate) fn outputs(included: &Value) -> Outputs {
    let all = included.as_array().into_iter().flatten();
    let all = all.filter(|one| one["type"] == "state-version-outputs");
    let attributes: Vec<&Value> = all.map(|one| &one["attributes"]).collect();
    plan::outputs(attributes.iter().map(|output| {
        let name = output["name"].as_str().unwrap_or_default();
        (name, output["sensitive"] != false, &output["value"])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_would_lead_elsewhere_is_no_identity() {
        assert_eq!(id(&json!({ "id": "run-aB3" })).unwrap(), "run-aB3");
        for bad in [json!("../runs"), json!("a/b"), json!("a?b"), json!(""), json!(5)] {
            assert!(id(&json!({ "id": bad })).is_err());
        }
        let run = json!({ "id": "run-1", "attributes": { "status": "new_and_shiny" }, "relationships": { "plan": { "data": { "id": "../x" } } } });
        let run = Run::read(&run).unwrap();
        assert!(!run.is_over() && !run.confirmable && run.plan().is_err());
    }

    #[test]
    fn what_is_sensitive_is_no_output() {
        let output = |name: &str, sensitive: Value| json!({ "type": "state-version-outputs", "attributes": { "name": name, "sensitive": sensitive, "value": 1.5 } });
        let included = json!([output("a", json!(false)), output("b", json!(true)), output("c", Value::Null), { "type": "runs" }]);
        assert_eq!(serde_json::to_value(outputs(&included)).unwrap(), json!({ "a": "1.5" }));
    }
}
