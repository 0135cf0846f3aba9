//! `charter shares` as a negotiator uses it: on shares from the command line, without a ledger or a store.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn charter(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_charter"))
        .arg("shares")
        .args(arguments)
        .env_remove("CHARTER_LOG")
        .output()
        .unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = charter(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn found(arguments: &[&str]) -> Value {
    let all = [arguments, &["-o", "json"]].concat();
    serde_json::from_str(&printed(&all)).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = charter(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_member_s_part_of_every_version() {
    let shown = printed(&["show", "--beta", "0.8,0.75"]);
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["MEMBER", "BETA", "V0", "V1", "V2"]);
    assert_eq!(rows[2], ["vsp-1", "0.8", "-", "20.0000", "%", "15.0000", "%"]);
    let json = found(&["show", "--beta", "0.8", "--beta", "0.75"]);
    let part = |member: &str, share: &str| json!({ "member": member, "share": share });
    assert_eq!(
        json[0]["versions"][2],
        json!([part("dsp", "0.6"), part("vsp-1", "0.15"), part("vsp-2", "0.25")])
    );
}

#[test]
fn a_profit_is_divided_to_the_unit() {
    // 600.6, 150.15 and 250.25: one unit is left, and the largest fraction has it.
    let json = found(&["split", "1001", "--beta", "0.8,0.75"]);
    let amounts: Vec<&str> = json["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["amount"].as_str().unwrap())
        .collect();
    assert_eq!(amounts, ["601", "150", "250"]);
    // Beyond what a float could tell apart.
    let json = found(&["split", "340282366920938463463374607431768211455", "--beta", "0.5"]);
    assert_eq!(json["parts"][0]["amount"], "170141183460469231731687303715884105728");
    assert_eq!(json["parts"][1]["amount"], "170141183460469231731687303715884105727");
}

#[test]
fn a_newcomer_changes_everybody() {
    let json = found(&["what-if", "--join", "carol=0.9", "--beta", "0.8", "--profit", "900"]);
    let change = |member: &str, before: &str, after: &str| json!({ "member": member, "before": before, "after": after });
    assert_eq!(
        json["members"],
        json!([
            change("dsp", "0.8", "0.72"),
            change("vsp-1", "0.2", "0.18"),
            change("carol", "0", "0.1")
        ])
    );
    assert_eq!(json["break_even"], "1000");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    for (arguments, words) in [
        (&["split", "12.5", "--beta", "0.8"][..], "digits only"),
        (&["split", "+5", "--beta", "0.8"], "digits only"),
        (
            &["split", "340282366920938463463374607431768211456", "--beta", "0.8"],
            "digits only",
        ),
        (&["show", "--beta", "1.2"], "strictly between 0 and 1"),
        (&["what-if", "--join", "carol", "--beta", "0.8"], "NAME=BETA"),
        (&["what-if", "--join", "vsp-1=0.9", "--beta", "0.8"], "is a member already"),
        (&["show", "--beta", &["0.5"; 64].join(",")], "at most 63"),
        (&["show", "--data-dir", "/nowhere-at-all"], "next: charter up"),
        (
            &["simulate", "--law", "uniform", "--range", "0.9..0.3"],
            "the first number is the smaller one",
        ),
        (&["simulate", "--law", "uniform", "--range", "0.9"], "LOW..HIGH"),
        (&["simulate", "--law", "pareto", "--range", "0.2..0.9"], "belong to the uniform law"),
        (&["simulate", "--law", "uniform", "--index", "2"], "belongs to the Pareto law"),
        (&["simulate", "--law", "uniform", "--members", "1"], "2 to 64"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_simulation_writes_the_same_files_for_a_seed() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, seed: &str| {
        let out = folder.path().join(name);
        let path = out.to_str().unwrap();
        let json = found(&["simulate", "--law", "pareto", "--runs", "500", "--seed", seed, "--out", path]);
        (json, read(&out, "csv"), read(&out, "svg"), read(&out, "png"))
    };
    let first = draw("first", "5");
    assert_eq!(first, draw("again", "5"));
    assert_ne!(first.1, draw("other", "6").1);
    let (json, csv, svg, png) = first;
    assert_eq!(json["first"][0], 500);
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(svg.starts_with(b"<svg"));
    let csv = String::from_utf8(csv).unwrap();
    // A heading, then 8 members, 7 betas and 8 versions.
    assert_eq!(csv.lines().count(), 1 + 8 + 7 + 8);
    let median: f64 = csv.lines().nth(1).unwrap().split(',').nth(3).unwrap().parse().unwrap();
    assert!((median - json["ownership"][0]["median"].as_f64().unwrap()).abs() < 1e-6);
}

fn read(folder: &Path, ending: &str) -> Vec<u8> {
    std::fs::read(folder.join(format!("pareto.{ending}"))).unwrap()
}
