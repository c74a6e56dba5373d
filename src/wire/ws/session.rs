//! One WebSocket session as a pure state machine: frames, verdicts and time in, [`Action`]s out.
//!
//! The shell (`edge::websocket`) owns the socket, verifies tokens and subscribes; this decides what
//! may come next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::close::{CloseReason, Goodbye};
use super::codec::{Input, PING_FRAME};
use super::command::{self, Command, CommandError, Frame, Refusal, Resume, Subscribe};
use super::push::{self, Connected, Resumed, ToldLimits};
use crate::mail::ids::{NodeId, SessionId};
use crate::mail::key::Key;
use crate::mail::rights::{Rights, Subject};
use crate::mail::user::{UserName, UserNames};

/// What holds for every session of a node.
#[derive(Debug, Clone)]
pub struct Rules {
    pub node: NodeId,
    pub names: UserNames,
    pub limits: ToldLimits,
    pub connect_deadline: Duration,
    /// How long a subscription may take to settle.
    pub subscribe_timeout: Duration,
    pub heartbeat: Duration,
    pub pong_timeout: Duration,
    pub expiring_notice: Duration,
    /// How long the client may take over its half of the closing handshake.
    pub close_timeout: Duration,
}

/// A point in time on both clocks: deadlines run on the one, tokens expire on the other.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub monotonic: Instant,
    /// Milliseconds since 1970, UTC.
    pub unix_ms: u64,
}

/// What the shell is to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write these bytes: one whole frame.
    Send(Bytes),
    /// Verify the token, then call [`Session::handle_authenticated`].
    Authenticate {
        id: u32,
        token: String,
        resume: Option<Resume>,
    },
    /// Verify the token, then call [`Session::handle_refreshed`].
    Refresh {
        id: u32,
        token: String,
    },
    /// Register and settle, then call [`Session::handle_settled`] or [`Session::handle_refused`].
    Subscribe {
        id: u32,
        subscribe: Subscribe,
    },
    Unsubscribe(Key),
    /// Begin the closing handshake; no more pushes.
    Close(Goodbye),
    /// The connection is over.
    End,
}

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub subject: Subject,
    /// Milliseconds since 1970, UTC.
    pub expires_at: u64,
}

#[derive(Debug)]
enum Phase {
    /// Nobody yet: only `connect` is understood.
    AwaitingConnect {
        deadline: Instant,
    },
    /// A token is being verified, or a resume settled; commands wait in the socket's order.
    Connecting {
        deadline: Instant,
    },
    Connected(Box<Authenticated>),
    /// Our close is sent; the client's is awaited.
    Closing {
        deadline: Instant,
    },
    Ended,
}

#[derive(Debug)]
struct Authenticated {
    user: UserName,
    expires_at: u64,
    expires: Instant,
    notice_given: bool,
    subscriptions: Vec<Key>,
}

#[derive(Debug)]
pub struct Session {
    rules: Arc<Rules>,
    id: SessionId,
    phase: Phase,
    last_sent: Instant,
    last_heard: Instant,
    /// Set while an answer to a heartbeat is awaited.
    pong_deadline: Option<Instant>,
}

impl Session {
    pub fn new(rules: Arc<Rules>, id: SessionId, now: Now) -> Self {
        let deadline = now.monotonic + rules.connect_deadline;
        Self {
            rules,
            id,
            phase: Phase::AwaitingConnect { deadline },
            last_sent: now.monotonic,
            last_heard: now.monotonic,
            pong_deadline: None,
        }
    }

