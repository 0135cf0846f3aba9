//! XML as data: written by one writer that quotes, and read within bounds.

use quick_xml::Writer;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use thiserror::Error;

/// The largest document that is read, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How deep elements may stand in each other.
const MAX_DEPTH: usize = 64;

/// Text is no XML that is read here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it is no XML that can be read: {0}")]
pub(crate) struct XmlError(String);

/// An element. What stands between its children is not kept, but for the text of one that has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

impl Element {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// With an attribute more.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a text as its content.
    #[must_use]
    pub(crate) fn saying(mut self, text: impl ToString) -> Self {
        self.text = text.to_string();
        self
    }

    /// With a child more.
    #[must_use]
    pub(crate) fn holding(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// With children more.
    #[must_use]
    pub(crate) fn holding_all(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The first child of a name.
    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// An attribute of the first child of a name.
    pub(crate) fn of(&self, child: &str, attribute: &str) -> Option<&str> {
        self.child(child)?.attribute(attribute)
    }

    /// The children of a name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first descendant by the names on the way to it.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// Puts a child in the place of the first one of its name, or behind all others.
    pub(crate) fn put(&mut self, child: Element) {
        match self.children.iter_mut().find(|present| present.name == child.name) {
            Some(present) => *present = child,
            None => self.children.push(child),
        }
    }

    /// Takes out all children of a name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.children.retain(|child| child.name != name);
    }

    /// The document, indented, with a line break at its end.
    pub(crate) fn to_xml(&self) -> String {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        // Writing into memory does not fail.
        let _ = self.write(&mut writer);
        let mut text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        text.push('\n');
        text
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let mut start = BytesStart::new(self.name.as_str());
        for (name, value) in &self.attributes {
            start.push_attribute((name.as_str(), value.as_str()));
        }
        if self.children.is_empty() && self.text.is_empty() {
            return writer.write_event(Event::Empty(start));
        }
        writer.write_event(Event::Start(start))?;
        if self.children.is_empty() {
            writer.write_event(Event::Text(BytesText::new(&self.text)))?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str())))
    }

    /// Reads a document.
    pub(crate) fn read(text: &str) -> Result<Self, XmlError> {
        let wrong = |why: &dyn std::fmt::Display| XmlError(why.to_string());
        if text.len() > MAX_BYTES {
            return Err(wrong(&format!("{} bytes, at most {MAX_BYTES} are read", text.len())));
        }
        let mut reader = quick_xml::Reader::from_str(text);
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        loop {
            let done = match reader.read_event().map_err(|error| wrong(&error))? {
                Event::Start(start) => {
                    if open.len() >= MAX_DEPTH || root.is_some() {
                        return Err(wrong(&"it is nested too deep, or has more than one root"));
                    }
                    open.push(opened(&start)?);
                    None
                }
                Event::Empty(start) => Some(opened(&start)?),
                Event::End(_) => open.pop(),
                Event::Text(said) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&said);
                    }
                    None
                }
                Event::GeneralRef(reference) => {
                    let name: &str = &reference;
                    let value = match reference.resolve_char_ref().map_err(|error| wrong(&error))? {
                        Some(char) => char.to_string(),
                        None => resolve_predefined_entity(name)
                            .ok_or_else(|| wrong(&format!("it names the entity {name}")))?
                            .to_owned(),
                    };
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&value);
                    }
                    None
                }
                Event::CData(said) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&said);
                    }
                    None
                }
                Event::DocType(_) => return Err(wrong(&"it has a document type")),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
                Event::Eof => break,
            };
            if let Some(mut element) = done {
                // Between children there are line breaks only.
                if !element.children.is_empty() {
                    element.text.clear();
                }
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None if root.is_none() => root = Some(element),
                    None => return Err(wrong(&"it has more than one root")),
                }
            }
        }
        match (root, open.is_empty()) {
            (Some(root), true) => Ok(root),
            _ => Err(wrong(&"it ends too early")),
        }
    }
}

fn opened(start: &BytesStart<'_>) -> Result<Element, XmlError> {
    let wrong = |why: &dyn std::fmt::Display| XmlError(why.to_string());
    let mut element = Element::new(start.name().into_inner());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| wrong(&error))?;
        let value = quick_xml::escape::unescape(&attribute.value).map_err(|error| wrong(&error))?;
        element = element.with(attribute.key.into_inner(), value);
    }
    Ok(element)
}

/// Whether a text can stand in XML at all: some characters can't, however they are quoted.
pub(crate) fn can_hold(text: &str) -> bool {
    text.chars()
        .all(|c| matches!(c, '\t' | '\n' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        for nasty in [
            "plain",
            "</domain><domain>",
            "a & b",
            "\"'<>&",
            "]]>",
            "ünïcode ✓",
            " spaced ",
            "&amp;",
            "&#60;",
            "a\nb\tc",
        ] {
            let element = Element::new("domain")
                .with("type", nasty)
                .holding(Element::new("name").saying(nasty))
                .holding(Element::new("devices").holding(Element::new("disk")));
            let read = Element::read(&element.to_xml()).unwrap();
            assert_eq!(read.at(&["name"]).unwrap().text, nasty);
            assert_eq!(read.attribute("type").unwrap(), nasty);
            assert_eq!(read.children.len(), 2);
        }
        assert!(can_hold("a\tb") && !can_hold("a\0b") && !can_hold("\u{1b}[31m") && !can_hold("\r"));
    }

    #[test]
    fn what_is_no_document_or_grows_is_refused() {
        let deep = "<a>".repeat(MAX_DEPTH + 1);
        let bomb = "<!DOCTYPE a [<!ENTITY b \"x\">]><a>&b;</a>";
        for bad in ["", "text", "<a>", "<a></b>", "<a/><b/>", "<a x=1/>", "<a>&b;</a>", bomb, &deep] {
            assert!(Element::read(bad).is_err(), "{bad}");
        }
    }
}
