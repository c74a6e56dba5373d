//! Every question of the gateway's own, with every answer that it should not have: none is asked
//! again without a pause, and the client is no worse off than with the server's own IDLE.

use std::collections::BTreeMap;

use super::*;
use crate::mail::path::PRIVATE;
use crate::wire::imap::credentials::Credentials;

/// Answers that any question may have; `TAG` is its tag.
const REFUSALS: [&str; 5] =
    ["TAG NO\r\n", "TAG NO [UNAVAILABLE] Later\r\n", "TAG BAD Unknown command\r\n", "TAG OK\r\n", "* OK Well\r\nTAG OK\r\n"];

/// A server that answers one question oddly and all others well, and the client and the cluster
/// around it.
struct Odd {
    play: Play,
    question: &'static str,
    answer: &'static str,
    uids: Vec<u32>,
    /// How many of them it has told.
    count: usize,
    /// The tag of the server's own IDLE.
    idles: Option<String>,
    /// When each command was asked.
    asked: Vec<(Duration, String)>,
    begun: Instant,
    heard: String,
    over: Option<&'static str>,
}

impl Odd {
    fn new(rules: Rules, mailbox: &str, question: &'static str, answer: &'static str) -> Self {
        let mut play = Play::new(rules).logged_in();
        play.session.common.facts.offers.acl = true;
        play.session.common.facts.offers.namespace = question != "LIST";
        play.session.common.facts.offers_are_known = question != "CAPABILITY";
        play.client("e ENABLE CONDSTORE\r\n");
        play.server("* ENABLED CONDSTORE\r\ne OK\r\n");
        play.client(&format!("b SELECT {mailbox}\r\n"));
        play.server(SELECTED);
        play.server("b OK\r\n");
        play.forget();
        let begun = play.now;
        let (uids, idles, asked) = (vec![1, 3, 5], None, Vec::new());
        Self { play, question, answer, uids, count: 3, idles, asked, begun, heard: String::new(), over: None }
    }

    fn answer(&mut self, line: &str) -> String {
        if line == "DONE" {
            return format!("{} OK Done\r\n", self.idles.take().expect("the server idles"));
        }
        let (tag, command) = line.split_once(' ').expect("a command");
        self.asked.push((self.play.now - self.begun, command.to_owned()));
        if command.starts_with(self.question) {
            return self.answer.replace("TAG", tag);
        }
        let list: Vec<String> = self.uids.iter().map(u32::to_string).collect();
        let (count, uidnext) = (self.uids.len(), self.uids.iter().max().unwrap_or(&0) + 1);
        let is_news = std::mem::replace(&mut self.count, count) != count;
        let said = match command.split(' ').next().expect("a word") {
            "IDLE" => {
                self.idles = Some(tag.to_owned());
                return "+ idling\r\n".to_owned();
            }
            "NAMESPACE" => NAMESPACE.to_owned(),
            "LIST" => "* LIST (\\Noselect) \"/\" \"\"\r\n".to_owned(),
            "CAPABILITY" => "* CAPABILITY IMAP4rev1 IDLE NAMESPACE ESEARCH ACL\r\n".to_owned(),
            "SELECT" => format!("* {count} EXISTS\r\n* OK [UIDVALIDITY 9]\r\n* OK [UIDNEXT {uidnext}]\r\n"),
            "NOOP" if is_news => format!("* {count} EXISTS\r\n"),
            "MYRIGHTS" => format!("* MYRIGHTS {} lrs\r\n", command.trim_start_matches("MYRIGHTS ")),
            "UID" if command.contains("SEARCH") => format!("* ESEARCH (TAG \"{tag}\") UID ALL {}\r\n", list.join(",")),
            _ => String::new(),
        };
        format!("{said}{tag} OK\r\n")
    }

    /// All that follows at once.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.heard.push_str(&String::from_utf8(std::mem::take(&mut self.play.session.out.to_client)).unwrap());
            while let Some(action) = self.play.session.poll_action() {
                match action {
                    Action::Watch(path) => self
                        .play
                        .session
                        .handle(self.play.now, Input::Registration { mailbox: &path, registration: Registration::Settled }),
                    Action::OpenUpstream { .. } => self.play.server("* OK Ready\r\n"),
                    Action::Close { reason } => self.over = Some(reason),
                    _ => {}
                }
            }
            let asked = String::from_utf8(std::mem::take(&mut self.play.session.out.to_upstream)).unwrap();
            if asked.is_empty() || self.over.is_some() {
                return;
            }
            for line in asked.lines() {
                let answer = self.answer(line);
                self.play.server(&answer);
            }
        }
        panic!("{}, {:?}: it is asked without end: {:?}", self.question, self.answer, &self.asked[..20]);
    }

    fn pass(&mut self, span: Duration) {
        let until = self.play.now + span;
        self.settle();
        while self.over.is_none()
            && let Some(due) = self.play.session.poll_timeout().filter(|due| *due <= until)
        {
            self.play.now = self.play.now.max(due);
            self.play.session.handle(self.play.now, Input::Timeout);
            self.settle();
        }
        self.play.now = until;
    }

    /// How often the question was asked, and how often in the second in which that was most.
    fn asked(&self) -> (usize, usize) {
        let times: Vec<Duration> = self.asked.iter().filter(|(_, c)| c.starts_with(self.question)).map(|(at, _)| *at).collect();
        let within = |from: &Duration| times.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(*at)).count();
        (times.len(), times.iter().map(within).max().unwrap_or(0))
    }
}

