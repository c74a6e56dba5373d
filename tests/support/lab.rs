//! A whole site: Dovecot with our script, the agent beside it, and a cluster of gateways before it.

use std::collections::HashSet;
use std::fs;
use std::sync::OnceLock;

use super::agent::TestAgent;
use super::cluster::{Own, PATIENCE, TestCluster};
use super::dovecot::{MASTER, Options, TestDovecot, password};
use super::imap::ImapClient;
use super::process::keep;
use super::wait::eventually;

/// Sessions are parked after this long: soon, and not before the change that a test makes at once.
pub const PARKING: [&str; 2] = ["imap.park=master-user", "imap.park_after_ms=200"];

/// Ends with the test.
pub struct Lab {
    pub cluster: TestCluster,
    pub agent: TestAgent,
    pub dovecot: TestDovecot,
}

impl Lab {
    /// With a gateway for each list of settings, and a Dovecot of its own.
    pub async fn start(gateways: &[&[&str]]) -> Self {
        Self::start_owning(Own::Nothing, gateways).await
    }

    /// With one more server of its own, which the test may harm.
    pub async fn start_owning(own: Own, gateways: &[&[&str]]) -> Self {
        let agent = TestAgent::new();
        let extra = "protocol lmtp {\n  lmtp_save_to_detail_mailbox = yes\n}\n".to_owned();
        let dovecot = TestDovecot::start(Options { agent: agent.url(), extra }).await;
        let settings = [
            format!("imap.upstream.addresses=127.0.0.1:{}", dovecot.imap_port),
            format!("imap.master.user={}", MASTER.0),
            format!("imap.master.password={}", MASTER.1),
        ];
        let settings = settings.each_ref().map(String::as_str);
        let cluster = TestCluster::start_owning(own, 0, &settings).await;
        let mut lab = Self { cluster, agent, dovecot };
        for own in gateways {
            lab.cluster.add_node(own).await;
        }
        for node in 0..gateways.len() {
            lab.cluster.sees_nodes(node, gateways.len()).await;
        }
        lab.launch_agent().await;
        lab
    }

    /// Starts the agent (again), with the spool that is there.
    pub async fn launch_agent(&mut self) {
        let settings = [
            format!("agent.imap.address=127.0.0.1:{}", self.dovecot.imap_port),
            format!("agent.imap.master_user={}", MASTER.0),
            format!("agent.imap.master_password={}", MASTER.1),
            // The machine that runs the tests may be busy.
            "agent.imap.timeout_ms=10000".to_owned(),
        ];
        self.agent.launch(self.cluster.command(&["agent"]), &settings.each_ref().map(String::as_str)).await;
    }

    /// The one that all tests share; do not harm it. Gateways: 0 and 1 park nothing, 2 parks by the master
    /// user, 3 with the clients' own credentials, 4 at once.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<&'static Lab> = OnceLock::new();
        SHARED.get_or_init(|| {
            keep(async || {
                // For so long a session is not parked whose flags were asked for.
                let soon = "imap.catch_up_ms=2000";
                let by_master = [PARKING[0], PARKING[1], soon];
                let credentials = ["imap.park=credentials", PARKING[1], soon];
                let at_once = [PARKING[0], "imap.park_after_ms=20", soon];
                Self::start(&[&[], &["imap.keepalive_ms=2000"], &by_master, &credentials, &at_once]).await
            })
        })
    }

    /// A client of a gateway, logged in.
    pub async fn client(&self, gateway: usize, user: &str) -> ImapClient {
        ImapClient::login(self.cluster.imap(gateway), user, &password(user)).await
    }

    /// How many connections to Dovecot's IMAP a gateway's process holds.
    pub fn upstream_connections(&self, gateway: usize) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.cluster.pid(gateway))).expect("the gateway's open files");
        let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        let sockets: HashSet<String> =
            links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
        let table = fs::read_to_string("/proc/net/tcp").expect("the list of connections");
        let port = format!(":{:04X}", self.dovecot.imap_port);
        let ours = table.lines().filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 9 && fields[2].ends_with(&port) && sockets.contains(fields[9])
        });
        ours.count()
    }

    /// Waits until a gateway holds `count` sessions parked, and no connection to Dovecot.
    pub async fn becomes_parked(&self, gateway: usize, count: u64) {
        eventually("all sessions are parked", PATIENCE, async || {
            let parked = self.cluster.metric(gateway, "mailpush_imap_parked").await;
            (parked == count && self.upstream_connections(gateway) == 0).then_some(())
        })
        .await;
    }

    /// What a failing test with the shared one shows.
    pub fn print_logs(&self) {
        let tail = |log: String| log.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        for node in 0..5 {
            eprintln!("--- log of {} ---\n{}", self.cluster.id(node), tail(self.cluster.log(node)));
        }
        eprintln!("--- log of the agent ---\n{}\n--- log of Dovecot ---\n{}", tail(self.agent.log()), tail(self.dovecot.log()));
    }
}
