//! Listings in pages: cursors, limits, and how the nodes' parts become one page.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::query::Query;

/// Members of a page: where nothing is said, and at most.
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1_000;

/// A cursor's text: opaque to clients, and fit for a URL.
pub fn encode<T: Serialize>(value: &T) -> String {
    BASE64URL_NOPAD.encode(&serde_json::to_vec(value).unwrap_or_default())
}

/// What [`encode`] wrote; `None` for anything else.
pub fn decode<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

/// Which page is wanted: `limit` and `after` of a query. `C` tells the last member of the page
/// before.
#[derive(Debug)]
pub struct Wanted<C> {
    pub limit: usize,
    pub after: Option<C>,
}

impl<C: Serialize + for<'de> Deserialize<'de>> Wanted<C> {
    pub fn read(query: &Query) -> Result<Self, Problem> {
        let limit = query.parsed("limit", "a number from 1 to 1000")?.unwrap_or(PAGE);
        if !(1..=PAGE_LIMIT).contains(&limit) {
            return Err(Problem::bad_request("limit: a number from 1 to 1000"));
        }
        let bad = || Problem::bad_request("after: not a cursor of ours");
        let after = query.once("after")?.map(|text| decode(text).ok_or_else(bad)).transpose()?;
        Ok(Self { limit, after })
    }

    /// The same wish as a query for another node.
    pub fn append_to(&self, query: &mut form_urlencoded::Serializer<'static, String>) {
        if let Some(after) = &self.after {
            query.append_pair("after", &encode(after));
        }
        query.append_pair("limit", &self.limit.to_string());
    }

    /// Makes a page of sorted members; `true` if some of them were too many for it.
    pub fn cut<T>(&self, members: &mut Vec<T>) -> bool {
        let more = members.len() > self.limit;
        members.truncate(self.limit);
        more
    }
}