/// The client idles for a quarter of an hour, something happens, it ends IDLE. What it was told
/// then.
fn check(rules: Rules, mailbox: &str, question: &'static str, answer: &'static str) -> (Odd, usize) {
    let path = if mailbox == "Team" { TEAM } else { "#private:bob@example.org:Team" };
    let mut odd = Odd::new(rules, mailbox, question, answer);
    odd.play.client("i IDLE\r\n");
    odd.pass(Duration::from_secs(11));
    let context = format!("{question}, {answer:?}, {mailbox}");
    assert!(odd.heard.starts_with("+ idling\r\n") || odd.over.is_some(), "{context}: {:?}", odd.heard);
    odd.pass(Duration::from_secs(300));
    // Something was missed, and has to be looked for.
    odd.play.session.handle(odd.play.now, Input::Resync);
    odd.pass(Duration::from_secs(600));
    let (often, at_once) = odd.asked();
    assert!(often <= 90 && at_once <= 6, "{context}: asked {often} times, {at_once} in a second");
    if odd.over.is_none() {
        odd.uids.push(6);
        if odd.idles.is_some() {
            odd.play.server("* 4 EXISTS\r\n");
        }
        let event = Event {
            mailbox: path.parse().unwrap(),
            uidvalidity: UidValidity::new(9),
            change: appended(&[6]),
            id: EventId::now(),
            ..sample()
        };
        odd.play.session.handle(odd.play.now, Input::Event(&event));
        odd.settle();
        let told = odd.heard.matches("* 4 EXISTS\r\n").count();
        assert_eq!(told, 1, "{context}: {:?}", odd.heard);
        odd.play.client("DONE\r\n");
        odd.pass(Duration::from_secs(11));
        let answered = odd.heard.contains("i OK Idle completed\r\n") || odd.over.is_some();
        assert!(answered, "{context}: {:?}", odd.heard);
    }
    (odd, often)
}

#[test]
fn no_question_is_asked_without_a_pause_and_no_client_is_left_deaf() {
    let own: [(&str, &[&str]); 6] = [
        ("NAMESPACE", &["* NAMESPACE what\r\nTAG OK\r\n", "* NAMESPACE NIL NIL NIL\r\nTAG OK\r\n"]),
        ("LIST", &["* LIST what\r\nTAG OK\r\n"]),
        ("CAPABILITY", &["* CAPABILITY\r\nTAG OK\r\n"]),
        ("NOOP", &["* 3 EXISTS\r\nTAG OK\r\n* 3 EXISTS\r\n"]),
        ("UID SEARCH", &["* SEARCH 1 3\r\nTAG OK\r\n", "* ESEARCH (TAG \"TAG\") UID ALL 1:9\r\nTAG OK\r\n"]),
        ("IDLE", &["+ idling\r\nTAG OK\r\n", "+ idling\r\nTAG NO\r\n"]),
    ];
    let mut ends = BTreeMap::new();
    for (question, more) in own {
        for answer in REFUSALS.iter().chain(more) {
            for mailbox in ["Team", "shared/bob/Team"] {
                let rules = Rules { asks_rights: vec![PRIVATE], ..rules() };
                let (odd, _) = check(rules, mailbox, question, answer);
                ends.insert((question, *answer, mailbox), odd.over);
            }
        }
    }
    // Whom nobody can tell what there is any more is better off with a new session, which the
    // server's own IDLE serves.
    for ((question, answer, mailbox), over) in ends {
        assert!(over.is_none(), "{question}, {answer:?}, {mailbox}: {over:?}");
    }
}

#[test]
fn the_servers_own_idle_serves_where_it_does_not_answer() {
    for (question, answer) in [("NAMESPACE", REFUSALS[0]), ("LIST", REFUSALS[3]), ("UID SEARCH", REFUSALS[2])] {
        let (odd, often) = check(rules(), "Team", question, answer);
        assert!((2..9).contains(&often), "{question}: asked again, with pauses that grow: {often}");
        let idles = odd.asked.iter().filter(|(_, command)| command == "IDLE").count();
        assert!((2..9).contains(&idles), "{question}: {idles}");
    }
}

#[test]
fn rights_that_are_not_told_are_asked_for_with_pauses() {
    for answer in REFUSALS.iter().skip(1).chain(&["* MYRIGHTS what\r\nTAG OK\r\n"]) {
        let (odd, _) = check(Rules { asks_rights: vec![PRIVATE], ..rules() }, "shared/bob/Team", "MYRIGHTS", answer);
        // Fail closed: at DONE the server is waited for, and no longer than it is for anything.
        assert!(matches!(odd.over, None | Some("upstream_lags")), "{answer:?}: {:?}", odd.over);
    }
}

#[test]
fn a_connection_that_is_taken_up_again_is_too() {
    let rules = || Rules {
        park_after: Some(Duration::from_secs(30)),
        reentry: Reentry::MasterUser(Credentials::new("gw", "gwpw")),
        ..rules()
    };
    for question in ["AUTHENTICATE", "ENABLE", "SELECT", "UID SEARCH", "NOOP", "UID FETCH"] {
        for answer in REFUSALS {
            check(rules(), "Team", question, answer);
        }
    }
}
