//! A plan as text: what, why, in which order, what is waiting for whom, and a count at the end.

use std::collections::BTreeSet;

use serde_json::Value;
use state::plan::{Action, FieldChange, Finding, Plan, Severity, Step, Wait};

use super::sequence;

/// How the text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Characters only.
    #[default]
    Plain,
    /// With the colours that a terminal knows.
    Colour,
}

/// The longest value that is shown, in characters.
const LONGEST: usize = 80;

#[derive(Clone, Copy)]
enum Ink {
    Green,
    Yellow,
    Red,
    Cyan,
    Bold,
    Faint,
}

impl Style {
    fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Green => "32",
            Ink::Yellow => "33",
            Ink::Red => "31",
            Ink::Cyan => "36",
            Ink::Bold => "1",
            Ink::Faint => "2",
        };
        match self {
            Style::Plain => text.to_owned(),
            Style::Colour => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// The sign in front of a step.
pub fn symbol(action: Action) -> &'static str {
    match action {
        Action::Create => "+",
        Action::Update => "~",
        Action::Replace => "-/+",
        Action::Delete => "-",
        Action::Adopt => ">",
        Action::Forget => ".",
    }
}

fn ink(action: Action) -> Ink {
    match action {
        Action::Create => Ink::Green,
        Action::Update => Ink::Yellow,
        Action::Replace | Action::Delete => Ink::Red,
        Action::Adopt => Ink::Cyan,
        Action::Forget => Ink::Faint,
    }
}

/// Writes a plan for people.
pub fn render(plan: &Plan, style: Style) -> String {
    let mut out = String::new();
    // A plan from a file may hold a circle: then its steps stand by name, and executing it is refused.
    let order = sequence(plan).unwrap_or_else(|_| plan.steps.keys().collect());
    for name in order {
        if let Some(step) = plan.steps.get(name) {
            render_step(&mut out, step, style);
        }
    }
    if !plan.waits.is_empty() {
        line(&mut out, &style.paint(Ink::Bold, "Waiting:"));
        for (name, wait) in &plan.waits {
            render_wait(&mut out, name.as_str(), wait, style);
        }
        out.push('\n');
    }
    if !plan.findings.is_empty() {
        line(&mut out, &style.paint(Ink::Bold, "Findings:"));
        for finding in &plan.findings {
            render_finding(&mut out, finding, style);
        }
        out.push('\n');
    }
    line(&mut out, &style.paint(Ink::Bold, &summary(plan)));
    out
}

/// Counts a plan: «Plan: 2 to create, 1 to change, 0 to delete. 1 waiting.»
pub fn summary(plan: &Plan) -> String {
    let count = |wanted: &[Action]| plan.steps.values().filter(|step| wanted.contains(&step.action)).count();
    let mut text = if plan.steps.is_empty() {
        "Nothing to do.".to_owned()
    } else {
        let mut text = format!(
            "Plan: {} to create, {} to change, {} to delete",
            count(&[Action::Create, Action::Replace]),
            count(&[Action::Update]),
            count(&[Action::Delete, Action::Replace])
        );
        for (action, words) in [(Action::Adopt, "to adopt"), (Action::Forget, "to forget")] {
            match count(&[action]) {
                0 => {}
                n => text.push_str(&format!(", {n} {words}")),
            }
        }
        text.push('.');
        text
    };
    let severity = |severity| plan.findings.iter().filter(|finding| finding.severity == severity).count();
    for (count, words) in [
        (plan.waits.len(), "waiting"),
        (severity(Severity::Drift), "drifted"),
        (severity(Severity::Unknown), "not observed"),
        (severity(Severity::Denied), "denied"),
    ] {
        if count > 0 {
            text.push_str(&format!(" {count} {words}."));
        }
    }
    text
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn render_step(out: &mut String, step: &Step, style: Style) {
    let sign = style.paint(ink(step.action), &format!("{:>3}", symbol(step.action)));
    let title = format!("{} {}", step.resource.kind, style.paint(Ink::Bold, step.resource.name.as_str()));
    line(
        out,
        &format!("{sign} {title}: {}", style.paint(ink(step.action), &step.action.to_string())),
    );
    for why in &step.why {
        line(out, &format!("      {}", style.paint(Ink::Faint, &plain(why))));
    }
    if !step.after.is_empty() {
        let names: Vec<&str> = step.after.iter().map(|name| name.as_str()).collect();
        line(
            out,
            &format!("      {}", style.paint(Ink::Faint, &format!("after {}", names.join(", ")))),
        );
    }
    let open = referring_paths(step);
    let width = step.changes.iter().map(|change| change.path.chars().count()).max().unwrap_or(0);
    for change in &step.changes {
        let path = plain(&change.path);
        let value = changed(step.action, change, &open);
        line(out, &format!("        {path:<width$}  {value}"));
    }
    out.push('\n');
}

fn changed(action: Action, change: &FieldChange, open: &BTreeSet<String>) -> String {
    let to = match &change.to {
        Some(value) => shown(value),
        None if open.contains(&change.path) => "(known after apply)".to_owned(),
        None => "(none)".to_owned(),
    };
    match (&change.from, action) {
        (None, Action::Create) => format!("= {to}"),
        (None, _) => format!("(none) → {to}"),
        (Some(from), _) => format!("{} → {to}", shown(from)),
    }
}

/// The paths of a step's specification that hold a reference.
fn referring_paths(step: &Step) -> BTreeSet<String> {
    fn walk(at: &str, value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) if map.contains_key("$ref") => {
                out.insert(at.to_owned());
            }
            Value::Object(map) => {
                for (key, inner) in map {
                    walk(&format!("{at}/{}", state::spec::pointer_token(key)), inner, out);
                }
            }
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    walk(&format!("{at}/{index}"), inner, out);
                }
            }
            _ => {}
        }
    }
    let mut out = BTreeSet::new();
    walk("", &step.resource.spec.to_value(), &mut out);
    out
}

/// A value on one line, bounded. Secrets are references already; they are named as what they are.
fn shown(value: &Value) -> String {
    if let Some(name) = value.as_object().and_then(|map| map.get("$secret")).and_then(Value::as_str) {
        return format!("(secret {name})");
    }
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return plain(&text);
    }
    let start: String = text.chars().take(LONGEST - 1).collect();
    format!("{}…", plain(&start))
}

/// Text from the ledger or a provider, without what could move a terminal's cursor, reorder its characters, or hide.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unseen(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a character does something to the text around it, or is not seen, instead of being shown: controls, line and paragraph
/// separators, and Unicode's format characters.
pub(crate) fn is_unseen(c: char) -> bool {
    let format = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || format
}

fn render_wait(out: &mut String, name: &str, wait: &Wait, style: Style) {
    line(
        out,
        &format!("  {} {}", style.paint(Ink::Yellow, "…"), style.paint(Ink::Bold, name)),
    );
    for (on, state) in &wait.on {
        line(out, &format!("      for {on}: {}", plain(state)));
    }
}

fn render_finding(out: &mut String, finding: &Finding, style: Style) {
    let (word, ink) = match finding.severity {
        Severity::Notice => ("notice", Ink::Faint),
        Severity::Unknown => ("unknown", Ink::Yellow),
        Severity::Drift => ("drift", Ink::Yellow),
        Severity::Denied => ("denied", Ink::Red),
    };
    line(
        out,
        &format!(
            "  {} {} {}: {}",
            style.paint(ink, word),
            finding.kind,
            style.paint(Ink::Bold, finding.resource.as_str()),
            plain(&finding.message)
        ),
    );
}
