//! One batch handed to librdkafka and waited for, in a transaction or without one. It exists apart because here it is decided
//! that a batch is at the far side, and all of it may block: it runs on a thread for that.

use super::ledger::Ledger;
use super::producer::{self, Producer};
use super::record::{Records, Sent};
use super::refusal::{self, Class, later};
use super::{Options, Shared};
use crate::sink::Refusal;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a wait looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(100);

/// Room for a record is looked for so often: there always is some once half of the records before it are gone.
const ROOM_LOOKS_MAX: u32 = 10_000;

/// What cannot be interrupted is asked for again and again, for so long each time.
const ONCE: Duration = Duration::from_secs(1);

/// A topic that is being created is asked for at least so often.
const CREATION_LOOKS: u128 = 20;

/// A connection that is refused for a reason that only an operator mends is given so many looks to be another one's.
const HOPELESS_LOOKS: u32 = 15;

/// Reports are due by the producer's own timeout; so much later it is no longer believed to give any.
const OVERDUE: Duration = Duration::from_secs(30);

/// A producer, and what it is for.
pub(super) struct Desk {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    producer: Producer,
    /// Whether transactions can begin.
    is_ready: bool,
}

/// Set when nobody waits for the outcome any more.
#[derive(Clone, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A batch that is not at the far side, or not all of it.
pub(super) struct Undelivered {
    pub(super) refusal: Refusal,
    /// So many records from the first on are there.
    pub(super) there: usize,
    /// Whether the producer still answers, so that a transaction can be taken back.
    is_answering: bool,
}

impl Undelivered {
    fn left(refusal: Refusal) -> Self {
        Self { refusal, there: 0, is_answering: false }
    }
}

impl Desk {
    /// Makes a producer.
    pub(super) fn open(shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let ledger = Arc::<Ledger>::default();
        let producer = producer::create(&shared.options, Arc::clone(&ledger))?;
        Ok(Self { shared: Arc::clone(shared), ledger, producer, is_ready: false })
    }

    fn options(&self) -> &Options {
        &self.shared.options
    }

    fn doing(&self) -> String {
        format!("write to the topic `{}`", self.options().topic)
    }

    /// Delivers the records from the one at `from` on, and waits for the report of each.
    pub(super) fn deliver(&mut self, records: &Records, from: usize, given_up: &GivenUp) -> Result<(), Undelivered> {
        if self.options().transactional_id.is_none() {
            return self.send_all(records, from, given_up);
        }
        self.prepare(given_up)?;
        self.producer.begin_transaction().map_err(|error| self.of_transaction(&error, "begin a transaction"))?;
        match self.send_all(records, 0, given_up) {
            Ok(()) => self.commit(given_up),
            Err(undelivered) if undelivered.is_answering => Err(self.abort(undelivered, given_up)),
            // Nothing of a transaction is there before all of it is.
            Err(undelivered) => Err(Undelivered { there: 0, ..undelivered }),
        }
    }

    /// Hands the records over and waits until each is reported.
    fn send_all(&self, records: &Records, from: usize, given_up: &GivenUp) -> Result<(), Undelivered> {
        self.ledger.begin();
        for at in from..records.len() {
            let Some(record) = records.get(at) else { break };
            if !self.send(&record, at, given_up)? {
                break;
            }
        }
        self.wait(0, given_up)?;
        let Some(loss) = self.ledger.loss() else { return Ok(()) };
        let fatal = self.producer.client().fatal_error();
        let is_answering = fatal.is_none() && Class::of(loss.code) != Class::Anew;
        let code = fatal.map_or(loss.code, |(code, _)| code);
        let refusal = refusal::of(code, loss.complaint.as_ref(), &self.doing());
        Err(Undelivered { refusal, there: loss.first, is_answering })
    }

