//! SEARCH, UID SEARCH and ESEARCH (RFC 4731).

use imap_codec::imap_types::core::{Charset, Vec1};
use imap_codec::imap_types::search::SearchKey;
use mail_parser::{HeaderValue, Message as Parsed, MessageParser};

use super::grammar::set;
use super::select::{is_in, ranges};
use super::session::{Answer, Context, Session};
use super::structure::body_of;
use super::view::{KnownMessage, Selected};
use crate::dev::store::mailbox::Message;

const DAY: i64 = 24 * 3600;

/// One message under search.
struct Candidate<'a> {
    selected: &'a Selected,
    at: usize,
    told: &'a KnownMessage,
    now: &'a Message,
    /// In seconds since 1970.
    clock: i64,
}

impl Session {
    /// `returned`: the command's tag, and ESEARCH's return options.
    pub(super) fn search(
        &mut self,
        context: &Context<'_>,
        charset: Option<Charset<'_>>,
        criteria: Vec1<SearchKey<'_>>,
        uid: bool,
        returned: Option<(&str, Vec<String>)>,
    ) -> Answer {
        if let Some(charset) = charset
            && !["UTF-8", "US-ASCII"].iter().any(|known| charset.as_ref().eq_ignore_ascii_case(known))
        {
            return Answer::no("Only UTF-8 and US-ASCII are known here").code("BADCHARSET (UTF-8 US-ASCII)");
        }
        if let Some((_, options)) = &returned
            && options.iter().any(|option| !["MIN", "MAX", "ALL", "COUNT"].contains(&option.as_str()))
        {
            return Answer::bad("This return option is not known");
        }
        let by_modseq = criteria.as_ref().iter().any(asks_modseq);
        if by_modseq && !self.has_condstore() {
            return Answer::bad("There are no modification sequences here");
        }
        self.enabled.condstore |= by_modseq;
        let Some(selected) = &self.selected else { return Answer::bad("Select a mailbox first") };
        let clock = (context.stamp.unix_ms / 1_000) as i64;
        let found = selected.told.iter().enumerate().filter(|(at, told)| {
            let candidate = Candidate { selected, at: *at, told, now: selected.now(told), clock };
            criteria.as_ref().iter().all(|key| candidate.matches(key))
        });
        let number = |at: usize, told: &KnownMessage| if uid { told.message.uid.get() } else { at as u32 + 1 };
        let (numbers, modseqs): (Vec<u32>, Vec<u64>) =
            found.map(|(at, told)| (number(at, told), selected.now(told).modseq)).unzip();
        let modseq = modseqs.iter().max().filter(|_| by_modseq);
        let line = match returned {
            None => {
                let numbers: String = numbers.iter().map(|number| format!(" {number}")).collect();
                let modseq = modseq.map(|modseq| format!(" (MODSEQ {modseq})")).unwrap_or_default();
                format!("* SEARCH{numbers}{modseq}")
            }
            Some((tag, options)) => {
                let asked = |option: &str| options.iter().any(|asked| asked == option);
                let mut line = format!("* ESEARCH (TAG \"{tag}\"){}", if uid { " UID" } else { "" });
                if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
                    line += &if asked("MIN") { format!(" MIN {first}") } else { String::new() };
                    line += &if asked("MAX") { format!(" MAX {last}") } else { String::new() };
                    if asked("ALL") || options.is_empty() {
                        line += &format!(" ALL {}", set(numbers.iter().copied()));
                    }
                }
                if asked("COUNT") {
                    line += &format!(" COUNT {}", numbers.len());
                }
                line + &modseq.map(|modseq| format!(" MODSEQ {modseq}")).unwrap_or_default()
            }
        };
        self.line(&line);
        Answer::ok("Searched")
    }
}

fn asks_modseq(key: &SearchKey<'_>) -> bool {
    match key {
        SearchKey::ModSequence { .. } => true,
        SearchKey::And(keys) => keys.as_ref().iter().any(asks_modseq),
        SearchKey::Not(key) => asks_modseq(key),
        SearchKey::Or(a, b) => asks_modseq(a) || asks_modseq(b),
        _ => false,
    }
}

