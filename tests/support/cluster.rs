//! A real cluster: Apache ZooKeeper, Apache Kafka, and `mailpush serve` processes on free loopback ports.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mailpush::mail::Key;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;
use zookeeper_client as zk;

use super::fixtures::free_port;
use super::kafka::{Security, TestKafka};
use super::process::{die_with_parent, signal};
use super::wait::eventually;
use super::ws::WsClient;
use super::zookeeper::TestZookeeper;

const SECRET: &str = "a secret of the tests, long enough for HS256";
pub const SECOND: Duration = Duration::from_secs(1);
/// What a node says that finds its port taken (EADDRINUSE).
const IN_USE: &str = "Address already in use";
/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The server that a cluster has for itself, because the test harms it. All others are those that all tests share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    Nothing,
    Zookeeper,
    Kafka,
    /// A Kafka in which the cluster may do nothing until the test allows it.
    GuardedKafka,
}

/// One that all tests share, or one to be harmed.
enum Server<T: 'static> {
    Shared(&'static T),
    Own(Box<T>),
}

impl<T> Server<T> {
    fn get(&self) -> &T {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }

    fn own(&mut self) -> &mut T {
        match self {
            Self::Shared(_) => panic!("all tests share this server: use start_owning"),
            Self::Own(server) => server,
        }
    }
}

/// Everything of it ends with the test. Its chroot in ZooKeeper and its topics in Kafka have a name of their own.
pub struct TestCluster {
    zookeeper: Server<TestZookeeper>,
    kafka: Server<TestKafka>,
    nodes: Vec<TestNode>,
    prefix: String,
    folder: TempDir,
    settings: Vec<String>,
}

/// One `mailpush serve` process.
pub struct TestNode {
    process: Option<Child>,
    id: String,
    port: u16,
    imap_port: u16,
    log: PathBuf,
}

impl TestCluster {
    /// `count` nodes in the default topology.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// With settings that every node gets, such as `queue.topology=sharded`.
    pub async fn start_with(count: usize, settings: &[&str]) -> Self {
        Self::start_owning(Own::Nothing, count, settings).await
    }

    /// With a server of its own, which the test may harm.
    pub async fn start_owning(own: Own, count: usize, settings: &[&str]) -> Self {
        let mut cluster = Self {
            zookeeper: match own {
                Own::Zookeeper => Server::Own(Box::new(TestZookeeper::start().await)),
                Own::Nothing | Own::Kafka | Own::GuardedKafka => Server::Shared(TestZookeeper::shared().await),
            },
            kafka: match own {
                Own::Kafka => Server::Own(Box::new(TestKafka::start())),
                Own::GuardedKafka => Server::Own(Box::new(TestKafka::start_with(Security::Rights))),
                Own::Nothing | Own::Zookeeper => Server::Shared(TestKafka::shared()),
            },
            nodes: Vec::new(),
            prefix: format!("t{}", &Uuid::new_v4().simple().to_string()[..8]),
            folder: TempDir::with_prefix("mailpush-").expect("make a folder"),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        };
        for _ in 0..count {
            cluster.add_node(&[]).await;
        }
        for node in 0..count {
            cluster.sees_nodes(node, count).await;
        }
        cluster
    }

    /// Starts one more node and waits until it is ready; returns its number.
    pub async fn add_node(&mut self, settings: &[&str]) -> usize {
        let number = self.make_node();
        for _ in 0..3 {
            match self.start_process(number, settings).await {
                Ok(()) => return number,
                // Somebody took a free port before the node did.
                Err(why) if why.contains(IN_USE) => {
                    (self.nodes[number].port, self.nodes[number].imap_port) = (free_port(), free_port());
                    let _ = fs::remove_file(&self.nodes[number].log);
                }
                Err(why) => panic!("{why}"),
            }
        }
        panic!("no port stays free")
    }

    /// Starts one more node, which cannot become ready yet; returns its number.
    pub async fn add_node_unready(&mut self) -> usize {
        let number = self.make_node();
        self.spawn_process(number, &[]);
        number
    }

