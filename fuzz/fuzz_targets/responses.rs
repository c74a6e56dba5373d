//! Whatever a server sends is read; what is understood can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailpush_fuzz::wire::imap::capability::{self, Edit};
use mailpush_fuzz::wire::imap::response::{self, Response, Untagged};
use mailpush_fuzz::wire::imap::set;
use mailpush_fuzz::wire::imap::write::{self, Changed};

fuzz_target!(|data: &[u8]| {
    let response = response::parse(data);
    match &response {
        Response::Untagged(Untagged::Vanished { uids, .. } | Untagged::Search(uids)) if !uids.is_empty() => {
            let mut text = Vec::new();
            set::write(&mut text, uids);
            assert_eq!(set::parse(&text).as_ref(), Some(uids));
        }
        Response::Untagged(Untagged::Fetch(fetch)) => {
            if let Some(flags) = &fetch.flags {
                let changed =
                    Changed { seq: fetch.seq, uid: fetch.uid, flags, recent: fetch.recent, modseq: fetch.modseq };
                let mut line = Vec::new();
                write::fetch(&mut line, &changed);
                let mut expected = fetch.clone();
                expected.other = false;
                assert_eq!(response::parse(&line), Response::Untagged(Untagged::Fetch(expected)));
            }
        }
        _ => {}
    }
    let edit = Edit { starttls: data.len() % 2 == 0, login_disabled: data.len() % 3 == 0 };
    let (rewritten, offers) = capability::rewrite(data, edit);
    match capability::list(&response) {
        None => assert_eq!(rewritten, data),
        Some(list) => {
            assert_eq!(offers, capability::Offers::of(list));
            let again = capability::rewrite(&rewritten, edit);
            assert_eq!(again.0, rewritten, "what was rewritten stays");
            assert!(again.1.idle);
        }
    }
});
