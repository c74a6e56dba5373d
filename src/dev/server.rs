//! The store's sockets: a loopback listener and a task for each connection; and the store as the
//! rest of dev sees it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use data_encoding::BASE64URL_NOPAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};
use uuid::Uuid;

use super::imap::session::{Session, Traits};
use super::rights::StoreRights;
use super::shared::Shared;
use super::store::mailbox::{Content, Stamp};
use super::store::messages::Arrival;
use super::store::model::{Faults, Limits, Model, Refusal};
use super::store::names::Style;
use crate::http::files;
use crate::http::seldom::Seldom;
use crate::mail::rights::Rights;
use crate::mail::{Event, Flags, Uid, UserName};
use crate::push::clock::unix_ms;
use crate::tasks::vital;
use crate::wire::imap::credentials::Credentials;

/// Who may log in as anybody, for a gateway that takes a client's connection up again.
const MASTER: &str = "gateway";
/// Events that wait for being published before no more commands are carried out.
const MAX_EVENTS: usize = 10_000;
/// How long a client may leave what is written to it unread.
const WRITE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What the store is like.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Local parts of the users, each of which is its password too.
    pub users: Vec<String>,
    pub domain: String,
    /// 0 picks a free one, on the loopback interface.
    pub port: u16,
    pub limits: Limits,
    pub style: Style,
    /// Whether these extensions are there.
    pub esearch: bool,
    pub idle: bool,
    /// CONDSTORE and QRESYNC.
    pub condstore: bool,
    pub faults: Faults,
    /// Where the events say that they happened.
    pub origin: String,
    /// Takes the event of every change, in the order of the changes and after they were made;
    /// `None`: nobody hears.
    pub events: Option<mpsc::Sender<Event>>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            users: super::USERS.map(str::to_owned).to_vec(),
            domain: super::DOMAIN.to_owned(),
            port: 0,
            limits: Limits::default(),
            style: Style::default(),
            esearch: true,
            idle: true,
            condstore: true,
            faults: Faults::default(),
            origin: "dev-store".to_owned(),
            events: None,
        }
    }
}

