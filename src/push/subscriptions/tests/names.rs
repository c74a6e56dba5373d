//! Names that change while rights come and go, messages arrive and outboxes overflow: many
//! histories, the same every time.

use super::chance::Random;
use super::page::*;
use super::play::*;

/// A mailbox as the mail server has it. `rights` are those of the page's user where it is
/// another's.
struct Mailbox {
    path: MailboxPath,
    rights: Rights,
    is_gone: bool,
    /// When reading it, or looking it up, was taken last.
    lost: Option<tokio::time::Instant>,
}

struct World {
    play: Play,
    random: Random,
    page: Page,
    /// The page's user, and the other.
    users: [UserName; 2],
    mailboxes: Vec<Mailbox>,
    /// Of each message: whose it is, and whether the page's user may be told.
    messages: Vec<(usize, bool)>,
    /// Names that the user could look up at some time.
    public: std::collections::HashSet<MailboxPath>,
    names: u32,
    /// Whether the page watches its user's account, and what that covers.
    accounts: bool,
    began: tokio::time::Instant,
    drained: tokio::time::Instant,
}

const ENOUGH: Rights = Rights::READ;

impl World {
    async fn new(seed: u64) -> Self {
        let play = Play::new().await;
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let id = SessionId::new("n".parse().unwrap(), 7);
        let limits = Limits { events: if seed.is_multiple_of(2) { 3 } else { 100 }, bytes: 1 << 20 };
        let subject = Subject::alone(user("bob"));
        let handle = LiveSession::new(id, subject, Transport::Websocket, ([127, 0, 0, 1], 1).into(), 0, limits);
        play.subscriptions.sessions.add(&handle).unwrap();
        let page = Page::new(handle);
        let users = [user("bob"), user("alice")];
        let (mailboxes, messages) = (Vec::new(), Vec::new());
        let mut world = Self {
            play,
            random,
            page,
            users,
            mailboxes,
            messages,
            public: Default::default(),
            names: 0,
            accounts: !seed.is_multiple_of(3),
            began: tokio::time::Instant::now(),
            drained: tokio::time::Instant::now(),
        };
        for path in ["#private:bob:A", "#private:bob:A/y", "#private:alice:T", "#private:alice:T/x", "#private:alice:U"] {
            world.create(path.parse().unwrap());
        }
        world
    }

    fn create(&mut self, path: MailboxPath) {
        let rights = ["lr", "lr", "l", ""][self.random.below(4) as usize].parse().unwrap();
        self.mailboxes.push(Mailbox { path, rights, is_gone: false, lost: None });
        self.write();
    }

    fn rights(&self, of: usize) -> Rights {
        let mailbox = &self.mailboxes[of];
        if mailbox.path.is_owned_by(&self.users[0]) { Rights::ALL } else { mailbox.rights }
    }

