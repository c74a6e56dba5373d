//! A real Apache Kafka (KRaft, one node) on loopback, which tests stop, kill, freeze and start again.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mailpush::config::{Millis, QueueSettings, SaslMechanism, Secret, TlsSettings};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use super::fixtures::{free_port, server_jars};
use super::process::{end_at_exit, signal, spawn_tied};

/// How long a Kafka may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What clients have to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Nothing.
    Plaintext,
    /// A password over plain text; `PLAIN`, `SCRAM-SHA-256` and `SCRAM-SHA-512` are offered.
    Sasl,
    /// A password over TLS, with a certificate of an authority of our own.
    SaslTls,
    /// A password over plain text, and rights that [`TestKafka::allow`] and [`TestKafka::deny`] change; without them nobody
    /// but the tests' own user may do anything.
    Rights,
}

pub const USER: &str = "mailpush";
pub const PASSWORD: &str = "correct-horse";
/// The user that may do everything where there are rights.
const ADMIN: &str = "admin";

/// A running Kafka, with its data in a folder of its own. Ends with the test.
pub struct TestKafka {
    folder: TempDir,
    port: u16,
    security: Security,
    server: Option<Child>,
}

impl TestKafka {
    /// The Kafka that all tests share; do not harm it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestKafka> = OnceLock::new();
        SHARED.get_or_init(|| {
            let kafka = Self::start();
            end_at_exit(kafka.pid(), kafka.folder.path());
            kafka
        })
    }

    pub fn start() -> Self {
        Self::start_with(Security::Plaintext)
    }

    /// Starts one and waits until it answers. Somebody may take a free port before Kafka does: then again.
    pub fn start_with(security: Security) -> Self {
        for _ in 0..3 {
            let folder = TempDir::with_prefix("kafka-").expect("make a folder for Kafka");
            let mut kafka = Self { folder, port: free_port(), security, server: None };
            kafka.write_files();
            kafka.format();
            kafka.spawn();
            if kafka.becomes_ready() {
                return kafka;
            }
        }
        panic!("Kafka did not start");
    }

    /// `host:port`, for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Settings for this Kafka, with short timeouts and topics that begin with `prefix`.
    pub fn settings(&self, prefix: &str) -> QueueSettings {
        let mut settings = QueueSettings {
            brokers: vec![self.address().parse().expect("an address")],
            prefix: prefix.parse().expect("a prefix"),
            shards: 4,
            send_timeout_ms: Millis(5_000),
            ..QueueSettings::default()
        };
        if self.security != Security::Plaintext {
            settings.sasl_mechanism = Some(SaslMechanism::Plain);
            settings.sasl_user = USER.to_owned();
            settings.sasl_password = Secret::new(PASSWORD);
        }
        if self.security == Security::SaslTls {
            let ca_file = Some(self.folder.path().join("ca.pem"));
            settings.tls = TlsSettings { enabled: true, ca_file, ..TlsSettings::default() };
        }
        settings
    }

    /// Ends it in an orderly way; its data stays.
    pub fn stop(&mut self) {
        signal(self.pid(), libc::SIGTERM);
        self.wait_for_end();
    }

    /// `kill -9`; its data stays.
    pub fn kill(&mut self) {
        signal(self.pid(), libc::SIGKILL);
        self.wait_for_end();
    }

    /// Starts it again after [`TestKafka::stop`] or [`TestKafka::kill`], on the same port, with the same data.
    pub fn restart(&mut self) {
        self.spawn();
        assert!(self.becomes_ready(), "Kafka did not start again:\n{}", self.log());
    }

    /// Stops its time: connections stay open, nothing answers.
    pub fn freeze(&self) {
        signal(self.pid(), libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    /// Removes all records of a partition before `offset`, as the retention would.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        let deleted = self.admin().delete_records(&before, &AdminOptions::new()).await.expect("delete records");
        for element in deleted.elements() {
            element.error().expect("delete records");
        }
    }

    /// Gives [`USER`] a right (`Read`, `Write`, `All`, ...) on all topics that begin so.
    pub fn allow(&self, right: &str, topics: &str) {
        self.change_rights(&["--add", "--allow-principal", &format!("User:{USER}")], right, topics);
    }

    /// Denies it to them, whatever is allowed.
    pub fn deny(&self, right: &str, topics: &str) {
        self.change_rights(&["--add", "--deny-principal", &format!("User:{USER}")], right, topics);
    }

    /// Takes the denial back.
    pub fn deny_no_more(&self, right: &str, topics: &str) {
        self.change_rights(&["--remove", "--force", "--deny-principal", &format!("User:{USER}")], right, topics);
    }

    fn change_rights(&self, change: &[&str], right: &str, topics: &str) {
        let login = self.folder.path().join("admin.properties");
        let properties = format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required username=\"{ADMIN}\" password=\"{PASSWORD}\";\n"
        );
        fs::write(&login, properties).expect("write admin.properties");
        let mut command = self.java();
        command.args(["kafka.admin.AclCommand", "--bootstrap-server", &self.address(), "--command-config"]).arg(login);
        command.args(change).args(["--operation", right, "--topic", topics, "--resource-pattern-type", "prefixed"]);
        let output = command.output().expect("run AclCommand");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What Kafka has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("kafka.log")).unwrap_or_default()
    }

    /// An admin client for what the tested code does not do.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client_config().create().expect("make an admin client")
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address()).set("group.id", "test").set("reconnect.backoff.max.ms", "200");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
        if self.security != Security::Plaintext {
            let user = if self.security == Security::Rights { ADMIN } else { USER };
            config.set("sasl.mechanism", "PLAIN").set("sasl.username", user).set("sasl.password", PASSWORD);
        }
        match self.security {
            Security::Plaintext => {}
            Security::Sasl | Security::Rights => {
                config.set("security.protocol", "sasl_plaintext");
            }
            Security::SaslTls => {
                config.set("security.protocol", "sasl_ssl");
                config.set("ssl.ca.location", self.folder.path().join("ca.pem").to_string_lossy());
            }
        }
        config
    }

    fn write_files(&self) {
        let folder = self.folder.path();
        let data = folder.join("data");
        let (port, controller) = (self.port, free_port());
        let protocol = match self.security {
            Security::Plaintext => "PLAINTEXT",
            Security::Sasl | Security::Rights => "SASL_PLAINTEXT",
            Security::SaslTls => "SASL_SSL",
        };
        let mut properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=CLIENTS://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=CLIENTS\n\
             listener.security.protocol.map=CLIENTS:{protocol},CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             num.partitions=1\n\
             auto.create.topics.enable=false\n\
             log.retention.check.interval.ms=500\n\
             log.initial.task.delay.ms=500\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            data.display()
        );
        if self.security == Security::Rights {
            // The controller's listener knows no names: all who come there are the broker itself.
            properties += &format!(
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:{ADMIN};User:ANONYMOUS\n"
            );
        }
        if self.security != Security::Plaintext {
            let broker = if self.security == Security::Rights { ADMIN } else { USER };
            properties += &format!(
                "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
                 sasl.mechanism.inter.broker.protocol=PLAIN\n\
                 listener.name.clients.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
                 required username=\"{broker}\" password=\"{PASSWORD}\" user_{USER}=\"{PASSWORD}\" \
                 user_{ADMIN}=\"{PASSWORD}\";\n\
                 listener.name.clients.scram-sha-256.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
                 listener.name.clients.scram-sha-512.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            );
        }
        if self.security == Security::SaslTls {
            make_certificates(folder);
            properties += &format!(
                "ssl.keystore.type=PEM\n\
                 ssl.keystore.location={0}/server.pem\n\
                 ssl.truststore.type=PEM\n\
                 ssl.truststore.location={0}/ca.pem\n",
                folder.display()
            );
        }
        fs::write(folder.join("server.properties"), properties).expect("write server.properties");
        let log4j = "log4j.rootLogger=WARN,out\n\
             log4j.appender.out=org.apache.log4j.ConsoleAppender\n\
             log4j.appender.out.layout=org.apache.log4j.PatternLayout\n\
             log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %-5p [%t:%c{1}] %m%n\n";
        fs::write(folder.join("log4j.properties"), log4j).expect("write log4j.properties");
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
            .arg(format!("-Dlog4j.configuration=file:{}", self.folder.path().join("log4j.properties").display()))
            .arg("-cp")
            .arg(server_jars().join("*"));
        java
    }

    fn format(&self) {
        let mut format = self.java();
        format.args(["kafka.tools.StorageTool", "format", "-t", "bWFpbHB1c2gtdGVzdHM6MQ", "-c"]);
        format.arg(self.folder.path().join("server.properties"));
        if self.security != Security::Plaintext {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format.arg("--add-scram").arg(format!("{mechanism}=[name={USER},password={PASSWORD}]"));
            }
        }
        let output = format.output().expect("the tests need a JDK 17 to run Kafka");
        assert!(output.status.success(), "format Kafka's storage: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("kafka.log")).expect("a log");
        let mut java = self.java();
        java.arg("kafka.Kafka").arg(self.folder.path().join("server.properties"));
        java.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        self.server = Some(spawn_tied(java).expect("the tests need a JDK 17 to run Kafka"));
    }

    /// Whether it answers before the time is up; at once `false` where it has ended.
    fn becomes_ready(&mut self) -> bool {
        let client: BaseConsumer = self.client_config().create().expect("make a client");
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(server) = &mut self.server
                && server.try_wait().expect("ask for the server").is_some()
            {
                return false;
            }
            if client.fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|found| !found.brokers().is_empty()) {
                return true;
            }
            client.poll(Duration::from_millis(50));
        }
        false
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("Kafka is running").id()
    }

    fn wait_for_end(&mut self) {
        self.server.take().expect("Kafka is running").wait().expect("wait for Kafka to end");
    }
}

impl Drop for TestKafka {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// An authority in `ca.pem`, and the key and certificate of 127.0.0.1 in `server.pem`.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output();
        let output = output.expect("the TLS tests need openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {new_key} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"));
    openssl(&format!(
        "req -x509 {new_key} -days 2 -subj /CN=localhost -CA ca.pem -CAkey ca.key \
         -addext subjectAltName=IP:127.0.0.1,DNS:localhost -addext basicConstraints=critical,CA:FALSE \
         -keyout server.key -out server.crt"
    ));
    let read = |name| fs::read_to_string(folder.join(name)).expect("read what openssl has made");
    fs::write(folder.join("server.pem"), read("server.key") + &read("server.crt")).expect("write server.pem");
}