/// A running store; stops when dropped. alice's mailbox `Team` is shared with bob from the start.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    address: SocketAddr,
    master: Credentials,
    stop: CancellationToken,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Store {
    pub async fn start(options: StoreOptions) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.context("cannot listen for the mail store")?;
        let address = listener.local_addr()?;
        let users = options.users.iter().map(|name| UserName::new(format!("{name}@{}", options.domain)));
        let users: Vec<UserName> = users.collect::<Result<_, _>>().context("the mail store's users")?;
        // A mailbox of an earlier run is another one.
        let uidvalidity = (unix_ms() / 1_000) as u32;
        let mut model = Model::new(users, options.style, options.limits, options.origin, uidvalidity);
        model.faults = options.faults;
        if let (Some(alice), Some(bob)) = (model.user("alice"), model.user("bob")) {
            model.insert(&alice, "Team").context("the shared mailbox")?;
            model.grant(&alice, "Team", &bob, Rights::parse("lrs").unwrap_or_default());
            // Mail apps show what is subscribed to.
            for user in [&alice, &bob] {
                model.add_subscription(user, &alice, "Team");
            }
        }
        let shared = Arc::new(Shared::new(model));
        let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let master = Credentials::new(MASTER, BASE64URL_NOPAD.encode(&random));
        let traits =
            Traits { master: master.clone(), esearch: options.esearch, idle: options.idle, condstore: options.condstore };
        let stop = CancellationToken::new();
        let publishing = tokio::spawn(vital("mail store events", publish(shared.clone(), options.events)));
        let accepting = accept(shared.clone(), listener, traits, options.limits.connections, stop.clone());
        let tasks = [tokio::spawn(vital("mail store", accepting)), publishing].map(AbortOnDropHandle::new);
        Ok(Self { shared, address, master, stop, _tasks: tasks })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Logs in as anybody, by SASL PLAIN with the user as authorization identity.
    pub fn master(&self) -> &Credentials {
        &self.master
    }

    /// Delivers a message, as an MTA would: `MessageNew`. `user` is `alice` or `alice@example.org`,
    /// `mailbox` a name of their own.
    #[allow(dead_code, reason = "for tests")]
    pub fn deliver(&self, user: &str, mailbox: &str, message: &[u8]) -> Result<Uid, Refusal> {
        let stamp = Stamp { now: Instant::now(), unix_ms: unix_ms(), session: 0 };
        self.shared.change(|model| {
            let user = model.user(user).ok_or(Refusal::Nonexistent)?;
            let id = model.find(&user, mailbox, "p").or_else(|_| model.find(&user, mailbox, "i"))?;
            let content = Content { raw: message.to_vec(), internaldate: stamp.unix_ms / 1_000 * 1_000 };
            let uids = model.append(stamp, &user, id, vec![(Flags::default(), content.into())], Arrival::Delivered)?;
            uids.first().copied().ok_or(Refusal::Cannot("There is no message"))
        })
    }

    /// What users may do with each other's mailboxes, straight from the store.
    pub fn rights(&self) -> StoreRights {
        StoreRights::new(self.shared.clone())
    }

    #[allow(dead_code, reason = "for tests")]
    pub fn faults(&self) -> Faults {
        self.shared.model().faults
    }

    /// Changes how it misbehaves, from now on.
    #[allow(dead_code, reason = "for tests")]
    pub fn set_faults(&self, faults: Faults) {
        self.shared.model().faults = faults;
        // Whoever waits for the end of a lag looks anew.
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// Ends every connection that there is, without a word; new ones are taken in.
    #[allow(dead_code, reason = "for tests")]
    pub fn cut_connections(&self) {
        self.shared.model().cut += 1;
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Hands events on in their order. The channel's back-pressure is the publisher's.
async fn publish(shared: Arc<Shared>, events: Option<mpsc::Sender<Event>>) {
    let mut changed = shared.changed.subscribe();
    loop {
        let next = shared.model().outbox.pop_front();
        match (next, &events) {
            (Some(event), Some(events)) => {
                if events.send(event).await.is_err() {
                    debug!("nobody takes the mail store's events any more");
                    return;
                }
                if shared.model().outbox.len() == MAX_EVENTS {
                    // Connections that waited for room go on.
                    shared.changed.send_modify(|count| *count += 1);
                }
            }
            (Some(_), None) => {}
            (None, _) => {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, traits: Traits, connections: usize, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(connections));
    let ids = AtomicU64::new(1);
    let mut failures = Seldom::default();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            () = stop.cancelled() => return,
        };
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(times) = failures.again(Instant::now()) {
                    warn!(%error, times, "the mail store cannot take a connection in");
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        // The store lives in the process of the nodes: what they keep for probes and goodbyes is not
        // the store's to take.
        let place = places.clone().try_acquire_owned().ok().filter(|_| !files::is_scarce(&stream));
        let Some(place) = place else {
            let _ = stream.try_write(b"* BYE [LIMIT] Too many connections\r\n");
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (shared, traits, stop) = (shared.clone(), traits.clone(), stop.clone());
        let id = ids.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _place = place;
            let served = serve(&shared, &mut stream, id, traits);
            tokio::select! {
                served = served => if let Err(error) = served {
                    debug!(%error, id, "a connection of the mail store broke");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

/// One connection, until it ends.
async fn serve(shared: &Shared, stream: &mut TcpStream, id: u64, traits: Traits) -> std::io::Result<()> {
    let mut changed = shared.changed.subscribe();
    let cut = shared.model().cut;
    let mut session = Session::new(id, traits, Instant::now());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let (hold, is_cut, full, timeout) = {
            let model = shared.model();
            (model.faults.hold, model.cut != cut, model.outbox.len() > MAX_EVENTS, session.poll_timeout(&model))
        };
        if is_cut {
            return Ok(());
        }
        if hold {
            if changed.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        if !session.to_client.is_empty() {
            let written = tokio::time::timeout(WRITE_PATIENCE, stream.write_all(&session.to_client)).await;
            written.map_err(|_| std::io::ErrorKind::TimedOut)??;
            session.to_client.clear();
            if session.to_client.capacity() > buffer.len() {
                session.to_client = Vec::new();
            }
            shared.change(|model| session.handle_backlog(model, Instant::now(), unix_ms()));
            continue;
        }
        if session.is_closed() {
            return stream.shutdown().await;
        }
        // The watch is set off by every change, and by the publisher's making room.
        let timeout = timeout.map_or_else(|| Instant::now() + WRITE_PATIENCE, std::convert::identity);
        tokio::select! {
            read = stream.read(&mut buffer), if session.wants_client() && !full => match read? {
                0 => return Ok(()),
                length => shared.change(|model| session.handle_client(model, Instant::now(), unix_ms(), &buffer[..length])),
            },
            changed = changed.changed() => match changed {
                Ok(()) => shared.change(|model| session.handle_time(model, Instant::now(), unix_ms())),
                Err(_) => return Ok(()),
            },
            () = tokio::time::sleep_until(timeout.into()) => {
                shared.change(|model| session.handle_time(model, Instant::now(), unix_ms()));
            }
        }
    }
}
