//! The table of rooms in the library's front page: which room may name which.

use std::collections::{BTreeMap, BTreeSet};

/// What a room may name of the library's other rooms.
#[derive(Debug, PartialEq, Eq)]
pub enum May {
    Name(BTreeSet<String>),
    NameAll,
}

/// Every room of the table.
pub type Table = BTreeMap<String, May>;

/// Reads the table out of `src/lib.rs`: rows of its documentation whose first cell links a room,
/// such as ``//! | [`imap`] | asking a mail server something | `wire`, `mail`, `tls` | … |``, where
/// the third names what the room may name.
pub fn read(front_page: &str) -> Result<Table, String> {
    let mut table = Table::new();
    for line in front_page.lines() {
        let Some(row) = line.strip_prefix("//! | [`") else { continue };
        let Some((room, cells)) = row.split_once("`] | ") else { return Err(format!("this row names no room: {line}")) };
        let cells: Vec<&str> = cells.trim_end_matches(" |").split(" | ").collect();
        let [_, may, _] = cells[..] else { return Err(format!("this row has not four cells: {line}")) };
        let may = match may {
            "all" => May::NameAll,
            "none" => May::Name(BTreeSet::new()),
            rooms => May::Name(rooms.split(", ").map(|room| room.trim_matches('`').to_owned()).collect()),
        };
        if table.insert(room.to_owned(), may).is_some() {
            return Err(format!("{room} has two rows"));
        }
    }
    for (room, may) in &table {
        let May::Name(rooms) = may else { continue };
        if let Some(unknown) = rooms.iter().find(|named| !table.contains_key(*named)) {
            return Err(format!("the row of {room} names {unknown}, which has none"));
        }
    }
    if table.is_empty() { Err("there is no table of rooms".to_owned()) } else { Ok(table) }
}
