//! Whatever a client sends is read or refused, and an answer is one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailpush_fuzz::mail::user::{UserName, UserNames};
use mailpush_fuzz::wire::imap::command::{self, Command, Head};
use mailpush_fuzz::wire::imap::effects::Effects;
use mailpush_fuzz::wire::imap::name;
use mailpush_fuzz::wire::imap::namespace::Namespaces;
use mailpush_fuzz::wire::imap::sasl::Exchange;
use mailpush_fuzz::wire::imap::write;

fuzz_target!(|data: &[u8]| {
    match command::parse(data) {
        Err(bad) => {
            let answer = bad.answer();
            assert_eq!(answer.iter().position(|b| *b == b'\n'), Some(answer.len() - 1));
        }
        Ok((head, command)) => {
            assert!(!head.tag.is_empty() && head.tag.iter().all(|b| b.is_ascii_graphic()));
            match command {
                Command::Login(login) => {
                    // Written again, it is read as the same.
                    let mut again = b"a LOGIN ".to_vec();
                    write::astring_or_literal(&mut again, &login.user, false, true).expect("no NUL was let in");
                    again.push(b' ');
                    write::astring_or_literal(&mut again, &login.password, false, true).expect("no NUL was let in");
                    again.extend_from_slice(b"\r\n");
                    let (_, read) = command::parse_unauthenticated(&again).expect("it is well formed");
                    assert_eq!(read, Command::Login(login));
                }
                Command::Authenticate(authenticate) => {
                    let initial = authenticate.initial.as_ref().map(|initial| initial.as_slice());
                    let mut exchange = Exchange::new(&authenticate.mechanism, initial);
                    exchange.client_line(data);
                    assert!(exchange.identity().is_none_or(|user| !user.is_empty()));
                }
                Command::Select(select) => mailbox(&select.mailbox),
                _ => {}
            }
        }
    }
    if let Ok(head) = Head::parse(data) {
        let mut effects = Effects::of(&head, data);
        effects.more(data);
    }
    mailbox(data);
});

fn mailbox(written: &[u8]) {
    if let Some(text) = name::decode_utf7(written) {
        assert_eq!(name::encode_utf7(&text), written, "a text has one form");
    }
    let user = UserName::new("alice").expect("a user name");
    for delimiter in [Some(b'/'), Some(b'.'), None] {
        let namespaces = Namespaces::personal_only(delimiter);
        if let Some(path) = namespaces.path(written, false, &user, &UserNames::default()) {
            let back = namespaces.imap_name(&path, false, &user, &UserNames::default()).expect("it has a name");
            assert_eq!(namespaces.path(&back, false, &user, &UserNames::default()), Some(path));
        }
    }
}