    /// The ACLs as they are.
    fn write(&mut self) {
        let mut rights = HashMap::new();
        for mailbox in self.mailboxes.iter().filter(|mailbox| !mailbox.is_gone) {
            if !mailbox.path.is_owned_by(&self.users[0]) {
                rights.insert((mailbox.path.to_string(), self.users[0].to_string()), mailbox.rights);
            }
            if mailbox.path.is_owned_by(&self.users[0]) || mailbox.rights.contains(Rights::LOOKUP) {
                self.public.insert(mailbox.path.clone());
            }
        }
        self.page.log.push(format!("= {:?} {rights:?}", self.began.elapsed()));
        *self.play.script.rights.lock() = rights;
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.mailboxes.len()).filter(|at| !self.mailboxes[*at].is_gone).collect()
    }

    fn named(&self, path: &MailboxPath) -> Option<usize> {
        self.alive().into_iter().find(|at| self.mailboxes[*at].path == *path)
    }

    fn change_rights(&mut self, of: usize, rights: Rights) {
        let before = self.rights(of);
        self.mailboxes[of].rights = rights;
        let now = self.rights(of);
        self.note_loss(of, before, now);
    }

    fn note_loss(&mut self, of: usize, before: Rights, now: Rights) {
        if [Rights::LOOKUP, ENOUGH].iter().any(|rights| before.contains(*rights) && !now.contains(*rights)) {
            self.mailboxes[of].lost = Some(tokio::time::Instant::now());
        }
    }

    fn any_rights(&mut self) -> Rights {
        ["lr", "l", ""][self.random.below(3) as usize].parse().unwrap()
    }

    /// A name that is nobody's: a new one, or one that was somebody's.
    fn free_name(&mut self, owner: &UserName) -> MailboxPath {
        let reused = self.random.below(5);
        let name = if self.random.below(3) == 0 {
            ["A", "T", "U", "V", "V/w"][reused as usize].to_owned()
        } else {
            self.names += 1;
            format!("N{}", self.names)
        };
        let path = MailboxPath::private(owner, &name).unwrap();
        let is_taken = |held: &Mailbox| !held.is_gone && (held.path == path || held.path.renamed(&path, &path).is_some());
        if self.mailboxes.iter().any(is_taken) { self.free_name(owner) } else { path }
    }

    /// What the mail server does; the news of it is yet to come.
    fn rename(&mut self, of: usize) -> (String, Change) {
        let from = self.mailboxes[of].path.clone();
        let stays = self.random.below(8) > 0;
        let owner = if stays { from.owner_name().unwrap() } else { self.users[self.random.below(2) as usize].clone() };
        let to = self.free_name(&owner);
        for at in self.alive() {
            let Some(path) = self.mailboxes[at].path.renamed(&from, &to) else { continue };
            let before = self.rights(at);
            self.mailboxes[at].path = path;
            // Whoever gives it away gives what they like.
            let now = self.rights(at);
            self.note_loss(at, before, now);
            if self.random.below(4) == 0 {
                let rights = self.any_rights();
                self.change_rights(at, rights);
            }
        }
        (from.to_string(), Change::MailboxRename { to })
    }

    async fn step(&mut self) {
        let alive = self.alive();
        let some = self.random.one_of(&alive).copied();
        let sent = self.messages.len() as u32;
        match (self.random.below(16), some) {
            (0 | 1, Some(of)) => self.page.subscribe(Key::Mailbox(self.mailboxes[of].path.clone()), sent),
            (2, _) if self.accounts && self.random.below(3) == 0 => {
                self.page.subscribe(Key::Account(self.users[0].clone()), sent)
            }
            (2, _) if self.random.below(2) == 0 => {
                let keys: Vec<Key> = self.page.records.keys().cloned().collect();
                if let Some(key) = self.random.one_of(&keys) {
                    self.page.close(key, sent);
                }
            }
            (3 | 4, Some(of)) => {
                let rights = self.any_rights();
                self.change_rights(of, rights);
                // Said to be others, a loss is believed at once, be it half of a rename.
                self.mailboxes[of].lost = Some(tokio::time::Instant::now());
                self.write();
                if self.random.below(3) == 0 {
                    pass(self.random.below(10)).await;
                }
                let path = self.mailboxes[of].path.to_string();
                if !self.mailboxes[of].path.is_owned_by(&self.users[0]) {
                    self.play.comes(&path, acl(self.users[0].as_str(), &rights.to_string()));
                }
            }
            (5..=7, Some(of)) => {
                let mut news = vec![self.rename(of)];
                while self.random.below(3) == 0 {
                    news.push(self.rename(of));
                }
                self.write();
                for (from, change) in news {
                    if self.random.below(4) == 0 {
                        pass(self.random.below(300)).await;
                    }
                    self.play.comes(&from, change);
                }
            }
            (8, _) if self.random.below(3) == 0 => self.rename_user().await,
            (9, Some(of)) if self.random.below(2) == 0 => {
                self.mailboxes[of].is_gone = true;
                self.mailboxes[of].lost = Some(tokio::time::Instant::now());
                self.write();
                let path = self.mailboxes[of].path.clone();
                self.play.comes(path.as_str(), Change::MailboxDelete);
                if self.random.below(2) == 0 {
                    self.create(path.clone());
                    self.play.comes(path.as_str(), Change::MailboxCreate);
                }
            }
            (10, _) if self.random.below(3) == 0 => {
                let away = self.random.below(2) == 0;
                self.page.log.push(format!("= {:?} away: {away}", self.began.elapsed()));
                *self.play.script.away.lock() = away;
            }
            (_, Some(of)) => self.deliver(of),
            (_, None) => {}
        }
    }

    async fn rename_user(&mut self) {
        let which = self.random.below(2) as usize;
        let (old, new) = (self.users[which].clone(), {
            self.names += 1;
            user(&format!("{}{}", ["bob", "alice"][which], self.names))
        });
        for mailbox in self.mailboxes.iter_mut().filter(|mailbox| mailbox.path.is_owned_by(&old)) {
            mailbox.path = MailboxPath::new(mailbox.path.namespace(), new.as_str(), mailbox.path.name()).unwrap();
        }
        self.users[which] = new.clone();
        self.write();
        self.play.comes(&format!("#private:{old}:INBOX"), Change::AccountRename { to: new });
    }

    fn deliver(&mut self, of: usize) {
        let may = self.rights(of).contains(ENOUGH);
        self.messages.push((of, may));
        self.page.log.push(format!("= {:?} message {}", self.began.elapsed(), self.messages.len()));
        let path = self.mailboxes[of].path.to_string();
        self.play.comes(&path, message(self.messages.len() as u32));
    }

    fn say(&mut self) {
        let told = self.page.say(&self.play.subscriptions, self.messages.len() as u32);
        self.judge(told);
    }

    fn drain(&mut self) {
        self.page.log.push(format!("= {:?} looks", self.began.elapsed()));
        let told = self.page.drain(&self.play.subscriptions, self.messages.len() as u32);
        self.judge(told);
        self.drained = tokio::time::Instant::now();
    }

    fn judge(&mut self, told: Vec<Told>) {
        for told in told {
            match told {
                Told::Stands(Key::Mailbox(path)) => {
                    // It was taken to stand after the last look, by an answer that may have been on
                    // its way.
                    let since = self.drained - Duration::from_millis(500);
                    let about = self.named(&path).map(|of| (of, since));
                    if let Some(record) = self.page.records.get_mut(&Key::Mailbox(path)) {
                        record.about = about;
                    }
                }
                Told::Stands(Key::Account(_)) => {}
                Told::Message(uid) => {
                    assert!(self.messages[uid as usize - 1].1, "{uid} was told without a right: {:#?}", self.page.log);
                }
                Told::Renamed(to) => assert!(
                    self.public.contains(&to) || to.owner().starts_with("bob"),
                    "a secret name: {to}: {:#?}",
                    self.page.log
                ),
                Told::Revoked(key, record) => {
                    // One of the user's own ends where the page could take it for another.
                    if let Some((of, since)) = record.about.filter(|_| !key.is_owned_by(&self.users[0])) {
                        assert!(self.mailboxes[of].lost >= Some(since), "nothing of {key} was taken: {:#?}", self.page.log);
                    }
                }
            }
        }
    }

    async fn end(mut self) {
        *self.play.script.away.lock() = false;
        self.play.script.pauses.lock().clear();
        for _ in 0..8 {
            self.say();
            pass(6_000).await;
            self.drain();
        }
        let log = std::mem::take(&mut self.page.log);
        assert!(self.page.unanswered.is_empty(), "not answered: {:?}: {log:#?}", self.page.unanswered);
        let held: Vec<Key> = {
            let book = self.page.handle.book().unwrap();
            let asked = book.iter().filter(|known| known.interest.client().is_some());
            let mut keys: Vec<Key> = asked.map(|known| known.name().clone()).collect();
            keys.sort();
            keys
        };
        assert_eq!(self.page.records.keys().cloned().collect::<Vec<_>>(), held, "the page's, and the server's: {log:#?}");
        assert_eq!(self.play.subscriptions.moving.load(Ordering::Relaxed), 0, "{log:#?}");
        let records: Vec<(Key, Record)> = self.page.records.iter().map(|(key, record)| (key.clone(), *record)).collect();
        for (key, record) in records {
            assert!(record.ready && record.current, "{key}: {log:#?}");
            let Key::Mailbox(path) = &key else { continue };
            let Some(of) = self.named(path) else {
                assert!(path.is_owned_by(&self.users[0]), "{key} is no mailbox: {log:#?}");
                continue;
            };
            let missed = |uid: &u32| {
                let (mailbox, may) = self.messages[*uid as usize - 1];
                mailbox == of && may && self.rights(of).contains(ENOUGH) && *uid > record.read && !self.page.told.contains(uid)
            };
            let missed: Vec<u32> = (1..=self.messages.len() as u32).filter(missed).collect();
            assert!(missed.is_empty(), "of {key} {missed:?} were missed without a word: {log:#?}");
            self.deliver(of);
            self.drain();
            let uid = self.messages.len() as u32;
            assert_eq!(self.page.told.contains(&uid), self.rights(of).contains(ENOUGH), "{key}: {log:#?} {:#?}", self.page.log);
        }
    }
}

async fn history(seed: u64) {
    let mut world = World::new(seed).await;
    let pauses: Vec<u64> = (0..300).map(|_| world.random.below(40)).collect();
    world.play.script.pauses.lock().extend(pauses);
    for _ in 0..60 {
        world.step().await;
        if world.random.below(3) == 0 {
            pass(world.random.below(100)).await;
        }
        // What it says arrives; what it is told may be long on its way.
        world.say();
        if world.random.below(3) == 0 {
            world.drain();
            world.say();
        }
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_is_where_the_server_is_in_the_end_of_three_hundred_histories() {
    let (first, last) = match std::env::var("MAILPUSH_SEED") {
        Ok(seed) => (seed.parse().unwrap(), seed.parse().unwrap()),
        Err(_) => (1, 300),
    };
    let mut failed = Vec::new();
    for seed in first..=last {
        // Each by itself, so that one look tells of all.
        if tokio::spawn(history(seed)).await.is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "MAILPUSH_SEED is one of {failed:?}");
}