    /// Whether pushes may be sent.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected(_))
    }

    /// Whether a `connect` is being worked on, so that further input must wait.
    pub fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting { .. })
    }

    /// Something was written: the client has a sign of life.
    pub fn handle_sent(&mut self, now: Now) {
        self.last_sent = now.monotonic;
    }

    /// The client sent something.
    pub fn handle_input(&mut self, now: Now, input: Input) -> Vec<Action> {
        self.pong_deadline = None;
        self.last_heard = now.monotonic;
        match (input, &self.phase) {
            (_, Phase::Ended) => Vec::new(),
            (Input::Close, _) => {
                self.phase = Phase::Ended;
                vec![Action::End]
            }
            (Input::Control, _) | (Input::Text(_), Phase::Closing { .. }) => Vec::new(),
            (Input::Text(text), _) => match command::parse(&text, &self.rules.names) {
                Ok(Frame::Heartbeat) => Vec::new(),
                Ok(Frame::Command { id, command }) => self.handle_command(now, id, command),
                Err(refusal) => vec![Action::Send(push::refused(&refusal))],
            },
        }
    }

    fn handle_command(&mut self, now: Now, id: u32, command: Command) -> Vec<Action> {
        let refuse = |error| vec![Action::Send(push::refused(&Refusal { id: Some(id), error }))];
        let who = match (&mut self.phase, command) {
            (_, Command::Ping) => return vec![Action::Send(push::pong(id))],
            (Phase::AwaitingConnect { .. }, Command::Connect { token, resume }) => {
                if resume.as_ref().is_some_and(|r| r.subscriptions.len() > self.rules.limits.subscriptions) {
                    return refuse(self.too_many_subscriptions());
                }
                // Subscriptions to take up may take as long as they may anywhere; their outcome is
                // part of the reply.
                let patience =
                    self.rules.connect_deadline + resume.as_ref().map_or(Duration::ZERO, |_| self.rules.subscribe_timeout);
                self.phase = Phase::Connecting { deadline: now.monotonic + patience };
                return vec![Action::Authenticate { id, token, resume }];
            }
            (Phase::Connected(_) | Phase::Connecting { .. }, Command::Connect { .. }) => {
                return refuse(CommandError::already_connected());
            }
            (Phase::Connected(who), command) => (who, command),
            (_, _) => return refuse(CommandError::not_connected()),
        };
        match who {
            (_, Command::Refresh { token }) => vec![Action::Refresh { id, token }],
            (who, Command::Subscribe(subscribe)) => {
                if !who.subscriptions.contains(&subscribe.key) {
                    if who.subscriptions.len() >= self.rules.limits.subscriptions {
                        return refuse(self.too_many_subscriptions());
                    }
                    who.subscriptions.push(subscribe.key.clone());
                }
                vec![Action::Subscribe { id, subscribe }]
            }
            (who, Command::Unsubscribe(key)) => {
                let Some(at) = who.subscriptions.iter().position(|held| *held == key) else {
                    return refuse(CommandError::not_subscribed());
                };
                who.subscriptions.swap_remove(at);
                let reply = push::unsubscribed(id, &key);
                vec![Action::Unsubscribe(key), Action::Send(reply)]
            }
            // Both are answered above.
            (_, Command::Connect { .. } | Command::Ping) => Vec::new(),
        }
    }

    fn too_many_subscriptions(&self) -> CommandError {
        CommandError::limit(format!("at most {} subscriptions a session", self.rules.limits.subscriptions))
    }

    /// The verdict on `connect`'s token. `resumed` is what became of a returning client's
    /// subscriptions.
    pub fn handle_authenticated(
        &mut self,
        now: Now,
        id: u32,
        verdict: Result<Verified, (CommandError, Goodbye)>,
        resumed: Option<Vec<Resumed>>,
    ) -> Vec<Action> {
        match verdict {
            Ok(verified) => {
                let subscriptions = resumed.iter().flatten().filter(|r| r.error.is_none()).map(|r| r.key.clone()).collect();
                let reply = push::connected(
                    id,
                    &Connected {
                        session: &self.id,
                        node: &self.rules.node,
                        user: &verified.subject.user,
                        heartbeat_ms: self.rules.heartbeat.as_millis() as u64,
                        token_expires_at: verified.expires_at,
                        limits: &self.rules.limits,
                        resumed,
                    },
                );
                self.become_connected(now, verified, subscriptions);
                vec![Action::Send(reply)]
            }
            Err((error, goodbye)) => {
                let mut actions = vec![Action::Send(push::refused(&Refusal { id: Some(id), error }))];
                actions.extend(self.close(now, goodbye));
                actions
            }
        }
    }

    /// The token came with the handshake: connected without a `connect`, and without its reply.
    pub fn become_connected(&mut self, now: Now, verified: Verified, subscriptions: Vec<Key>) {
        self.last_heard = now.monotonic;
        let expires = expiry(now, verified.expires_at);
        self.phase = Phase::Connected(Box::new(Authenticated {
            user: verified.subject.user,
            expires_at: verified.expires_at,
            expires,
            notice_given: false,
            subscriptions,
        }));
    }

    /// The verdict on `refresh`'s token. A refused one ends nothing: the old token's time runs on.
    pub fn handle_refreshed(&mut self, now: Now, id: u32, verdict: Result<Verified, CommandError>) -> Vec<Action> {
        let Phase::Connected(who) = &mut self.phase else { return Vec::new() };
        let verdict = verdict.and_then(|verified| {
            let same = verified.subject.user == who.user;
            same.then_some(verified).ok_or_else(|| CommandError::forbidden("the token is another user's"))
        });
        match verdict {
            Ok(verified) => {
                who.expires = expiry(now, verified.expires_at);
                who.expires_at = verified.expires_at;
                who.notice_given = false;
                vec![Action::Send(push::refreshed(id, verified.expires_at))]
            }
            Err(error) => vec![Action::Send(push::refused(&Refusal { id: Some(id), error }))],
        }
    }

    /// A subscription stands: every change from now on is pushed.
    pub fn handle_settled(&mut self, id: u32, key: &Key, rights: Rights) -> Vec<Action> {
        match &self.phase {
            Phase::Connected(who) if who.subscriptions.contains(key) => vec![Action::Send(push::subscribed(id, key, rights))],
            // The client has unsubscribed, or the mailbox was renamed, before the reply was sent: a
            // subscription that the client does not know must not go on.
            Phase::Connected(_) => {
                let refusal = push::refused(&Refusal { id: Some(id), error: CommandError::not_subscribed() });
                vec![Action::Unsubscribe(key.clone()), Action::Send(refusal)]
            }
            _ => Vec::new(),
        }
    }

    /// A subscription is of another key now, or has ended with its mailbox: what happened was
    /// pushed as an event. What moves may be no subscription of the client's own, but a mailbox
    /// that its account's covers.
    pub fn handle_moved(&mut self, from: &Key, to: Option<Key>) -> Vec<Action> {
        let Phase::Connected(who) = &mut self.phase else { return Vec::new() };
        let before = who.subscriptions.len();
        who.subscriptions.retain(|held| held != from);
        let was_held = who.subscriptions.len() < before;
        match to {
            Some(to) if who.subscriptions.contains(&to) => Vec::new(),
            Some(to) if was_held => {
                who.subscriptions.push(to);
                Vec::new()
            }
            // Perhaps given up under the old name while it moved.
            Some(to) => vec![Action::Unsubscribe(to)],
            None => Vec::new(),
        }
    }

    /// The user was renamed.
    pub fn handle_user(&mut self, user: UserName) {
        if let Phase::Connected(who) = &mut self.phase {
            who.user = user;
        }
    }

    /// A subscription was refused; the session goes on. `kept`: what stood before the wish still
    /// stands.
    pub fn handle_refused(&mut self, id: u32, key: &Key, error: CommandError, kept: bool) -> Vec<Action> {
        let Phase::Connected(who) = &mut self.phase else { return Vec::new() };
        who.subscriptions.retain(|held| kept || held != key);
        vec![Action::Send(push::refused(&Refusal { id: Some(id), error }))]
    }

    /// The right to hear of this is gone; the session goes on.
    pub fn handle_revoked(&mut self, key: &Key) -> Vec<Action> {
        let Phase::Connected(who) = &mut self.phase else { return Vec::new() };
        who.subscriptions.retain(|held| held != key);
        vec![Action::Send(push::revoked(key))]
    }

    /// Ends the session with a goodbye: the push first (proxies lose close codes), then the close
    /// frame.
    pub fn close(&mut self, now: Now, goodbye: Goodbye) -> Vec<Action> {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Ended) {
            return Vec::new();
        }
        self.phase = Phase::Closing { deadline: now.monotonic + self.rules.close_timeout };
        vec![Action::Send(push::disconnect(goodbye)), Action::Close(goodbye)]
    }

    /// When [`Session::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::AwaitingConnect { deadline } | Phase::Connecting { deadline } | Phase::Closing { deadline } => Some(*deadline),
            Phase::Connected(who) => {
                let heartbeat = self.pong_deadline.unwrap_or(self.heartbeat_due());
                let token = if who.notice_given { who.expires } else { self.notice(who) };
                Some(heartbeat.min(token))
            }
            Phase::Ended => None,
        }
    }

    /// When the next heartbeat is due. A client that constantly receives events is asked too:
    /// otherwise one that is gone would seem alive for as long as the network takes what is sent.
    fn heartbeat_due(&self) -> Instant {
        self.last_sent.min(self.last_heard) + self.rules.heartbeat
    }

    fn notice(&self, who: &Authenticated) -> Instant {
        who.expires.checked_sub(self.rules.expiring_notice).unwrap_or(who.expires)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Action> {
        let heartbeat_due = self.heartbeat_due();
        match &mut self.phase {
            Phase::AwaitingConnect { deadline } | Phase::Connecting { deadline } if now.monotonic >= *deadline => {
                self.close(now, CloseReason::ConnectTimeout.into())
            }
            Phase::Closing { deadline } if now.monotonic >= *deadline => {
                self.phase = Phase::Ended;
                vec![Action::End]
            }
            Phase::Connected(who) => {
                if now.monotonic >= who.expires {
                    return self.close(now, CloseReason::TokenExpired.into());
                }
                if self.pong_deadline.is_some_and(|deadline| now.monotonic >= deadline) {
                    return self.close(now, CloseReason::NoPong.into());
                }
                let mut actions = Vec::new();
                let notice = who.expires.checked_sub(self.rules.expiring_notice).unwrap_or(who.expires);
                if !who.notice_given && now.monotonic >= notice {
                    who.notice_given = true;
                    actions.push(Action::Send(push::expiring(who.expires_at.saturating_sub(now.unix_ms))));
                }
                if self.pong_deadline.is_none() && now.monotonic >= heartbeat_due {
                    self.pong_deadline = Some(now.monotonic + self.rules.pong_timeout);
                    // The object is for the page, which cannot see pings; the ping is answered by
                    // any WebSocket library.
                    actions.push(Action::Send(push::heartbeat()));
                    actions.push(Action::Send(Bytes::from_static(&PING_FRAME)));
                }
                actions
            }
            _ => Vec::new(),
        }
    }
}

