//! Kafka clusters for tests: librdkafka's mock cluster in this process, and the broker that `SPARKSPOOL_TEST_KAFKA_BROKERS` names
//! (`tests/servers/kafka.sh`), both read by librdkafka's own consumer. It exists so that tests say what a topic must hold.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::metadata::MetadataPartition;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sparkspool::sink::encode::Format;
use sparkspool::sink::kafka::{Compression, Key, Options, Trust};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A cluster of one broker in this process, with a topic `t` of one partition.
pub(crate) struct Mock(pub(crate) MockCluster<'static, DefaultProducerContext>);

impl Mock {
    pub(crate) fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        Self(cluster)
    }

    pub(crate) fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    pub(crate) fn options(&self) -> Options {
        options_at(&self.brokers(), "t")
    }

    /// The values in `t`, in order.
    pub(crate) fn values(&self) -> Vec<String> {
        read(&self.brokers(), "t", true).into_iter().map(|record| record.value).collect()
    }
}

/// Raw events into this topic, in clear text.
pub(crate) fn options_at(brokers: &str, topic: &str) -> Options {
    // Faster than usual where it is the passing of time that is waited for.
    let properties = [("reconnect.backoff.max.ms", "200"), ("topic.metadata.propagation.max.ms", "200")];
    Options {
        sink: "kafka".to_owned(),
        brokers: brokers.split(',').map(str::to_owned).collect(),
        topic: topic.to_owned(),
        key: Key::Event,
        format: Format::Raw,
        compression: Compression::Zstd,
        timeout: Duration::from_secs(30),
        transactional_id: None,
        trust: Trust::Disabled,
        certificate: None,
        login: None,
        properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
    }
}

/// The brokers of the real cluster; `None`, said aloud, where there is none.
pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("SPARKSPOOL_TEST_KAFKA_BROKERS").ok();
    if brokers.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("skipped: {test}, because SPARKSPOOL_TEST_KAFKA_BROKERS names no broker");
    }
    brokers
}

/// A name that no other test has.
pub(crate) fn new_name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) at: Option<i64>,
    pub(crate) headers: Vec<(String, String)>,
}

/// All records of a topic, partition by partition; those of transactions that are open or were aborted, too, where they are
/// not to be committed.
pub(crate) fn read(brokers: &str, topic: &str, uncommitted: bool) -> Vec<Got> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", new_name("reader")).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("fetch.message.max.bytes", "100000000");
    config.set("isolation.level", if uncommitted { "read_uncommitted" } else { "read_committed" });
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30)).unwrap();
    let mut left: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(MetadataPartition::id).collect();
    let mut partitions = TopicPartitionList::new();
    for partition in &left {
        partitions.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut got = Vec::new();
    while !left.is_empty() {
        assert!(Instant::now() < deadline, "{} records of {topic}, and no end of {left:?}", got.len());
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => got.push(Got {
                key: message.key().map(text),
                value: text(message.payload().unwrap_or_default()),
                at: message.timestamp().to_millis(),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                        (header.key.to_owned(), text(header.value.unwrap_or_default()))
                    };
                    headers.iter().map(header).collect()
                }),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                left.remove(&partition);
            }
            // It connects again by itself.
            Some(Err(_)) | None => {}
        }
    }
    got
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
