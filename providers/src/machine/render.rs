//! Scripts for people: what Charter does for a resource, as a POSIX shell script that does the same.
//!
//! The root is `$CHARTER_ROOT`, an output of another resource is a variable that has to be set, and a secret is read from its file: the
//! script holds none of them.

use std::collections::BTreeMap;

use state::resource::Resource;

use super::path::Below;
use super::process::PATH;
use super::record;
use super::service;
use super::spec::{Port, Typed};
use super::{Site, files};
use crate::fields::{Setting, Text};
use crate::{Invalid, Scope, Script};

/// Quotes a text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Writes a script, and gives each reference a variable.
#[derive(Default)]
struct Writer {
    references: BTreeMap<String, String>,
    lines: Vec<String>,
}

impl Writer {
    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn text(&mut self, text: &Text) -> String {
        match text {
            Text::Literal(text) => quoted(text),
            Text::Reference(reference) => {
                let next = format!("ref_{}", self.references.len() + 1);
                let variable = self.references.entry(reference.clone()).or_insert(next);
                format!("\"${{{variable}}}\"")
            }
        }
    }

    fn setting(&mut self, setting: &Setting) -> String {
        match setting {
            Setting::Text(text) => self.text(text),
            Setting::Secret(name) => format!("\"$(cat -- \"${{CHARTER_SECRETS:?}}\"/{})\"", quoted(name.as_str())),
        }
    }

    fn finish(self, title: &str, name: String) -> Script {
        let mut text = format!("#!/bin/sh\n# {title}\nset -eu\ncd -- \"${{CHARTER_ROOT:?the root of the machine}}\"\n");
        for (reference, variable) in &self.references {
            text.push_str(&format!(": \"${{{variable}:?{reference}}}\"\n"));
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        Script {
            name,
            bytes: text.into_bytes(),
        }
    }
}

/// Renders one resource.
pub(crate) fn script(site: &Site, scope: &Scope, resource: &Resource, typed: &Typed) -> Result<Script, Invalid> {
    let wrong = |message: String| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    };
    let mut writer = Writer::default();
    let origin = super::origin(scope, resource);
    let own = Below::resource(&origin).to_string();
    let place = |writer: &mut Writer, directory: Option<&Text>| match directory {
        None => Ok(None),
        Some(Text::Literal(text)) => files::folder(site, scope, text)
            .map(|folder| Some(quoted(&folder.to_string())))
            .map_err(|error| wrong(format!("directory: {error}"))),
        Some(reference) => Ok(Some(writer.text(reference))),
    };
    match typed {
        Typed::Directory(spec) => {
            writer.line(format!("mkdir -p -- {}", quoted(&own)));
            writer.line(format!("chmod {:04o} -- {}", spec.mode.0, quoted(&own)));
        }
        Typed::File(spec) => {
            let name = spec.file_name.as_deref().unwrap_or(resource.name.as_str());
            let file = match place(&mut writer, spec.directory.as_ref())? {
                None => quoted(&own),
                Some(folder) => format!("{folder}/{}", quoted(name)),
            };
            let content = writer.text(&spec.content);
            writer.line(format!("file={file}"));
            writer.line("umask 077");
            writer.line(format!("printf '%s' {content} > \"$file.new\""));
            writer.line(format!("chmod {:04o} -- \"$file.new\"", spec.mode.0));
            writer.line("mv -f -- \"$file.new\" \"$file\"");
        }
        Typed::Service(spec) => {
            let folder = match place(&mut writer, spec.directory.as_ref())? {
                None => quoted(origin.channel.as_str()),
                Some(folder) => folder,
            };
            let log = format!("{}/{}.log", record::log_folder(scope, &origin).join("/"), origin.resource);
            writer.line(format!("log=\"$CHARTER_ROOT\"/{}", quoted(&log)));
            writer.line(format!("cd -- {folder}"));
            let mut words = vec!["exec env -i".to_owned(), format!("PATH={}", quoted(PATH))];
            words.push("CHARTER_ROOT=\"$CHARTER_ROOT\"".to_owned());
            words.push(format!("CHARTER_OWNER={}", quoted(&super::process::owner(scope, &origin))));
            match spec.port {
                None => {}
                Some(Port::Fixed(port)) => words.push(format!("PORT={port}")),
                Some(Port::Auto) => words.push("PORT=\"${PORT:?a free port}\"".to_owned()),
            }
            for (key, setting) in &spec.env {
                let value = writer.setting(setting);
                words.push(format!("{key}={value}"));
            }
            words.push("setsid".to_owned());
            words.extend(service::prefix(site, resource, spec)?.iter().map(|word| quoted(word)));
            for word in spec.command.iter().skip(1) {
                let word = writer.text(word);
                words.push(word);
            }
            words.push("</dev/null >>\"$log\" 2>&1".to_owned());
            writer.line(words.join(" \\\n  "));
        }
    }
    let title = format!("{} {} of {} on {}", resource.kind, resource.name, scope.member, scope.channel);
    Ok(writer.finish(&title, format!("{}.sh", resource.name)))
}
