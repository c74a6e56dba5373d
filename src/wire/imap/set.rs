//! Sets of UIDs as text (RFC 9051 section 9, `sequence-set` and `uid-set`), and as bitmaps.

use std::io::Write;

use roaring::RoaringBitmap;

use super::scan::Scan;

/// `1,3,5:7` in any order, with repetitions. `None` for anything else: `*`, which only the server
/// that holds the mailbox can resolve, 0, an empty set.
#[allow(dead_code, reason = "for the fuzz targets, which compare")]
pub fn parse(text: &[u8]) -> Option<RoaringBitmap> {
    let mut scan = Scan::new(text);
    let set = scan_set(&mut scan)?;
    scan.rest().is_empty().then_some(set)
}

pub(super) fn scan_set(scan: &mut Scan<'_>) -> Option<RoaringBitmap> {
    let mut ranges = Ranges::default();
    let mut ahead = *scan;
    loop {
        let first = ahead.number()?;
        let last = if ahead.eat(b':') { ahead.number()? } else { first };
        ranges.add(first.min(last), first.max(last))?;
        if !ahead.eat(b',') {
            *scan = ahead;
            return Some(ranges.finish());
        }
    }
}

/// Ranges on their way into a bitmap: joined first, so that a line full of `1:4294967295` costs
/// what it is long.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    ranges: Vec<(u32, u32)>,
    unordered: bool,
}

impl Ranges {
    /// `None`: there is no message 0.
    pub fn add(&mut self, first: u32, last: u32) -> Option<()> {
        if first == 0 {
            return None;
        }
        match self.ranges.last_mut() {
            Some((_, end)) if first == end.saturating_add(1) => *end = last.max(*end),
            Some((_, end)) => {
                self.unordered |= first <= *end;
                self.ranges.push((first, last));
            }
            None => self.ranges.push((first, last)),
        }
        Some(())
    }

    pub fn finish(mut self) -> RoaringBitmap {
        if self.unordered {
            self.ranges.sort_unstable();
            self.ranges.dedup_by(|next, kept| {
                let joined = next.0 <= kept.1.saturating_add(1);
                if joined {
                    kept.1 = kept.1.max(next.1);
                }
                joined
            });
        }
        let mut set = RoaringBitmap::new();
        for (first, last) in self.ranges {
            if first == last {
                // The ranges ascend, so it is always the greatest.
                let _ = set.try_push(first);
            } else {
                set.insert_range(first..=last);
            }
        }
        set
    }
}

/// Appends the set in its shortest usual form: ascending, neighbours joined. An empty set has no
/// form and adds nothing.
pub fn write(out: &mut Vec<u8>, set: &RoaringBitmap) {
    let mut iter = set.iter();
    let mut first = true;
    let mut pending: Option<(u32, u32)> = None;
    // A range ends with its container of 65,536 numbers: neighbours are joined across.
    while let Some(range) = iter.next_range() {
        pending = Some(match pending {
            Some((start, end)) if end.checked_add(1) == Some(*range.start()) => (start, *range.end()),
            Some(done) => {
                write_range(out, &mut first, done);
                range.into_inner()
            }
            None => range.into_inner(),
        });
    }
    if let Some(done) = pending {
        write_range(out, &mut first, done);
    }
}

fn write_range(out: &mut Vec<u8>, first: &mut bool, (start, end): (u32, u32)) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    // Writing to a Vec cannot fail.
    let _ = if start == end { write!(out, "{start}") } else { write!(out, "{start}:{end}") };
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
