//! The cluster: what happens to the mailbox, what becomes of the events about it, and how it ends.

use super::*;

impl World {
    pub(super) fn stand(&mut self, standing: Registration) {
        let Some((path, stands)) = &mut self.watched else { return };
        let path = path.clone();
        match (*stands, standing) {
            (Some(Registration::Settled), Registration::Registered) => return,
            (_, Registration::Settled) => {
                *stands = Some(standing);
                // What had been looked up before has come by now, and is older than what was looked
                // up since.
                self.deliver_all();
                self.settled = true;
            }
            _ => *stands = Some(standing),
        }
        self.note(&standing);
        self.session.handle(self.now, Input::Registration { mailbox: &path, registration: standing });
        self.after();
    }

    pub(super) fn resync(&mut self) {
        self.resync_due = false;
        self.note(&"resync");
        self.session.handle(self.now, Input::Resync);
        self.after();
    }

    /// The cluster does not trust what it knows of the user's rights.
    pub(super) fn check_rights(&mut self) {
        let Some((path, _)) = &self.watched else { return };
        let path = path.clone();
        if self.asks {
            self.granted = false;
            self.session.handle(self.now, Input::RightsCheck(&path));
            self.after();
        }
    }

    pub(super) fn deliver_all(&mut self) {
        while !self.queue.is_empty() {
            self.deliver(0);
        }
    }

    /// Delivers an event; it may overtake any others, those of the same message too.
    pub(super) fn deliver(&mut self, at: usize) {
        let at = at.min(self.queue.len().saturating_sub(1));
        let Some(event) = self.queue.remove(at) else { return };
        if self.watched.is_some() && self.ended.is_none() && !self.granted {
            self.withheld = true;
            return;
        }
        if self.watched.is_some() && self.ended.is_none() {
            self.note(&event.change);
            self.session.handle(self.now, Input::Event(&event));
            self.after();
        }
    }

    pub(super) fn change(&mut self, news: &News, fate: Fate, status: bool) {
        let Some(change) = self.happen(news) else { return };
        let mailbox = self.store.latest();
        let status = status.then(|| Status {
            messages: u32::try_from(mailbox.messages.len()).ok(),
            uidnext: Some(mailbox.uidnext),
            unseen: None,
            highestmodseq: Some(ModSeq(mailbox.modseq)),
        });
        let event = Event {
            id: EventId::now(),
            mailbox: TEAM.parse().expect("a path"),
            uidvalidity: UidValidity::new(9),
            status,
            change,
            ..sample()
        };
        if self.watched.is_none() {
            return;
        }
        match fate {
            Fate::Lost => {
                // Within the settle window a lookup may be stale; later the node is told that it
                // missed something.
                if self.settled {
                    self.resync_due = true;
                    self.queue.clear();
                }
            }
            Fate::Twice => self.queue.extend([event.clone(), event]),
            Fate::Once => self.queue.push_back(event),
            Fate::Now => {
                self.queue.push_back(event);
                self.deliver_all();
            }
        }
    }

    /// Changes the mailbox; what is said of it.
    fn happen(&mut self, news: &News) -> Option<Change> {
        let now = self.now;
        let held: Vec<u32> = self.store.latest().messages.keys().copied().collect();
        let picked = |at: usize| held.get(at % held.len().max(1)).copied();
        let uid = |uid: u32| Uid::new(uid).expect("not 0");
        Some(match news {
            News::Append(count) => {
                let uids: Vec<u32> = self.store.change(now, |mailbox| (0..*count).map(|_| mailbox.append()).collect());
                Change::MessageAppend { messages: uids.into_iter().map(|n| NewMessage::new(uid(n))).collect() }
            }
            News::Expunge { at, count } => {
                let gone: Vec<u32> =
                    (*at..*at + *count).filter_map(picked).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
                self.store.change(now, |mailbox| {
                    mailbox.modseq += 1;
                    gone.iter().for_each(|uid| drop(mailbox.messages.remove(uid)));
                });
                (!gone.is_empty()).then(|| Change::MessageExpunge { uids: gone.into_iter().map(uid).collect(), modseq: None })?
            }
            News::Flag { at, flags, set, whole, modseq } => {
                let of = picked(*at)?;
                let names = ["\\Seen", "\\Flagged", "$a", "$b"];
                let flags: Marks = (0..4).filter(|bit| flags >> bit & 1 == 1).map(|bit| names[bit].to_owned()).collect();
                self.store.change(now, |mailbox| mailbox.flag(of, &flags, *set));
                let after = self.store.latest().messages.get(&of)?.clone();
                let sift = |flags: &Marks| Flags::sift(flags.iter().map(String::as_str)).0;
                let change = FlagChange {
                    uid: uid(of),
                    changed: sift(&flags),
                    flags: whole.then(|| sift(&after.flags)),
                    modseq: modseq.then_some(ModSeq(after.modseq)),
                };
                if *set { Change::FlagsSet { messages: vec![change] } } else { Change::FlagsClear { messages: vec![change] } }
            }
            News::Vague => Change::MailboxChange,
        })
    }

