//! The parameters of a request: of its query, or of a form in its body.
//!
//! Parameters that narrow or name several things may be repeated, and add up. All others may come
//! once. A name that a path does not know is refused: a filter that is misspelt would be no filter,
//! and nobody would notice.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::Problem;

/// What a stream of pushes takes, in its query or in a form.
pub const STREAM_PARAMETERS: &[&str] = &["ticket", "mailbox", "account", "shared", "types", "fields"];
/// How much of an unknown name is quoted, in characters.
const QUOTED: usize = 40;

/// Parameters, in their order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// These parameters, and `more` behind them.
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Every value of a parameter that adds up.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The value of a parameter that may come once.
    pub fn once(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::bad_request(format!("{name}: give it once"))),
        }
    }

    /// The same, parsed; `what` says what it should be.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Problem> {
        let parse = |text: &str| text.parse().map_err(|_| Problem::bad_request(format!("{name}: {what}")));
        self.once(name)?.map(parse).transpose()
    }

    /// Refuses names that are not among those which a path takes.
    pub fn check(&self, known: &[&str]) -> Result<(), Problem> {
        let Some((name, _)) = self.iter().find(|(name, _)| !known.contains(name)) else { return Ok(()) };
        let name: String = name.chars().take(QUOTED).collect();
        let known = if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
        Err(Problem::bad_request(format!("there is no parameter {name:?} at this path: {known}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(problem: Problem) -> String {
        serde_json::to_value(problem).unwrap()["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_repeated_adds_up_or_is_refused() {
        let query = Query::parse(b"user=a&limit=5&user=b");
        assert_eq!(query.all("user").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.once("limit").unwrap(), Some("5"));
        assert_eq!(query.once("after").unwrap(), None);
        assert_eq!(words(query.once("user").unwrap_err()), "user: give it once");
    }

    #[test]
    fn a_name_that_is_not_known_is_refused_with_those_that_are() {
        let query = Query::parse(b"types=MessageNew&type=MessageExpunge");
        assert!(query.check(&["types", "type"]).is_ok());
        let refused = words(query.check(&["mailbox", "types"]).unwrap_err());
        assert_eq!(refused, "there is no parameter \"type\" at this path: it takes mailbox, types");
        assert!(words(query.check(&[]).unwrap_err()).ends_with("it takes none"));
    }
}
