//! What an engine says when it has failed, in words that may be told.

use std::collections::BTreeMap;

use serde_json::Value;

use providers::secrets::masked;

/// The most of an engine's complaints that is told.
const MAX_WORDS: usize = 2 * 1024;
/// How a line of text ends that tells of something done.
const DONE: [&str; 3] = [": Creation complete", ": Modifications complete", ": Destruction complete"];

/// What an engine has said, and the secrets that it was given, by name: what it says of them is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Lines of JSON, or text.
    pub(crate) output: Vec<u8>,
    /// What it has complained of beside that.
    pub(crate) complaints: String,
    pub(crate) secrets: BTreeMap<String, String>,
}

impl Said {
    /// What it complains of, in one line.
    pub(crate) fn words(&self) -> String {
        let said = self.diagnostics();
        let text = if said.is_empty() { self.complaints() } else { said.join("; ") };
        // Frames and colours are for terminals.
        let plain: String = text
            .chars()
            .map(|c| if c.is_control() || "│╷╵".contains(c) { ' ' } else { c })
            .collect();
        let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut words = masked(&words, &self.secrets);
        if words.len() > MAX_WORDS {
            let at = (0..=MAX_WORDS).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
            words.truncate(at);
            words.push('…');
        }
        words
    }

    fn lines(&self) -> impl Iterator<Item = Result<Value, String>> {
        let lines = self.output.split(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).map_err(|_| String::from_utf8_lossy(line).into_owned()))
    }

    /// The errors among its lines of JSON.
    fn diagnostics(&self) -> Vec<String> {
        let errors = self.lines().flatten().filter_map(|line| {
            let diagnostic = line.get("diagnostic").filter(|one| one["severity"] == "error")?;
            let text = |name: &str| diagnostic[name].as_str().unwrap_or_default().to_owned();
            let at = text("address");
            let at = if at.is_empty() { at } else { format!("{at}: ") };
            let detail = text("detail");
            let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
            Some(format!("{at}{}{detail}", text("summary")))
        });
        errors.collect()
    }

    /// What it complains of in text: all of its complaints, or its text from the first error on.
    fn complaints(&self) -> String {
        if !self.complaints.trim().is_empty() {
            return self.complaints.clone();
        }
        let text = self.lines().filter_map(Result::err);
        text.skip_while(|line| !line.contains("Error:")).collect::<Vec<_>>().join("\n")
    }

    /// The addresses of what an application that failed had done before.
    pub(crate) fn done(&self) -> Vec<String> {
        let all = self.lines().filter_map(|line| match line {
            Ok(line) => {
                let address = line["hook"]["resource"]["addr"].as_str();
                address.filter(|_| line["type"] == "apply_complete").map(str::to_owned)
            }
            Err(text) => {
                let at = DONE.iter().find_map(|done| text.find(done))?;
                Some(text[..at].trim().to_owned())
            }
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(output: &str, complaints: &str) -> Said {
        Said {
            output: output.as_bytes().to_vec(),
            complaints: complaints.to_owned(),
            secrets: BTreeMap::from([("how".to_owned(), "in half".to_owned()), ("none".to_owned(), String::new())]),
        }
    }

    #[test]
    fn what_it_says_is_told_in_one_line_without_secrets() {
        assert_eq!(said("", "╷\n│ Error: no\n│ way\n╵\n").words(), "Error: no way");
        assert_eq!(said("Planning\n│ Error: in\n│ half\n", "").words(), "Error: <how>");
        let lines = r#"{"@level":"info"}
{"@level":"error","diagnostic":{"severity":"error","summary":"Broken","detail":"in half","address":"terraform_data.a"}}"#;
        assert_eq!(said(lines, "other").words(), "terraform_data.a: Broken: <how>");
    }

    #[test]
    fn what_was_done_is_known_from_json_and_from_text() {
        let lines = r#"{"type":"apply_start","hook":{"resource":{"addr":"x.a"}}}
{"type":"apply_complete","hook":{"resource":{"addr":"x.b"}}}"#;
        assert_eq!(said(lines, "").done(), ["x.b"]);
        let text = "x.c: Creating...\nx.c: Creation complete after 0s [id=1]\n\nError: x.d\nx.e: Destruction complete after 1s\n";
        assert_eq!(said(text, "").done(), ["x.c", "x.e"]);
    }
}
