//! Whether an object is ready, by the rules that the field calls kstatus: what a controller has seen, what it says, and a few kinds' own words.

use serde_json::Value;

/// How an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is what it was made to be.
    Ready,
    /// It is on its way, or has failed on it.
    Waits(String),
}

fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

/// A condition of an object: its status, and why.
fn condition<'a>(object: &'a Value, name: &str) -> Option<(&'a str, String)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let one = all.iter().find(|one| text(one, "/type") == Some(name))?;
    let why = text(one, "/message")
        .filter(|message| !message.is_empty())
        .or_else(|| text(one, "/reason"));
    Some((text(one, "/status")?, why.unwrap_or_default().chars().take(300).collect()))
}

fn is(object: &Value, name: &str, status: &str) -> bool {
    condition(object, name).is_some_and(|(found, _)| found == status)
}

/// How a live object stands.
pub(crate) fn health(object: &Value) -> Health {
    match waits(object) {
        Some(why) => Health::Waits(why),
        None => Health::Ready,
    }
}

fn waits(object: &Value) -> Option<String> {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Some("it is being deleted".into());
    }
    let (generation, observed) = (number(object, "/metadata/generation"), number(object, "/status/observedGeneration"));
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return Some("its controller has not seen its last change yet".into());
    }
    if let Some(("True", why)) = condition(object, "Stalled") {
        return Some(format!("it has failed: {why}"));
    }
    if let Some(("True", why)) = condition(object, "Reconciling") {
        return Some(why);
    }
    let group = text(object, "/apiVersion")?.split_once('/').map_or("", |(group, _)| group);
    match (group, text(object, "/kind")?) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") => replicas(object, "/status/availableReplicas", "available"),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => phase(object, "Bound"),
        ("", "Namespace") => phase(object, "Active"),
        ("", "Service") => load_balancer(object),
        ("batch", "Job") => job(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => established(object),
        ("autoscaling" | "policy" | "networking.k8s.io" | "batch" | "rbac.authorization.k8s.io", _) | ("", _) => None,
        _ => match condition(object, "Ready") {
            Some(("True", _)) | None => None,
            Some((_, why)) => Some(format!("it is not ready: {why}")),
        },
    }
}

fn wanted(object: &Value) -> u64 {
    number(object, "/spec/replicas").unwrap_or(1)
}

fn replicas(object: &Value, pointer: &str, word: &str) -> Option<String> {
    let (wanted, have) = (wanted(object), number(object, pointer).unwrap_or(0));
    (have < wanted).then(|| format!("{have} of {wanted} replicas are {word}"))
}

fn deployment(object: &Value) -> Option<String> {
    if object.pointer("/status/observedGeneration").is_none() {
        return Some("its controller has not seen it yet".into());
    }
    if let Some(("False", why)) = condition(object, "Progressing") {
        return Some(format!("it has failed: {why}"));
    }
    let total = number(object, "/status/replicas").unwrap_or(0);
    replicas(object, "/status/updatedReplicas", "updated")
        .or_else(|| (total > wanted(object)).then(|| format!("{} old replicas are still there", total - wanted(object))))
        .or_else(|| replicas(object, "/status/availableReplicas", "available"))
}

fn stateful_set(object: &Value) -> Option<String> {
    if text(object, "/spec/updateStrategy/type") == Some("OnDelete") {
        return None;
    }
    if object.pointer("/status/observedGeneration").is_none() {
        return Some("its controller has not seen it yet".into());
    }
    replicas(object, "/status/readyReplicas", "ready").or_else(|| {
        let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
        let settled = partition > 0 || text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
        (!settled).then(|| "its replicas are being updated".into())
    })
}

fn daemon_set(object: &Value) -> Option<String> {
    if object.pointer("/status/observedGeneration").is_none() {
        return Some("its controller has not seen it yet".into());
    }
    let wanted = number(object, "/status/desiredNumberScheduled").unwrap_or(0);
    [
        ("/status/updatedNumberScheduled", "updated"),
        ("/status/numberAvailable", "available"),
    ]
    .into_iter()
    .find_map(|(pointer, word)| {
        let have = number(object, pointer).unwrap_or(0);
        (have < wanted).then(|| format!("{have} of {wanted} of its pods are {word}"))
    })
}

fn pod(object: &Value) -> Option<String> {
    match text(object, "/status/phase") {
        Some("Succeeded") => None,
        Some("Running") if is(object, "Ready", "True") => None,
        Some("Failed") => Some("it has failed".into()),
        Some(phase) => Some(format!("it is {}", phase.to_lowercase())),
        None => Some("nobody has seen it yet".into()),
    }
}

fn phase(object: &Value, ready: &str) -> Option<String> {
    match text(object, "/status/phase") {
        Some(found) if found == ready => None,
        Some(found) => Some(format!("it is {}", found.to_lowercase())),
        None => Some(format!("it is not {} yet", ready.to_lowercase())),
    }
}

fn load_balancer(object: &Value) -> Option<String> {
    if text(object, "/spec/type") != Some("LoadBalancer") {
        return None;
    }
    let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    ingress
        .is_none_or(Vec::is_empty)
        .then(|| "its load balancer has no address yet".into())
}

fn job(object: &Value) -> Option<String> {
    if is(object, "Complete", "True") || is(object, "Suspended", "True") {
        return None;
    }
    match condition(object, "Failed") {
        Some(("True", why)) => Some(format!("it has failed: {why}")),
        _ => Some("it has not completed yet".into()),
    }
}

fn established(object: &Value) -> Option<String> {
    if let Some(("False", why)) = condition(object, "NamesAccepted") {
        return Some(format!("it has failed: {why}"));
    }
    (!is(object, "Established", "True")).then(|| "the server has not taken it in yet".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_says_when_it_is_ready() {
        let ready = |object: Value| health(&object) == Health::Ready;
        assert!(ready(json!({ "apiVersion": "v1", "kind": "ConfigMap" })));
        let deployment = |status: Value| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "generation": 2 }, "spec": { "replicas": 2 }, "status": status });
        assert!(!ready(deployment(json!({}))));
        assert!(!ready(deployment(
            json!({ "observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2 })
        )));
        assert!(!ready(deployment(
            json!({ "observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 1 })
        )));
        assert!(ready(deployment(
            json!({ "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2 })
        )));
        let job = |kind: &str| json!({ "apiVersion": "batch/v1", "kind": "Job", "status": { "conditions": [{ "type": kind, "status": "True", "message": "x" }] } });
        assert!(ready(job("Complete")) && !ready(job("Failed")));
        let custom = |status: &str| json!({ "apiVersion": "a.b/v1", "kind": "C", "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        assert!(ready(custom("True")) && !ready(custom("False")));
        assert!(!ready(
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "deletionTimestamp": "x" } })
        ));
    }
}