    fn make_node(&mut self) -> usize {
        let number = self.nodes.len();
        self.nodes.push(TestNode {
            process: None,
            id: format!("n{}", number + 1),
            port: free_port(),
            imap_port: free_port(),
            log: self.folder.path().join(format!("n{}.log", number + 1)),
        });
        number
    }

    /// Starts a node's process (again) and waits until it is ready.
    pub async fn launch(&mut self, number: usize, settings: &[&str]) {
        self.start_process(number, settings).await.unwrap_or_else(|why| panic!("{why}"));
    }

    fn spawn_process(&mut self, number: usize, settings: &[&str]) {
        let mut command = self.command(&["serve"]);
        let node = &self.nodes[number];
        let log = File::options().create(true).append(true).open(&node.log).expect("open the node's log");
        for setting in [format!("node.id={}", node.id), format!("http.listen=127.0.0.1:{}", node.port)] {
            command.args(["--set", &setting]);
        }
        if self.settings.iter().any(|setting| setting.starts_with("imap.upstream.addresses=")) {
            command.args(["--set", &format!("imap.listen=127.0.0.1:{}", node.imap_port)]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        die_with_parent(&mut command);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start mailpush serve");
        self.nodes[number].process = Some(process);
    }

    /// The same; or tells why the process has ended.
    async fn start_process(&mut self, number: usize, settings: &[&str]) -> Result<(), String> {
        self.spawn_process(number, settings);
        eventually("the node is ready", PATIENCE, async || {
            let process = self.nodes[number].process.as_mut().expect("it was started");
            if let Some(status) = process.try_wait().expect("its status") {
                return Some(Err(format!("{} has ended ({status}):\n{}", self.nodes[number].id, self.log(number))));
            }
            self.is_ready(number).await.then_some(Ok(()))
        })
        .await
    }

    pub async fn is_ready(&self, node: usize) -> bool {
        let answer = reqwest::get(format!("{}/readyz", self.http(node))).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// The program with the cluster's settings; commands add their own flags.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailpush"));
        let settings = [
            format!("registry.ensembles={}", self.zookeeper().address()),
            format!("registry.chroot={}", self.chroot()),
            "registry.session_timeout_ms=2000".to_owned(),
            "registry.settle_ms=300".to_owned(),
            "registry.linger_ms=500".to_owned(),
            format!("queue.brokers={}", self.kafka().address()),
            format!("queue.prefix={}", self.prefix),
            "queue.send_timeout_ms=3000".to_owned(),
            "queue.shards=2".to_owned(),
            format!("auth.secret={SECRET}"),
            "sessions.resync_spread_ms=100".to_owned(),
            // A client of a test answers heartbeats only while it is read.
            "sessions.heartbeat_ms=300000".to_owned(),
            "http.peer_timeout_ms=1000".to_owned(),
            "node.drain_deadline_ms=8000".to_owned(),
        ];
        let login = self.kafka().settings(&self.prefix);
        let sasl = login.sasl_mechanism.map(|mechanism| {
            let (mechanism, user) = (mechanism.name(), login.sasl_user);
            let password = super::kafka::PASSWORD;
            [
                format!("queue.sasl_mechanism={mechanism}"),
                format!("queue.sasl_user={user}"),
                format!("queue.sasl_password={password}"),
            ]
        });
        let settings: Vec<String> = settings.into_iter().chain(sasl.into_iter().flatten()).collect();
        // Between a command's name and its own flags, so that those win.
        let name = if arguments[0] == "token" { 2 } else { 1 };
        command.args(&arguments[..name]);
        for setting in settings.iter().chain(&self.settings) {
            command.args(["--set", setting]);
        }
        command.args(&arguments[name..]);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("run mailpush")
    }

    pub fn zookeeper(&self) -> &TestZookeeper {
        self.zookeeper.get()
    }

    /// The ZooKeeper of this cluster alone.
    pub fn own_zookeeper(&mut self) -> &mut TestZookeeper {
        self.zookeeper.own()
    }

    /// What the registry's paths begin with.
    fn chroot(&self) -> String {
        format!("/{}", self.prefix)
    }

    pub fn kafka(&self) -> &TestKafka {
        self.kafka.get()
    }

    /// The Kafka of this cluster alone.
    pub fn own_kafka(&mut self) -> &mut TestKafka {
        self.kafka.own()
    }

    pub fn http(&self, node: usize) -> String {
        format!("http://127.0.0.1:{}", self.nodes[node].port)
    }

    pub fn ws(&self, node: usize) -> String {
        format!("ws://127.0.0.1:{}/v1/ws", self.nodes[node].port)
    }

    /// The port of a node's IMAP door, which is open where the cluster has `imap.upstream.addresses`.
    pub fn imap(&self, node: usize) -> u16 {
        self.nodes[node].imap_port
    }

    pub fn id(&self, node: usize) -> &str {
        &self.nodes[node].id
    }

    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("a running node").id()
    }

    /// The queue of a node, in the per-node topology.
    pub fn queue(&self, node: usize) -> String {
        format!("{}.node.{}", self.prefix, self.nodes[node].id)
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// What a node has logged.
    pub fn log(&self, node: usize) -> String {
        fs::read_to_string(&self.nodes[node].log).unwrap_or_default()
    }

    /// A token of a user, with these scopes.
    pub fn token(&self, user: &str, scopes: &[&str]) -> String {
        let mut arguments = vec!["token", "issue", "--user", user];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token").trim().to_owned()
    }

    pub fn admin_token(&self) -> String {
        self.token("admin@example.org", &["push", "subscriptions:read", "sessions:write", "events:publish"])
    }

    /// A client of a node, connected as a user.
    pub async fn client(&self, node: usize, user: &str) -> WsClient {
        WsClient::connect(&self.ws(node), &self.token(user, &["push"])).await
    }

    /// Publishes through a node; returns the event's result.
    pub async fn publish(&self, node: usize, event: Value) -> Value {
        let answer = self.try_publish(node, &event).await.unwrap_or_else(|answer| panic!("not published: {answer}"));
        answer["results"][0].clone()
    }

    pub async fn try_publish(&self, node: usize, event: &Value) -> Result<Value, Value> {
        let request = reqwest::Client::new().post(format!("{}/v1/events", self.http(node))).bearer_auth(self.admin_token());
        let response = request.json(event).send().await.expect("an answer to a publish");
        let ok = response.status().is_success();
        let answer = response.json().await.expect("JSON");
        if ok { Ok(answer) } else { Err(answer) }
    }

    /// A REST request's status and body.
    pub async fn get(&self, node: usize, path: &str, token: &str) -> (u16, Value) {
        let response = reqwest::Client::new().get(format!("{}{path}", self.http(node))).bearer_auth(token).send();
        let response = response.await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// The value of a node's metric without labels.
    pub async fn metric(&self, node: usize, name: &str) -> u64 {
        let answer = reqwest::get(format!("{}/metrics", self.http(node))).await.expect("an answer");
        let text = answer.text().await.expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}:\n{text}")).parse().expect("a number")
    }

    pub async fn becomes_ready(&self, node: usize) {
        eventually("the node is ready", PATIENCE, async || self.is_ready(node).await.then_some(())).await;
    }

    pub async fn becomes_unready(&self, node: usize) {
        eventually("the node is not ready", PATIENCE, async || {
            let response = reqwest::get(format!("{}/readyz", self.http(node))).await.ok()?;
            (response.status() == 503).then_some(())
        })
        .await;
    }

    /// Waits until a node knows of so many nodes.
    pub async fn sees_nodes(&self, node: usize, count: usize) {
        let token = self.admin_token();
        eventually("the nodes know each other", PATIENCE, async || {
            let (_, answer) = self.get(node, "/v1/nodes", &token).await;
            let (nodes, silent) = (answer["nodes"].as_array()?.len(), answer["partial"].as_array()?.len());
            (nodes + silent == count).then_some(())
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM; the exit code once the process has ended.
    pub async fn terminate(&mut self, node: usize) -> Option<i32> {
        let mut process = self.nodes[node].process.take().expect("a running node");
        signal(process.id(), libc::SIGTERM);
        eventually("the node stops", PATIENCE, async || process.try_wait().expect("its status")).await.code()
    }

    /// Every event in a topic, in order; bytes that are no event are skipped.
    pub fn events_in(&self, topic: &str, partition: i32) -> Vec<mailpush::mail::Event> {
        self.records_in(topic, partition)
            .iter()
            .filter_map(|bytes| mailpush::mail::codec::from_msgpack(bytes, None).ok())
            .collect()
    }

    fn records_in(&self, topic: &str, partition: i32) -> Vec<Vec<u8>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka().address())
            .set("group.id", "test")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).expect("the topic's watermarks");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(low)).expect("an offset");
        consumer.assign(&list).expect("assign");
        let mut records = Vec::new();
        while (records.len() as i64) < high - low {
            let message = consumer.poll(PATIENCE).expect("a record in time").expect("a record");
            records.push(message.payload().unwrap_or_default().to_vec());
        }
        records
    }

    /// Writes bytes into a queue as nobody should.
    pub async fn poison(&self, topic: &str, bytes: &[u8]) {
        let producer: rdkafka::producer::FutureProducer =
            ClientConfig::new().set("bootstrap.servers", self.kafka().address()).create().expect("a producer");
        let record = rdkafka::producer::FutureRecord::to(topic).partition(0).key("poison").payload(bytes);
        producer.send(record, PATIENCE).await.expect("sent");
    }

    /// The queue ids that are registered for a mailbox.
    pub async fn registered(&self, mailbox: &str) -> Vec<String> {
        let client = zk::Client::connect(&self.zookeeper().address()).await.expect("connect to ZooKeeper");
        let key = Key::Mailbox(mailbox.parse().expect("a mailbox"));
        let name = key.znode_name();
        // Which bucket it is, the registry's own tests know; here the container is in one of them.
        let mut found = Vec::new();
        let mailboxes = format!("{}/mailboxes", self.chroot());
        for bucket in client.list_children(&mailboxes).await.unwrap_or_default() {
            let path = format!("{mailboxes}/{bucket}/{}", name.as_str());
            found.extend(client.list_children(&path).await.unwrap_or_default());
        }
        found.sort();
        found
    }

    /// Deletes a registration, as an administrator would.
    pub async fn forget_registration(&self, mailbox: &str, queue_id: &str) {
        let client = zk::Client::connect(&self.zookeeper().address()).await.expect("connect to ZooKeeper");
        let key = Key::Mailbox(mailbox.parse().expect("a mailbox"));
        let (bucket, name) = (key.stable_hash() % 256, key.znode_name());
        let path = format!("{}/mailboxes/{bucket:02x}/{}/{queue_id}", self.chroot(), name.as_str());
        client.delete(&path, None).await.expect("delete a registration");
    }

    /// Waits until exactly these are registered for a mailbox.
    pub async fn becomes_registered(&self, mailbox: &str, expected: &[&str]) {
        eventually("the registrations are as expected", PATIENCE, async || {
            (self.registered(mailbox).await == expected).then_some(())
        })
        .await;
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            self.kill(node);
            if std::thread::panicking() {
                eprintln!("--- log of {} ---\n{}", self.nodes[node].id, self.log(node));
            }
        }
    }
}

/// A delivery of one message.
pub fn message(mailbox: &str, uid: u32) -> Value {
    json!({ "type": "MessageNew", "mailbox": mailbox, "messages": [{ "uid": uid }] })
}

/// The UID of the one message in an event's push.
pub fn uid(push: &Value) -> u64 {
    push["event"]["messages"][0]["uid"].as_u64().expect("a message with a UID")
}