    /// Everything is told, and everything works.
    pub fn calm_down(&mut self) {
        (self.failures, self.store.lag, self.store.silent) = (0, Duration::ZERO, 0);
        if !self.healthy {
            self.step(&Step::Health(true));
        }
        self.quiet();
        for _ in 0..12 {
            if self.ended.is_none() && !self.client.idles() && self.client.can_command() {
                self.say(Words::Idle);
            }
            self.quiet();
            if self.watched.as_ref().is_some_and(|(_, stands)| *stands != Some(Registration::Settled)) {
                self.stand(Registration::Settled);
            }
            self.deliver_all();
            if self.resync_due {
                self.resync();
            }
            self.quiet();
            // A server that idles tells by itself; of any other only an answer is to be had.
            if self.connection.as_ref().is_some_and(Connection::is_idling) {
                self.speak_unasked();
            }
            self.pass(Duration::from_secs(25), true);
            if self.ended.is_some() || self.is_at_peace() {
                break;
            }
        }
        if !self.lag.is_zero() {
            // What the server did not know when it was asked is noticed when it is asked next.
            self.pass(Duration::from_secs(700), true);
        }
        if self.ended.is_none() && self.asks && self.offers.acl {
            self.check_rights();
            self.quiet();
            assert!(self.granted || self.ended == Some("revoked"), "the cluster is told of the rights");
            assert!(!(self.granted && self.store.denied), "the user may not read");
        }
    }

    fn is_at_peace(&self) -> bool {
        let settled = self.watched.as_ref().is_some_and(|(_, stands)| *stands == Some(Registration::Settled));
        self.client.only_idles() && settled && self.granted && self.queue.is_empty() && !self.resync_due
    }

    /// What the client believes is what is.
    pub fn assert_agreement(&self) {
        let truth = self.store.latest();
        assert_eq!(self.client.slots.len(), truth.messages.len(), "how many there are: {:?}", self.client.slots);
        for (slot, (uid, message)) in self.client.slots.iter().zip(&truth.messages) {
            assert!(slot.uid.is_none_or(|known| known == *uid), "{slot:?} is {uid}");
            // Longer than the gateway waits for a server, nobody can tell what it will still show.
            let is_told = slot.flags.as_ref().is_none_or(|flags| *flags == message.flags) || self.lag > CATCH_UP;
            assert!(is_told, "{slot:?} has {message:?}");
        }
    }

    /// The client leaves IDLE and looks at everything.
    pub fn look_and_leave(&mut self) {
        self.say(Words::Noop);
        self.pass(Duration::from_secs(25), true);
        if self.ended.is_some() {
            return;
        }
        self.assert_agreement();
        if !self.client.slots.is_empty() {
            self.client.send("FETCH 1:* (UID FLAGS)", Doing::Closed { certain: true });
            self.quiet();
            self.assert_agreement();
            assert!(self.client.slots.iter().all(|slot| slot.uid.is_some() && slot.flags.is_some()));
        }
        let [made, heard] = self.acl_changes;
        assert_eq!(made, heard, "changes of ACLs");
        self.client.send("LOGOUT", Doing::Setup);
        self.quiet();
        assert!(self.ended.is_some(), "it ends with LOGOUT");
        self.client.over = None;
    }
}

pub(super) fn flag_change(event: &Event) -> Option<&FlagChange> {
    match &event.change {
        Change::FlagsSet { messages } | Change::FlagsClear { messages } => messages.first(),
        _ => None,
    }
}
