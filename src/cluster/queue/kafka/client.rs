//! How every librdkafka client of ours is set up, and what it logs.

use std::thread;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use tokio::sync::Notify;

use super::denials::Denials;
use super::errors::refused_setting;
use crate::cluster::queue::QueueError;
use crate::config::{QueueSettings, join};

/// How long one question to the cluster may take.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of one Kafka cluster, checked.
pub(super) struct Cluster {
    pub(super) settings: QueueSettings,
    common: ClientConfig,
    /// What the cluster forbids us.
    pub(super) denials: Denials,
}

impl Cluster {
    pub(super) fn new(settings: &QueueSettings) -> Result<Self, QueueError> {
        let cluster = Self { settings: settings.clone(), common: common(settings)?, denials: Denials::default() };
        for config in [cluster.producer_config(), cluster.consumer_config()] {
            config.create_native_config().map_err(|error| refused_setting(&error))?;
        }
        Ok(cluster)
    }

    /// Acknowledged by all replicas in sync, no duplicates by retries, order kept.
    pub(super) fn producer_config(&self) -> ClientConfig {
        let settings = &self.settings;
        let timeout_ms = settings.send_timeout_ms.0.max(settings.linger_ms.0).max(1);
        let mut config = self.common.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", settings.linger_ms.0.to_string())
            .set("message.timeout.ms", timeout_ms.to_string())
            .set("message.max.bytes", self.message_limit().to_string())
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", settings.max_in_flight.clamp(1, 10_000_000).to_string())
            // Events are small: this only binds where `max_in_flight` large ones would fill the memory.
            .set("queue.buffering.max.kbytes", "262144");
        self.with_properties(config)
    }

    /// No group: the node's own queue, from a numeric offset. A lost offset is an error, which we tell as a gap.
    pub(super) fn consumer_config(&self) -> ClientConfig {
        let mut config = self.common.clone();
        config
            // librdkafka wants a name even where no group is joined; the prefix, so that an ACL can allow it.
            .set("group.id", self.settings.prefix.as_str())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "false")
            // A broker answers at once when there is something; this is only how often an idle one is asked.
            .set("fetch.wait.max.ms", "500")
            .set("fetch.min.bytes", "1")
            .set("fetch.message.max.bytes", self.message_limit().to_string())
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "16384");
        self.with_properties(config)
    }

    /// For the operations on topics.
    pub(super) fn admin_config(&self) -> ClientConfig {
        self.with_properties(self.common.clone())
    }

    /// The largest message, with room for its key and headers.
    pub(super) fn message_limit(&self) -> usize {
        (self.settings.max_event_bytes + 64 * 1024).clamp(1_000_000, 1_000_000_000)
    }

    /// The operator's own properties have the last word.
    fn with_properties(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.settings.properties {
            config.set(name, value);
        }
        config
    }
}

fn common(settings: &QueueSettings) -> Result<ClientConfig, QueueError> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    config
        .set("bootstrap.servers", join(&settings.brokers, ","))
        .set("client.id", "mailpush")
        .set("allow.auto.create.topics", "false")
        // Otherwise 30 s pass before a topic that was never there counts as missing.
        .set("topic.metadata.propagation.max.ms", "500")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // A broker that hangs (or a firewall that forgot us) is noticed after this, not after a minute.
        .set("socket.timeout.ms", "10000")
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        // Brokers close idle connections as a matter of course.
        .set("log.connection.close", "false");

    let tls = &settings.tls;
    let protocol = match (tls.enabled, settings.sasl_mechanism.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if tls.enabled {
        // Our OpenSSL is vendored and does not know where this system keeps its authorities: look around.
        let authorities = tls.ca_file.as_ref().map_or("probe".into(), |file| file.to_string_lossy());
        config.set("ssl.ca.location", authorities);
        for (name, file) in [("ssl.certificate.location", &tls.certificate_file), ("ssl.key.location", &tls.key_file)] {
            if let Some(file) = file {
                config.set(name, file.to_string_lossy());
            }
        }
    }
    if let Some(mechanism) = settings.sasl_mechanism {
        config
            .set("sasl.mechanism", mechanism.name())
            .set("sasl.username", &settings.sasl_user)
            .set("sasl.password", settings.sasl_password.expose());
    }
    Ok(config)
}

