//! How the server answers: JSON:API documents, errors, pages.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What a handler gives.
pub(crate) type Answer = Result<Response, Refusal>;

/// Why a request isn't granted.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    detail: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    /// In words.
    pub(crate) fn words(&self) -> &str {
        &self.detail
    }

    /// There is no such thing, or none that may be seen.
    pub(crate) fn absent() -> Self {
        Self::new(StatusCode::NOT_FOUND, "")
    }

    /// What was given is wrong.
    pub(crate) fn wrong(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// It can't be done in the state that the thing is in.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        tracing::error!(%error, "the server's folder can't be used");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server's folder can't be used: see its log")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default().to_lowercase();
        let mut error = json!({ "status": self.status.as_u16().to_string(), "title": title });
        if !self.detail.is_empty() {
            error["detail"] = json!(self.detail);
        }
        document(self.status, &json!({ "errors": [error] }))
    }
}

/// A document of JSON:API.
pub(crate) fn document(status: StatusCode, value: &Value) -> Response {
    let json = HeaderValue::from_static("application/vnd.api+json");
    (status, [(header::CONTENT_TYPE, json)], value.to_string()).into_response()
}

/// One object.
pub(crate) fn one(value: Value) -> Answer {
    Ok(document(StatusCode::OK, &json!({ "data": value })))
}

/// One object that was just made.
pub(crate) fn made(value: Value) -> Answer {
    Ok(document(StatusCode::CREATED, &json!({ "data": value })))
}

/// Nothing to say.
pub(crate) fn empty() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A relationship to one object.
pub(crate) fn to(kind: &str, id: &str) -> Value {
    json!({ "data": { "type": kind, "id": id } })
}

/// A relationship that may be to nothing.
pub(crate) fn maybe(kind: &str, id: Option<&String>) -> Value {
    id.map_or_else(|| json!({ "data": null }), |id| to(kind, id))
}

/// The parameters that follow a path.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn new(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }

    /// Whether what a relationship leads to is asked for, too.
    pub(crate) fn includes(&self, name: &str) -> bool {
        self.get("include")
            .is_some_and(|names| names.split(',').any(|one| one.replace('-', "_") == name))
    }
}

/// A page of a list.
pub(crate) fn page(query: &Query, all: Vec<Value>) -> Answer {
    page_with(query, all, Vec::new())
}

/// A page of a list, with what is asked for beside it.
pub(crate) fn page_with(query: &Query, all: Vec<Value>, included: Vec<Value>) -> Answer {
    let size = query.number("page[size]").unwrap_or(20).clamp(1, 100);
    let number = query.number("page[number]").unwrap_or(1).max(1);
    let (count, pages) = (all.len(), all.len().div_ceil(size).max(1));
    let next = if number < pages { json!(number + 1) } else { Value::Null };
    let before = if number > 1 { json!(number - 1) } else { Value::Null };
    let data: Vec<Value> = all.into_iter().skip((number - 1) * size).take(size).collect();
    let pagination = json!({
        "current-page": number, "page-size": size, "prev-page": before, "next-page": next, "total-pages": pages, "total-count": count,
    });
    let mut answer = json!({ "data": data, "meta": { "pagination": pagination } });
    if !included.is_empty() {
        answer["included"] = Value::Array(included);
    }
    Ok(document(StatusCode::OK, &answer))
}

/// What a request's document holds.
pub(crate) struct Given {
    attributes: Map<String, Value>,
    relationships: Map<String, Value>,
}

impl Given {
    /// Reads one of a type.
    pub(crate) fn read(bytes: &[u8], kind: &str) -> Result<Self, Refusal> {
        let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
        if bytes.is_empty() {
            return Ok(Self {
                attributes: Map::new(),
                relationships: Map::new(),
            });
        }
        let document: Value = serde_json::from_slice(bytes).map_err(|error| bad(format!("no JSON: {error}")))?;
        let data = &document["data"];
        if data["type"].as_str().is_some_and(|given| given != kind) {
            return Err(Refusal::wrong(format!("it has to be of the type {kind}")));
        }
        let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
        Ok(Self {
            attributes: map(&data["attributes"]),
            relationships: map(&data["relationships"]),
        })
    }

    pub(crate) fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).and_then(Value::as_str)
    }

    pub(crate) fn is(&self, name: &str) -> Option<bool> {
        self.attributes.get(name).and_then(Value::as_bool)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.attributes.get(name).and_then(Value::as_u64)
    }

    /// The identity of what a relationship leads to.
    pub(crate) fn related(&self, name: &str) -> Option<&str> {
        self.relationships.get(name)?["data"]["id"].as_str()
    }
}

/// Whether a name may be one of an organization or a workspace.
pub(crate) fn name(text: Option<&str>) -> Result<&str, Refusal> {
    let good =
        |text: &&str| !text.is_empty() && text.len() <= 90 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.filter(good)
        .ok_or_else(|| Refusal::wrong("Name can only include letters, numbers, -, and _"))
}