impl Candidate<'_> {
    fn matches(&self, key: &SearchKey<'_>) -> bool {
        let has = |flag: &str| self.now.flags.contains(flag);
        let internaldate = (self.now.content.internaldate / 1_000) as i64;
        let size = self.now.content.raw.len();
        // A day begins at midnight UTC, which is what INTERNALDATE is shown in.
        let start = |date: &imap_codec::imap_types::datetime::NaiveDate| {
            date.as_ref().and_hms_opt(0, 0, 0).map_or(i64::MAX, |midnight| midnight.and_utc().timestamp())
        };
        match key {
            SearchKey::And(keys) => keys.as_ref().iter().all(|key| self.matches(key)),
            SearchKey::Or(a, b) => self.matches(a) || self.matches(b),
            SearchKey::Not(key) => !self.matches(key),
            SearchKey::All => true,
            SearchKey::SequenceSet(set) => is_in(&ranges(set, Some(self.selected.told.len() as u32)), self.at as u32 + 1),
            SearchKey::Uid(set) => {
                let last = self.selected.told.last().map(|told| told.message.uid.get());
                is_in(&ranges(set, last), self.now.uid.get())
            }
            SearchKey::Answered => has("\\Answered"),
            SearchKey::Deleted => has("\\Deleted"),
            SearchKey::Draft => has("\\Draft"),
            SearchKey::Flagged => has("\\Flagged"),
            SearchKey::Seen => has("\\Seen"),
            SearchKey::Unanswered => !has("\\Answered"),
            SearchKey::Undeleted => !has("\\Deleted"),
            SearchKey::Undraft => !has("\\Draft"),
            SearchKey::Unflagged => !has("\\Flagged"),
            SearchKey::Unseen => !has("\\Seen"),
            SearchKey::Keyword(keyword) => has(keyword.as_ref()),
            SearchKey::Unkeyword(keyword) => !has(keyword.as_ref()),
            SearchKey::Recent => self.told.recent,
            SearchKey::Old => !self.told.recent,
            SearchKey::New => self.told.recent && !has("\\Seen"),
            SearchKey::Larger(than) => size > *than as usize,
            SearchKey::Smaller(than) => size < *than as usize,
            SearchKey::Before(date) => internaldate < start(date),
            SearchKey::On(date) => (start(date)..start(date).saturating_add(DAY)).contains(&internaldate),
            SearchKey::Since(date) => internaldate >= start(date),
            SearchKey::Older(seconds) => internaldate <= self.clock - i64::from(seconds.get()),
            SearchKey::Younger(seconds) => internaldate >= self.clock - i64::from(seconds.get()),
            SearchKey::ModSequence { modseq, .. } => self.now.modseq >= *modseq,
            SearchKey::SentBefore(date) => self.sent().is_some_and(|sent| sent < start(date)),
            SearchKey::SentOn(date) => {
                self.sent().is_some_and(|sent| (start(date)..start(date).saturating_add(DAY)).contains(&sent))
            }
            SearchKey::SentSince(date) => self.sent().is_some_and(|sent| sent >= start(date)),
            SearchKey::Bcc(text) => self.header("Bcc", text.as_ref()),
            SearchKey::Cc(text) => self.header("Cc", text.as_ref()),
            SearchKey::From(text) => self.header("From", text.as_ref()),
            SearchKey::To(text) => self.header("To", text.as_ref()),
            SearchKey::Subject(text) => self.header("Subject", text.as_ref()),
            SearchKey::Header(name, text) => self.header(&String::from_utf8_lossy(name.as_ref()), text.as_ref()),
            SearchKey::Body(text) => self.body(text.as_ref()),
            SearchKey::Text(text) => self.whole_header(text.as_ref()) || self.body(text.as_ref()),
        }
    }

    fn raw(&self) -> &[u8] {
        &self.now.content.raw
    }

    fn headers(&self) -> Option<Parsed<'_>> {
        MessageParser::default().parse_headers(self.raw())
    }

    /// The Date header's day as it is written, without its time zone (RFC 9051: "disregarding time
    /// and timezone").
    fn sent(&self) -> Option<i64> {
        let parsed = self.headers()?;
        let date = parsed.date()?;
        let offset = i64::from(date.tz_hour) * 3600 + i64::from(date.tz_minute) * 60;
        Some(date.to_timestamp() + if date.tz_before_gmt { -offset } else { offset })
    }

    fn header(&self, name: &str, text: &[u8]) -> bool {
        let Some(parsed) = self.headers() else { return false };
        parsed.headers().iter().filter(|header| header.name.as_str().eq_ignore_ascii_case(name)).any(|header| {
            let raw = self.raw().get(header.offset_start as usize..header.offset_end as usize).unwrap_or_default();
            contains(raw, text) || contains(decoded(&header.value).as_bytes(), text)
        })
    }

    fn whole_header(&self, text: &[u8]) -> bool {
        let raw = self.raw();
        let decoded =
            |parsed: Parsed<'_>| parsed.headers().iter().any(|header| contains(decoded(&header.value).as_bytes(), text));
        contains(&raw[..raw.len() - body_of(raw).len()], text) || self.headers().is_some_and(decoded)
    }

    fn body(&self, text: &[u8]) -> bool {
        let decoded = |parsed: Parsed<'_>| parsed.parts.iter().any(|part| part.is_text() && contains(part.contents(), text));
        contains(body_of(self.raw()), text) || MessageParser::default().parse(self.raw()).is_some_and(decoded)
    }
}

/// A header's value as a reader sees it.
fn decoded(value: &HeaderValue<'_>) -> String {
    match value {
        HeaderValue::Text(text) => text.to_string(),
        HeaderValue::TextList(texts) => texts.join(" "),
        HeaderValue::Address(addresses) => {
            let each = addresses.iter().map(|addr| {
                format!("{} <{}>", addr.name.as_deref().unwrap_or_default(), addr.address.as_deref().unwrap_or_default())
            });
            each.collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

/// Without regard to case (RFC 9051 6.4.4), also beyond ASCII.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let fold = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
    needle.is_empty() || fold(haystack).contains(&fold(needle))
}
