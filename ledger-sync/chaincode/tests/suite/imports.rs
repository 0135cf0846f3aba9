//! Imports: the signed word of a member for what another channel reports, as a node of this channel's graph.

use serde_json::{Value, json};

use crate::channel::{Actor, Channel, name, resource};

fn import(outputs: Value) -> Value {
    json!({ "name": "import-readings", "from": { "channel": "older", "resource": "readings" }, "outputs": outputs })
}

fn user(name: &str, output: &str) -> Value {
    json!({
        "name": name, "kind": "machine/file", "owner": "acme",
        "spec": { "content": { "$ref": format!("import-readings.outputs.{output}") } },
    })
}

fn order(resource: &Value) -> Value {
    json!({ "resources": [resource] })
}

#[test]
fn an_import_is_a_node_that_others_refer_to() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::agreed(&city, &acme);
    let found = channel.refuse(&acme, "order", &order(&user("map", "address")));
    assert!(
        found.contains("resource map depends on import-readings, which does not exist"),
        "{found}"
    );
    channel.accept(&city, "import", &import(json!({ "address": "10.0.0.1:80", "port": 80 })));
    let found = channel.refuse(&acme, "order", &order(&user("map", "digest")));
    assert!(found.contains("import-readings.outputs.digest"), "{found}");
    channel.accept(&acme, "order", &order(&user("map", "address")));
    assert_eq!(
        channel.desired.imported("import-readings").unwrap().import.outputs.get("address"),
        Some(&json!("10.0.0.1:80"))
    );
    // Its state is read back as it is.
    assert_eq!(channel.found(), channel.expected());

    // Who vouches for it renews it, and what others refer to has to stay.
    let found = channel.refuse(&city, "import", &import(json!({ "port": 81 })));
    assert!(found.contains("resource map refers to import-readings.outputs.address"), "{found}");
    channel.accept(&city, "import", &import(json!({ "address": "10.0.0.2:80" })));
    let found = channel.refuse(&acme, "import", &import(json!({ "address": "evil" })));
    assert!(found.starts_with("403") && found.contains("was imported by city"), "{found}");
    let named = json!({ "name": "import-readings" });
    let found = channel.refuse(&city, "drop_import", &named);
    assert!(found.contains("resource import-readings is still needed by map"), "{found}");
    channel.accept(&acme, "retire", &json!({ "resources": ["map"] }));
    assert!(channel.refuse(&acme, "drop_import", &named).starts_with("403"));
    channel.accept(&city, "drop_import", &named);
    assert!(channel.desired.imported("import-readings").is_none());
    assert!(channel.refuse(&city, "drop_import", &named).starts_with("404"));
    let found = channel.refuse(&acme, "order", &order(&user("map", "address")));
    assert!(found.contains("which does not exist"), "{found}");
    assert_eq!(channel.found(), channel.expected());
}

#[test]
fn what_is_no_import() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::agreed(&city, &acme);
    let taken = order(&resource("import-readings", "city", &[]));
    assert!(
        channel
            .refuse(&city, "order", &taken)
            .starts_with("400 the change is refused: resource import-readings: names that begin with")
    );
    let with = |key: &str, value: Value| {
        let mut changed = import(json!({ "address": "x" }));
        changed[key] = value;
        changed
    };
    let many: serde_json::Map<String, Value> = (0..33).map(|i| (format!("o{i}"), json!(1))).collect();
    for (argument, answer) in [
        (
            with("name", json!("taken")),
            "400 the change is refused: taken can't be an import's name: it has to begin with import-",
        ),
        (
            with("from", json!({ "channel": "air", "resource": "readings" })),
            "400 the change is refused: readings is of this channel: refer to it directly",
        ),
        (
            import(json!({})),
            "400 the change is refused: an import has 1 to 32 outputs, this one 0",
        ),
        (
            import(Value::Object(many)),
            "400 the change is refused: an import has 1 to 32 outputs, this one 33",
        ),
        (
            import(json!({ "a": [1] })),
            "400 the change is refused: output a: a text of up to 4096 bytes",
        ),
        (
            import(json!({ "a": 0.5 })),
            "400 the change is refused: output a: a text of up to 4096 bytes",
        ),
        (import(json!({ "a": "x".repeat(4097) })), "400 the change is refused: output a"),
        (
            with("more", json!(1)),
            "400 the argument of import is malformed: unknown field `more`",
        ),
    ] {
        let found = channel.refuse(&city, "import", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    let eve = Actor::new("EveMSP");
    channel.accept(&eve, "register", &json!({ "member": "eve", "role": "value-service-provider" }));
    let found = channel.refuse(&eve, "import", &import(json!({ "address": "x" })));
    assert!(found.contains("member eve is not a party of the agreement"), "{found}");
    assert!(!channel.desired.resources().contains_key(&name("import-readings")));
}