/// librdkafka's own words, to our log. They are few: it says what changes, not what goes on.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(target: "librdkafka", "{facility} {message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", "{facility} {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", "{facility} {message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility} {message}"),
    }
}

/// The context of clients that only log.
#[derive(Debug, Clone, Default)]
pub(super) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Logged {}

/// The context of a reader: it also hears that the topic was deleted and made anew.
///
/// librdkafka notices that a topic's id has changed and goes on reading at the old offset, which in the new topic
/// is another record (its own FIXME says so). It tells nobody but the log, at debug level: that is listened to.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) made_anew: Notify,
}

impl Watched {
    /// Of the debug contexts, the one that speaks of topics; it is silent while nothing changes.
    pub(super) const DEBUG: &'static str = "topic";

    fn tells_new_topic(message: &str) -> bool {
        // The first id that is learned takes the place of all zeroes.
        message.contains(" changed id from ") && !message.contains(" changed id from AAAAAAAAAAAAAAAAAAAAAA to ")
    }
}

impl ClientContext for Watched {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if Self::tells_new_topic(message) {
            self.made_anew.notify_one();
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Watched {}

/// Runs what waits for the network on a thread that may wait.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, QueueError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, QueueError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(QueueError::Unreachable(format!("the question was broken off: {error}"))),
    }
}

/// Drops a client, which joins threads and says goodbye to brokers, where nobody waits for it.
pub(super) fn drop_aside<T: Send + 'static>(client: T) {
    // Where no thread is to be had, the closure and the client in it are dropped here.
    let _ = thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(client));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SaslMechanism, Secret, TlsSettings};

    fn refusal(settings: &QueueSettings) -> String {
        match Cluster::new(settings) {
            Err(QueueError::Refused(reason)) => reason,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("was taken"),
        }
    }

    #[test]
    fn the_defaults_are_taken_by_librdkafka() {
        assert!(Cluster::new(&QueueSettings::default()).is_ok());
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_named_without_its_value() {
        let mut settings = QueueSettings::default();
        settings.properties.0.insert("sasl.pasword".to_owned(), "hunter2".to_owned());
        assert_eq!(refusal(&settings), "librdkafka has no property \"sasl.pasword\"");
    }

    #[test]
    fn a_value_that_librdkafka_does_not_take_is_not_repeated() {
        let mut settings = QueueSettings::default();
        settings.properties.0.insert("socket.timeout.ms".to_owned(), "hunter2".to_owned());
        assert_eq!(refusal(&settings), "librdkafka does not take this value of \"socket.timeout.ms\"");
    }

    #[test]
    fn the_operators_properties_have_the_last_word() {
        let mut settings = QueueSettings::default();
        settings.properties.0.insert("fetch.wait.max.ms".to_owned(), "7".to_owned());
        let cluster = Cluster::new(&settings).unwrap();
        assert_eq!(cluster.consumer_config().get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn tls_and_sasl_choose_the_protocol() {
        let tls = TlsSettings { enabled: true, ca_file: Some("/ca.pem".into()), ..TlsSettings::default() };
        let secured = QueueSettings {
            sasl_mechanism: Some(SaslMechanism::ScramSha512),
            sasl_user: "mailpush".to_owned(),
            sasl_password: Secret::new("hunter2"),
            tls,
            ..QueueSettings::default()
        };
        let config = Cluster::new(&secured).unwrap().admin_config();
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("ssl.ca.location"), Some("/ca.pem"));
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn only_a_changed_topic_id_means_a_new_topic() {
        let first = "[thrd:main]: Topic mp.all changed id from AAAAAAAAAAAAAAAAAAAAAA to 0sN8n3mBQ2yQ3lTn5zXo5A";
        let anew = "[thrd:main]: Topic mp.all changed id from 0sN8n3mBQ2yQ3lTn5zXo5A to kq0oF5eJSm2bUdWcPwQx3w";
        assert!(!Watched::tells_new_topic(first));
        assert!(Watched::tells_new_topic(anew));
        assert!(!Watched::tells_new_topic("[thrd:main]: Topic mp.all [0] Leader 1 Epoch 0"));
    }
}