fn expiry(now: Now, expires_at: u64) -> Instant {
    // A token for centuries must not overflow the clock.
    const LONGEST: u64 = 10 * 365 * 24 * 3_600 * 1_000;
    now.monotonic + Duration::from_millis(expires_at.saturating_sub(now.unix_ms).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::super::codec::frame_payload;
    use super::*;

    const NOT_SUBSCRIBED: &str = r#"{"id":3,"error":{"code":404,"name":"not_subscribed","message":"this session has no such subscription","temporary":false}}"#;

    struct Play {
        session: Session,
        now: Now,
    }

    impl Play {
        fn new() -> Self {
            let node: NodeId = "n1".parse().unwrap();
            let rules = Rules {
                node: node.clone(),
                names: UserNames::default(),
                limits: ToldLimits { frame_bytes: 100, subscriptions: 2, commands_per_second: 9 },
                connect_deadline: Duration::from_secs(10),
                subscribe_timeout: Duration::from_secs(30),
                heartbeat: Duration::from_secs(25),
                pong_timeout: Duration::from_secs(8),
                expiring_notice: Duration::from_secs(60),
                close_timeout: Duration::from_secs(2),
            };
            let now = Now { monotonic: Instant::now(), unix_ms: 1_000_000 };
            Self { session: Session::new(Arc::new(rules), SessionId::new(node, 1), now), now }
        }

        fn connected() -> Self {
            let mut play = Self::new();
            play.says(r#"{"id":1,"connect":{"token":"t"}}"#);
            play.session.handle_authenticated(play.now, 1, Ok(play.token(300)), None);
            play
        }

        fn token(&self, seconds: u64) -> Verified {
            Verified { subject: Subject::alone(UserName::new("bob").unwrap()), expires_at: self.now.unix_ms + seconds * 1000 }
        }

        fn says(&mut self, text: &str) -> Vec<String> {
            let actions = self.session.handle_input(self.now, Input::Text(text.into()));
            show(actions)
        }

        /// Lets time pass until the next deadline, and tells how many seconds that took.
        fn waits(&mut self) -> (u64, Vec<String>) {
            let then = self.session.poll_timeout().unwrap();
            let passed = then - self.now.monotonic;
            self.now.monotonic = then;
            self.now.unix_ms += passed.as_millis() as u64;
            let actions = self.session.handle_timeout(self.now);
            if actions.iter().any(|a| matches!(a, Action::Send(_))) {
                self.session.handle_sent(self.now);
            }
            (passed.as_secs(), show(actions))
        }
    }

    fn show(actions: Vec<Action>) -> Vec<String> {
        let text = |bytes: Bytes| String::from_utf8(frame_payload(&bytes).to_vec()).unwrap();
        let line = |action| match action {
            Action::Send(bytes) if bytes[..] == PING_FRAME => "ping".to_owned(),
            Action::Send(bytes) => text(bytes),
            Action::Close(goodbye) => format!("close {}", goodbye.reason.code()),
            other => format!("{other:?}"),
        };
        actions.into_iter().map(line).collect()
    }

    #[test]
    fn nothing_before_connect() {
        let mut play = Play::new();
        assert!(play.says(r#"{"id":1,"subscribe":{"account":"bob"}}"#)[0].contains("not_connected"));
        assert_eq!(play.says(r#"{"id":2,"ping":{}}"#), [r#"{"id":2,"ping":{}}"#]);
        let (seconds, said) = play.waits();
        assert_eq!(seconds, 10);
        assert!(said[0].contains(r#""code":4400"#) && said[1] == "close 4400", "{said:?}");
        assert_eq!(play.waits(), (2, vec!["End".to_owned()]), "a client that does not answer the close is dropped");
    }

    #[test]
    fn connect_then_subscribe() {
        let mut play = Play::new();
        assert!(play.says(r#"{"id":1,"connect":{"token":"t"}}"#)[0].starts_with("Authenticate"));
        let said = show(play.session.handle_authenticated(play.now, 1, Ok(play.token(300)), None));
        assert!(
            said[0].starts_with(
                r#"{"id":1,"connect":{"session":"n1.0000000000000001","node":"n1","user":"bob","heartbeat_ms":25000,"#
            )
        );
        assert!(play.says(r#"{"id":2,"connect":{"token":"t"}}"#)[0].contains("already_connected"));

        assert!(play.says(r#"{"id":3,"subscribe":{"account":"bob"}}"#)[0].starts_with("Subscribe"));
        let key = Key::Account(UserName::new("bob").unwrap());
        assert_eq!(
            show(play.session.handle_settled(3, &key, "lr".parse().unwrap())),
            [r#"{"id":3,"subscribe":{"key":{"account":"bob"},"rights":"lr"}}"#]
        );
        play.says(r##"{"id":4,"subscribe":{"mailbox":"#private:bob:INBOX"}}"##);
        assert!(play.says(r##"{"id":5,"subscribe":{"mailbox":"#private:bob:Sent"}}"##)[0].contains("limit_reached"));
        assert!(play.says(r##"{"id":6,"unsubscribe":{"mailbox":"#private:bob:Sent"}}"##)[0].contains("not_subscribed"));
        let said = play.says(r#"{"id":7,"unsubscribe":{"account":"bob"}}"#);
        assert!(said[0].starts_with("Unsubscribe") && said[1] == r#"{"id":7,"unsubscribe":{"key":{"account":"bob"}}}"#);
        assert_eq!(
            show(play.session.handle_settled(3, &key, "lr".parse().unwrap())),
            [r#"Unsubscribe(Account("bob"))"#, NOT_SUBSCRIBED],
            "too late: unsubscribed meanwhile"
        );
    }

    #[test]
    fn a_subscription_goes_by_its_new_name() {
        let mut play = Play::connected();
        let key = |name: &str| Key::Mailbox(format!("#private:bob:{name}").parse().unwrap());
        let moved = |play: &mut Play, from: &str, to: &str| show(play.session.handle_moved(&key(from), Some(key(to))));
        play.says(r##"{"id":1,"subscribe":{"mailbox":"#private:bob:A"}}"##);
        assert_eq!(moved(&mut play, "A", "B"), [""; 0]);
        assert_eq!(
            show(play.session.handle_settled(1, &key("A"), Rights::ALL))[1],
            NOT_SUBSCRIBED.replace(":3", ":1"),
            "it was asked for by a name that is no more"
        );
        // What an account covers is none of the client's own: it takes up no place, and stays
        // covered.
        assert_eq!(moved(&mut play, "X", "Y"), [r##"Unsubscribe(Mailbox("#private:bob:Y"))"##]);
        assert!(play.says(r##"{"id":2,"subscribe":{"mailbox":"#private:bob:C"}}"##)[0].starts_with("Subscribe"));
        assert!(play.says(r##"{"id":4,"unsubscribe":{"mailbox":"#private:bob:B"}}"##)[0].starts_with("Unsubscribe"));
    }

    #[test]
    fn a_bad_token_ends_the_session() {
        let mut play = Play::new();
        play.says(r#"{"id":1,"connect":{"token":"t"}}"#);
        let verdict = Err((CommandError::token("bad_signature", "no"), CloseReason::BadToken.into()));
        let said = show(play.session.handle_authenticated(play.now, 1, verdict, None));
        assert!(said[0].contains("bad_signature") && said[1].contains(r#""reconnect":false"#) && said[2] == "close 4500");
    }

    #[test]
    fn heartbeats_both_ways() {
        let mut play = Play::connected();
        let (seconds, said) = play.waits();
        assert_eq!((seconds, said), (25, vec!["{}".to_owned(), "ping".to_owned()]));
        play.says("{}");
        assert_eq!(play.waits().1, ["{}", "ping"], "an answer buys time");
        let (seconds, said) = play.waits();
        assert_eq!(seconds, 8);
        assert_eq!(said[1], "close 4407");
    }

    #[test]
    fn a_client_that_is_told_something_all_the_time_must_answer_too() {
        let mut play = Play::connected();
        for _ in 0..4 {
            play.now.monotonic += Duration::from_secs(6);
            play.session.handle_sent(play.now);
        }
        assert_eq!(play.waits(), (1, vec!["{}".to_owned(), "ping".to_owned()]));
        play.now.monotonic += Duration::from_secs(6);
        play.session.handle_sent(play.now);
        let (seconds, said) = play.waits();
        assert_eq!((seconds, said[1].as_str()), (2, "close 4407"));
    }

    #[test]
    fn a_token_ends_the_session_unless_refreshed() {
        let mut play = Play::connected();
        let until = |play: &mut Play, text: &str| loop {
            let (_, said) = play.waits();
            play.says("{}");
            if let Some(line) = said.into_iter().find(|line| line.contains(text)) {
                return line;
            }
        };
        assert_eq!(until(&mut play, "expiring"), r#"{"expiring":{"in_ms":60000}}"#);
        assert!(play.says(r#"{"id":2,"refresh":{"token":"u"}}"#)[0].starts_with("Refresh"));
        let other = Verified { subject: Subject::alone(UserName::new("eve").unwrap()), expires_at: u64::MAX };
        assert!(show(play.session.handle_refreshed(play.now, 2, Ok(other)))[0].contains("forbidden"));
        let verified = play.token(600);
        assert!(show(play.session.handle_refreshed(play.now, 3, Ok(verified)))[0].contains("token_expires_at"));
        until(&mut play, "expiring");
        assert_eq!(until(&mut play, "close"), "close 4401");
    }

    #[test]
    fn a_token_without_end_does_not_overflow() {
        let mut play = Play::new();
        let eternal = Verified { subject: Subject::alone(UserName::new("bob").unwrap()), expires_at: u64::MAX };
        play.session.handle_authenticated(play.now, 1, Ok(eternal), None);
        assert_eq!(play.waits().0, 25);
    }
}