    /// Whether librdkafka took the record; where not, that is in the ledger.
    fn send(&self, record: &Sent<'_>, at: usize, given_up: &GivenUp) -> Result<bool, Undelivered> {
        let mut code = RDKafkaErrorCode::QueueFull;
        for _ in 0..ROOM_LOOKS_MAX {
            let mut handed = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, at);
            handed = handed.payload(record.value).timestamp(record.at).headers(record.headers());
            if let Some(key) = record.key {
                handed = handed.key(key);
            }
            // Before, because the report may come before the call returns.
            self.ledger.sending();
            let Err((error, _)) = self.producer.send(handed) else { return Ok(true) };
            let open = self.ledger.take_back();
            code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if code != RDKafkaErrorCode::QueueFull || given_up.is_set() {
                break;
            }
            self.wait(open / 2, given_up)?;
            if open == 0 {
                // The last reports are in, and librdkafka is about to free what they were about.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.ledger.refuse(at, code);
        Ok(false)
    }

    /// Waits until no more than `open` records are without a report.
    fn wait(&self, open: usize, given_up: &GivenUp) -> Result<(), Undelivered> {
        let looks_max = (self.options().timeout + OVERDUE).as_millis() / LOOK.as_millis();
        for look in 0.. {
            let standing = self.ledger.wait(open, LOOK);
            if standing.open <= open {
                return Ok(());
            }
            if given_up.is_set() {
                break;
            }
            let complaint = self.ledger.complaint().filter(|it| refusal::mends(it).is_some());
            if let Some(complaint) = complaint.filter(|_| standing.accepted == 0 && look >= HOPELESS_LOOKS) {
                return Err(Undelivered::left(refusal::of_complaint(&complaint, &self.doing())));
            }
            if u128::from(look) > looks_max {
                return Err(Undelivered::left(later(format!("cannot {}: librdkafka is silent", self.doing()))));
            }
        }
        Err(Undelivered::left(later("the attempt was given up".to_owned())))
    }

    /// Asks the brokers whether a batch would be taken, without handing one over.
    pub(super) fn look(&mut self, given_up: &GivenUp) -> Result<(), Undelivered> {
        let asked = match self.shared.shape.topic.fixed() {
            Some(topic) => self.ask(given_up, |wait| {
                let metadata = self.producer.client().fetch_metadata(Some(topic), wait)?;
                let error = metadata.topics().iter().find_map(rdkafka::metadata::MetadataTopic::error);
                error.map_or(Ok(()), |error| Err(KafkaError::MetadataFetch(error.into())))
            }),
            None => self.ask(given_up, |wait| {
                let found = self.producer.client().fetch_cluster_id(wait);
                found.map(drop).ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))
            }),
        };
        asked.map_err(|code| {
            let doing = format!("ask for the topic `{}`", self.options().topic);
            Undelivered::left(refusal::of(code, self.ledger.complaint().as_ref(), &doing))
        })?;
        if self.options().transactional_id.is_some() { self.prepare(given_up) } else { Ok(()) }
    }

    /// Asks until there is an answer, the time is over, or only an operator can bring one.
    fn ask(
        &self,
        given_up: &GivenUp,
        question: impl Fn(Duration) -> Result<(), KafkaError>,
    ) -> Result<(), RDKafkaErrorCode> {
        for asked in 1_u128.. {
            let Err(error) = question(ONCE) else { break };
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let class = Class::of(code);
            let is_hopeless = self.ledger.complaint().is_some_and(|it| refusal::mends(&it).is_some());
            // Brokers that create a topic say for a moment that there is none.
            let may_come = code == RDKafkaErrorCode::UnknownTopicOrPartition && asked < CREATION_LOOKS;
            let is_over = asked >= self.rounds() || !(class == Class::Later || may_come);
            if given_up.is_set() || is_hopeless || is_over {
                return Err(code);
            }
            // Some refusals come at once.
            std::thread::sleep(LOOK);
        }
        self.ledger.content();
        Ok(())
    }

    /// How many steps of [`ONCE`] the timeout has.
    fn rounds(&self) -> u128 {
        (self.options().timeout.as_millis() / ONCE.as_millis()).max(1)
    }

    /// Takes the transactional id over: whoever had it can commit nothing any more.
    fn prepare(&mut self, given_up: &GivenUp) -> Result<(), Undelivered> {
        if !self.is_ready {
            let prepared = self.ask(given_up, |wait| self.producer.init_transactions(wait));
            prepared.map_err(|code| {
                let doing = "take the transactional id over";
                Undelivered::left(refusal::of(code, self.ledger.complaint().as_ref(), doing))
            })?;
            self.is_ready = true;
        }
        Ok(())
    }

    fn commit(&self, given_up: &GivenUp) -> Result<(), Undelivered> {
        match self.resume(given_up, |wait| self.producer.commit_transaction(wait)) {
            Ok(()) => Ok(()),
            Err(error) => {
                let undelivered = self.of_transaction(&error, "commit the transaction");
                Err(if must_abort(&error) { self.abort(undelivered, given_up) } else { undelivered })
            }
        }
    }

    /// Takes the batch back. Where that succeeds the producer can go on.
    fn abort(&self, undelivered: Undelivered, given_up: &GivenUp) -> Undelivered {
        let mut refusal = undelivered.refusal;
        if let Some(code) = self.cause() {
            refusal = refusal::of(code, None, &self.doing());
        }
        let aborted = self.resume(given_up, |wait| self.producer.abort_transaction(wait));
        Undelivered { refusal, there: 0, is_answering: aborted.is_ok() }
    }

    /// Why the transaction must be aborted, where its records were only taken out of the queue for that: asked by a commit,
    /// which such a transaction refuses.
    fn cause(&self) -> Option<RDKafkaErrorCode> {
        let is_purged = self
            .ledger
            .loss()
            .is_some_and(|loss| matches!(loss.code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight));
        let error = is_purged.then(|| self.producer.commit_transaction(LOOK).err()).flatten()?;
        error.rdkafka_error_code()
    }

    /// A step of a transaction, which goes on where it was when it is asked for again.
    fn resume(&self, given_up: &GivenUp, step: impl Fn(Duration) -> Result<(), KafkaError>) -> Result<(), KafkaError> {
        let mut left = self.rounds();
        loop {
            let Err(error) = step(ONCE) else { return Ok(()) };
            left -= 1;
            if given_up.is_set() || left == 0 || !may_resume(&error) {
                return Err(error);
            }
        }
    }

    fn of_transaction(&self, error: &KafkaError, doing: &str) -> Undelivered {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        Undelivered::left(refusal::of(code, self.ledger.complaint().as_ref(), doing))
    }
}

fn may_resume(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

fn must_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}
