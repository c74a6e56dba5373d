//! What a server's message numbers mean, followed as it speaks.
//!
//! A server may answer UID SEARCH in several untagged lines, and change the mailbox between them or
//! behind them. Its own EXISTS tells whether the list of UIDs is the whole of it: one that does not
//! fit is never taken for the truth.

use roaring::RoaringBitmap;

use super::response::Untagged;

/// The messages of the selected mailbox in the server's order. What is not known yet follows what
/// is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// The UIDs of the first messages; `None`: of none.
    uids: Option<RoaringBitmap>,
    /// How many messages there are, as EXISTS, EXPUNGE and VANISHED told.
    count: Option<u32>,
}

impl Numbers {
    /// Nothing is known but how many there are, if that.
    pub fn counted(count: Option<u32>) -> Self {
        Self { uids: None, count }
    }

    /// All of them.
    pub fn of(uids: RoaringBitmap) -> Self {
        let count = u32::try_from(uids.len()).ok();
        Self { uids: Some(uids), count }
    }

    pub fn count(&self) -> Option<u32> {
        self.count
    }

    /// The UID that a number means.
    pub fn uid(&self, seq: u32) -> Option<u32> {
        self.uids.as_ref()?.select(seq.checked_sub(1)?)
    }

    /// All UIDs, if all are known. A server that told no count is believed.
    pub fn whole(&self) -> Option<&RoaringBitmap> {
        self.uids.as_ref().filter(|uids| self.count.is_none_or(|count| uids.len() == u64::from(count)))
    }

    /// The mailbox is selected anew: nothing is known of it but what comes from here on.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes in an untagged response. Whether it changed what numbers mean.
    pub fn follow(&mut self, untagged: &Untagged<'_>) -> bool {
        match untagged {
            Untagged::Exists(count) => self.count.replace(*count) != Some(*count),
            Untagged::Expunge(seq) => {
                self.count = self.count.map(|count| count.saturating_sub(1));
                if let (Some(uid), Some(uids)) = (self.uid(*seq), &mut self.uids) {
                    uids.remove(uid);
                }
                true
            }
            Untagged::Vanished { earlier: false, uids } => {
                // RFC 7162 3.2.10.2: each was a message, and is none any more.
                let gone = u32::try_from(uids.len()).unwrap_or(u32::MAX);
                self.count = self.count.map(|count| count.saturating_sub(gone));
                if let Some(known) = &mut self.uids {
                    *known -= uids;
                }
                true
            }
            _ => false,
        }
    }
}

/// How far the server has answered a question for all UIDs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    /// It has told none.
    #[default]
    Missing,
    /// It has told some, and numbers mean since what they meant then.
    Told,
    /// The mailbox has changed since it told them.
    Moved,
    /// The mailbox changed between two of its lines: they are of no use.
    Torn,
}

impl Listing {
    /// Takes in one line of the answer.
    pub fn add(&mut self, numbers: &mut Numbers, uids: RoaringBitmap) {
        match self {
            Self::Missing => (numbers.uids, *self) = (Some(uids), Self::Told),
            Self::Told => *numbers.uids.get_or_insert_default() |= uids,
            Self::Moved | Self::Torn => (numbers.uids, *self) = (None, Self::Torn),
        }
    }

    /// Numbers have another meaning from here on.
    pub fn moved(&mut self) {
        if *self == Self::Told {
            *self = Self::Moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::response::{Response, parse};
    use super::*;

    /// What is known after these lines, and whether it is all.
    fn follow(count: Option<u32>, lines: &str) -> (Listing, Option<Vec<u32>>) {
        let (mut numbers, mut listing) = (Numbers::counted(count), Listing::default());
        for line in lines.lines() {
            let Response::Untagged(untagged) = parse(line.as_bytes()) else { panic!("{line}") };
            match untagged {
                Untagged::Search(uids) => listing.add(&mut numbers, uids),
                Untagged::Esearch(found) => listing.add(&mut numbers, found.all.unwrap_or_default()),
                other if numbers.follow(&other) => listing.moved(),
                _ => {}
            }
        }
        (listing, numbers.whole().map(|uids| uids.iter().collect()))
    }

    #[test]
    fn lists_in_any_number_of_lines_are_one_list_and_must_fit_the_count() {
        for (count, lines, listing, whole) in [
            (Some(4), "* SEARCH 1 2\n* SEARCH 3 4", Listing::Told, Some(vec![1, 2, 3, 4])),
            (Some(4), "* SEARCH 3 4\n* SEARCH\n* SEARCH 2 1 3", Listing::Told, Some(vec![1, 2, 3, 4])),
            (Some(4), "* ESEARCH UID ALL 1:2\n* ESEARCH UID ALL 3:4", Listing::Told, Some(vec![1, 2, 3, 4])),
            (Some(4), "* SEARCH 1 2", Listing::Told, None),
            (Some(2), "* SEARCH 1 2\n* SEARCH 3 4", Listing::Told, None),
            (None, "* SEARCH 1 2\n* SEARCH 3 4", Listing::Told, Some(vec![1, 2, 3, 4])),
            (Some(0), "* ESEARCH UID", Listing::Told, Some(vec![])),
            (Some(3), "* 3 EXISTS", Listing::Missing, None),
            // Behind the list it is followed.
            (Some(3), "* SEARCH 1 3 5\n* 2 EXPUNGE", Listing::Moved, Some(vec![1, 5])),
            (Some(3), "* SEARCH 1 3 5\n* VANISHED 1,5", Listing::Moved, Some(vec![3])),
            (Some(3), "* SEARCH 1 3 5\n* VANISHED (EARLIER) 2", Listing::Told, Some(vec![1, 3, 5])),
            (Some(3), "* SEARCH 1 3 5\n* 4 EXISTS", Listing::Moved, None),
            (Some(3), "* SEARCH 1 3 5\n* 4 EXISTS\n* 4 EXPUNGE", Listing::Moved, Some(vec![1, 3, 5])),
            (Some(3), "* SEARCH 1 3 5\n* 3 EXISTS", Listing::Told, Some(vec![1, 3, 5])),
            // Between two of its lines it cannot be.
            (Some(4), "* SEARCH 1 2\n* 1 EXPUNGE\n* SEARCH 3 4", Listing::Torn, None),
            (Some(3), "* SEARCH 1 2\n* 4 EXISTS\n* SEARCH 3 4\n* SEARCH 3 4", Listing::Torn, None),
        ] {
            assert_eq!(follow(count, lines), (listing, whole), "{lines}");
        }
    }
}
