//! The configuration as a user meets it: the shipped examples are right, and what is wrong is told all at once.
//! The reports are snapshots, because their text is what a person reads at three in the morning.

use sparkspool::config::{self, Config, ConfigError, KeySource, Schedule, SinkKind, Start};
use sparkspool::core::time::{DAY, HOUR, MINUTE, SECOND, UtcMillis};
use std::path::Path;

const EXAMPLE: &str = include_str!("../../config/example.toml");
const MINIMAL: &str = include_str!("../../config/minimal.toml");

fn nothing(_: &str) -> Option<String> {
    None
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    config::parse(text, "sparkspool.toml", &nothing)
}

#[track_caller]
fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

/// What a user sees for a file with this content.
#[track_caller]
fn report(text: &str) -> String {
    match parse(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.render(false),
    }
}

/// A right file around what is tried out.
fn with(extra: &str) -> String {
    format!("{MINIMAL}\n{extra}")
}

mod reports {
    use super::{report, with};

    macro_rules! reports {
        ($($name:ident: $text:expr;)*) => {
            $(#[test] fn $name() { insta::assert_snapshot!(report(&$text)); })*
        };
    }

    reports! {
        syntax_errors: "[streams.all\nsinks = [\"a\"]\n\n[sinks.a.stdout]\nformat = raw\n";
        a_key_twice: "data_dir = \"/a\"\ndata_dir = \"/b\"\n";
        unknown_keys: with("[api]\npage_sise = 100\nkey = \"secret4711\"\nsettle = \"90s\"\ncolour = \"blue\"\n\n[deamon]\n");
        wrong_types: with(
            "[api]\npage_size = \"500\"\nconnect_timeout = 10\nallow_http = \"true\"\ndialect = 7\n\
             [streams.b]\nsinks = \"archive\"\nfilter = [\"bounce\"]\n[streams.b2]\nsinks = [\"archive\", 3]\n"
        );
        wrong_choices: with("[api]\ndialect = \"event\"\n[sinks.b.file]\npath = \"b\"\nformat = \"sendgird\"\ncompress = \"zip\"\n");
        out_of_range: with(
            "[api]\npage_size = 20000\nconcurrency = 0\nidle_timeout = \"0s\"\nbody_max = \"1TiB\"\n\
             [streams.b]\nsinks = [\"archive\"]\nsettle = \"2d\"\nstart = \"30d\"\nlookback = \"11d\"\n"
        );
        durations_and_sizes: with(
            "[api]\nconnect_timeout = \"10\"\nidle_timeout = \"15 sec\"\nrequest_timeout = \"soon\"\nbody_max = \"64M\"\n\
             [spool]\nkeep = \"1.5d\"\n"
        );
        schedules: with(
            "[streams.b]\nsinks = [\"archive\"]\nschedule = \"61 * * * *\"\n\
             [streams.c]\nsinks = [\"archive\"]\nschedule = \"* * *\"\n\
             [streams.d]\nsinks = [\"archive\"]\nschedule = \"0 0 31 2 *\"\n\
             [streams.e]\nsinks = [\"archive\"]\nschedule = \"0 * * * *\"\nevery = \"5m\"\n\
             [streams.f]\nsinks = [\"archive\"]\nschedule = \"0 3 * * *\"\ntimezone = \"Europe/Belin\"\n\
             [streams.g]\nsinks = [\"archive\"]\nevery = \"5m\"\ntimezone = \"Europe/Berlin\"\n"
        );
        starts: with(
            "[streams.b]\nsinks = [\"archive\"]\nstart = \"yesterday\"\n\
             [streams.c]\nsinks = [\"archive\"]\nstart = \"2026-11-12T00:00\"\n\
             [streams.d]\nsinks = [\"archive\"]\nstart = 2026-11-12\n\
             [streams.e]\nsinks = [\"archive\"]\nstart = \"2026-02-30T00:00:00Z\"\n"
        );
        names: with(
            "[streams.b]\naccount = \"ue\"\nsinks = [\"achive\", \"kafka\", \"archive\", \"archive\"]\n\
             [streams.\"my stream\"]\nsinks = []\n[streams.c]\n[accounts.eu]\n[accounts.default]\n"
        );
        accounts_without_a_choice: with("[accounts.eu]\nurl = \"https://api.eu.sparkpost.com\"\n");
        http: with("[http]\nlisten = \"0.0.0.0:9464\"\nhosts = [\"https://a.example\", \"a.example:http\", \"fine.example:8443\"]\ntoken_env = \"A\"\ntoken_file = \"/a\"\n");
        http_to_everybody: with("[http]\nlisten = \"0.0.0.0:9464\"\n");
        http_without_an_address: with("[http]\nlisten = \"9464\"\n");
        http_without_a_port: with("[http]\nlisten = \"::1\"\n");
        http_socket: with("[http]\nlisten = \"./http.sock\"\n");
        kinds_of_sink: with(
            "[sinks.a.rabbitmq]\nuri = \"r1\"\n[sinks.b.fiel]\npath = \"b\"\n[sinks.c.file]\npath = \"c\"\n\
             [sinks.c.stdout]\n[sinks.d]\ntype = \"file\"\npath = \"d\"\n[sinks.e]\n[sinks.f.file]\n"
        );
        urls: with(
            "[api]\nurl = \"https://me:hunter2@api.sparkpost.com\"\n\
             [accounts.a]\nurl = \"api.sparkpost.com\"\n[accounts.b]\nurl = \"ftp://api.sparkpost.com\"\n\
             [accounts.c]\nurl = \"http://mail.example.com:8080\"\n[accounts.d]\nurl = \"https://api.sparkpost.com/api/v1\"\n"
        );
        keys: with(
            "[api]\nkey_env = \"0123456789abcdef0123456789abcdef01234567\"\n\
             [accounts.a]\nkey_env = \"A\"\nkey_file = \"/a\"\n[accounts.b]\nkey_file = \"~/key\"\n"
        );
        files: with(
            "[sinks.b.file]\npath = \"/var/lib/sparkspool/./events-{date}.ndjson\"\n\
             [sinks.c.file]\npath = \"c-{day}.ndjson\"\n[sinks.d.file]\npath = \"d-{date.ndjson\"\n\
             [sinks.e.file]\npath = \"e-{date}\"\nrotate = \"none\"\n[sinks.f.file]\npath = \"f\"\ncompress = \"gzip\"\n\
             [sinks.g.file]\npath = \"-\"\n[sinks.h.stdout]\nformat = \"raw\"\ninclude_raw = false\n[sinks.i.stdout]\n\
             [sinks.j.file]\npath = \"j\"\nformat = \"sendgrid\"\ninclude_raw = true\n"
        );
        databases: with(
            "[sinks.b.sqlite]\npath = \"events.db\"\n[sinks.c.sqlite]\npath = \"./events.db\"\n\
             [sinks.d.sqlite]\npath = \"sparkspool-data/./sparkspool.db\"\n[sinks.e.sqlite]\npath = \"e-{date}.db\"\n\
             [sinks.f.sqlite]\ninclude_raw = 1\n[sinks.g.file]\npath = \"events.db\"\n[sinks.h.sqlite]\npath = \"\"\n"
        );
        topics: with(
            "[sinks.b.kafka]\nbrokers = [\"k1\", \"k2:0\", \"k3:9092\", \"ssl://k4:9093\"]\ntopic = \"mail/{kind}\"\nrecord_key = \"ids\"\n\
             timeout = \"10m\"\nca_file = \"/ca.pem\"\ntls = \"disable\"\nclient_key_file = \"/k\"\nuser = \"u\"\ntransactional_id = \"x\"\n\
             [sinks.b.kafka.properties]\nacks = 1\n\"enable.idempotence\" = false\n\"bootstrap.servers\" = \"k\"\n\
             \"sasl.password\" = \"hunter2\"\n\"linger.ms\" = 1.5\n\
             [sinks.c.kafka]\nbrokers = [\"k1:9092\"]\ntopic = \"{stream\"\nsasl = \"plain\"\ntransactional_id = \"x\"\n\
             [sinks.d.kafka]\nbrokers = [\"k1:9092\"]\ntopic = \"d\"\nsasl = \"plain\"\nuser = \"u\"\npassword_env = \"P\"\ntls = \"disable\"\n\
             client_certificate_file = \"/c\"\nclient_key_file = \"/k\"\ntransactional_id = \"\"\n\
             [sinks.e.kafka]\nbrokers = []\n"
        );
        nats: with(
            "[sinks.b.nats]\n[sinks.c.nats]\nurl = \"nats://u:hunter2@h\"\nurl_env = \"NATS_URL\"\n\
             [sinks.d.nats]\nurl = \"http://h\"\nsubject = \"a.{typ}\"\njetstream = \"a.b\"\nduplicate_window = \"1h\"\n\
             [sinks.e.nats]\nurl = \"h\"\nsubject = \"a..b\"\nuser = \"u\"\n[sinks.f.nats]\nurl = \"nats://h\"\nsubject = \"a b\"\n\
             token_env = \"T\"\nnkey_env = \"N\"\n[sinks.g.nats]\nurl = \"nats://h\"\nsubject = \"$JS.x\"\npassword_env = \"P\"\n"
        );
        clickhouse: with(
            "[sinks.b.clickhouse]\n[sinks.c.clickhouse]\nurl = \"http://u:hunter2@h:8123\"\n\
             [sinks.d.clickhouse]\nurl = \"http://h:8123\"\npassword_env = \"P\"\n\
             [sinks.e.clickhouse]\nurl = \"clickhouse://h:9000\"\ntable = \"\"\ntimeout = \"1h\"\n\
             [sinks.f.clickhouse]\nurl = \"https://h/?database=x\"\nuser = \"ü\"\n"
        );
        webhooks: with(
            "[sinks.b.webhook]\nurl = \"ftp://h/x\"\nconcurrency = 4\n[sinks.c.webhook]\nurl = \"http://h/x\"\nbearer_env = \"B\"\n\
             single = true\nconcurrency = 65\n[sinks.d.webhook]\nurl = \"https://u:hunter2@h/x\"\nsecret_env = \"whsec_hunter2\"\n\
             [sinks.d.webhook.headers]\nAuthorization = \"hunter2\"\nHost = \"h\"\n\"a b\" = \"c\"\nx = \"ü\"\n\
             [sinks.e.webhook]\nurl = \"https://h/x\"\nsecret_env = \"A\"\nsecret_file = \"/a\"\nallow = [\"10.0.0.0/33\"]\n"
        );
        object_stores: with(
            "[sinks.b.object_store]\nurl = \"s4://mail\"\n[sinks.c.object_store]\nurl = \"s3://key:hunter2@mail/p\"\n\
             [sinks.d.object_store]\nurl = \"file://lake\"\nregion = \"x\"\n[sinks.e.object_store]\nurl = \"gs://mail\"\n\
             access_key_id = \"AK\"\nendpoint = \"http://10.0.0.1\"\n[sinks.f.object_store]\nurl = \"s3://mail/a/\"\n\
             secret_env = \"S\"\n[sinks.g.object_store]\nurl = \"s3://mail/./a\"\ncredentials_file = \"/g\"\nformat = \"csv\"\n\
             [sinks.h.object_store]\nurl = \"file:///\"\n[sinks.i.object_store]\nurl = \"s3://mail/a%20b\"\n[sinks.j.object_store]\n"
        );
        filters: with("[streams.b]\nsinks = [\"archive\"]\nfilter = { events = [], subaccounts = [1.5, \"\"], subjects = [\"\"] }\n");
        filter_names: with(
            "[streams.b]\nsinks = [\"archive\"]\n[streams.b.filter]\ncampaing_ids = [\"a\"]\nrcpt_to = [\"a@example.com\"]\n\
             tags = [\"\"]\nfrom = [\"2026-11-12T00:00\"]\ncampaigns = [\"a\"]\ncampaign_ids = [\"b\"]\n"
        );
        filters_of_the_legacy_api: with(
            "[api]\ndialect = \"message-events\"\n[streams.b]\nsinks = [\"archive\"]\n\
             filter = { subjects = [\"a\"], reason = [\"a\", \"b\"], colour = [\"red\"] }\n"
        );
        nothing_to_do: "";
        no_streams: "[streams]\n[sinks.a.stdout]\n";
        misplaced: "[streams]\nsinks = [\"a\"]\n[sinks]\nkind = \"file\"\n[log]\ndata_dir = \"/x\"\nlevel = \"info\"\n";
    }
}

#[test]
fn the_minimal_file_means_what_its_comment_says() {
    let config = good(MINIMAL);
    assert_eq!(config.data_dir, Path::new("./sparkspool-data"));
    assert_eq!(config.file.as_deref(), Some(Path::new("sparkspool.toml")));
    assert_eq!(config.drain_timeout, 20 * SECOND);
    assert_eq!((config.spool.keep, config.spool.max_bytes), (30 * DAY, None));
    let account = &config.accounts["default"];
    assert_eq!(config.accounts.len(), 1);
    assert_eq!(account.url.as_str(), "https://api.sparkpost.com/");
    assert_eq!(account.key, KeySource::Env("SPARKPOST_API_KEY".to_owned()));
    assert_eq!((account.page_size, account.concurrency, account.requests_per_minute), (10_000, 2, 60));
    let timeouts = (account.connect_timeout, account.idle_timeout, account.request_timeout);
    assert_eq!(timeouts, (10 * SECOND, 15 * SECOND, 120 * SECOND));
    assert_eq!((account.body_max, &account.ca_file), (64 << 20, &None));
    let [stream] = config.streams.as_slice() else { panic!("{:?}", config.streams) };
    assert_eq!((stream.name.as_str(), stream.account.as_str()), ("all", "default"));
    assert_eq!((&stream.schedule, stream.start), (&Schedule::Every(MINUTE), Start::Ago(10 * DAY)));
    assert_eq!((stream.settle, stream.lookback), (90 * SECOND, HOUR));
    assert_eq!((stream.sinks.as_slice(), stream.filter.len()), (["archive".to_owned()].as_slice(), 0));
    let [sink] = config.sinks.as_slice() else { panic!("{:?}", config.sinks) };
    let SinkKind::File(file) = &sink.kind else { panic!("{sink:?}") };
    assert_eq!(sink.name, "archive");
    assert_eq!(file.path, "/var/lib/sparkspool/events-{date}.ndjson");
    assert_eq!((file.format, file.include_raw), (config::Format::Normalized, true));
    assert_eq!((file.rotate, file.rotate_size, file.compress), (config::Rotate::Daily, None, config::Compress::None));
}

#[test]
fn without_a_file_there_is_one_stream_of_everything_on_stdout() {
    let typed = good("[streams.all]\nsinks = [\"stdout\"]\n[sinks.stdout.stdout]\n");
    assert_eq!(Config::without_file(&nothing), Config { file: None, ..typed });
}

#[test]
fn the_example_is_right_and_shows_the_true_defaults() {
    let as_shipped = good(EXAMPLE);
    let activated = EXAMPLE.lines().map(|line| activate(line).unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let shown = good(&activated);
    let mut account = shown.accounts["default"].clone();
    assert!(account.ca_file.take().is_some());
    assert_eq!(account, as_shipped.accounts["default"]);
    assert_eq!(shown.accounts["eu"], as_shipped.accounts["eu"]);
    assert_eq!(shown.streams[0], as_shipped.streams[0]);
    assert_eq!(shown.spool.keep, as_shipped.spool.keep);
    assert_eq!(shown.drain_timeout, as_shipped.drain_timeout);
    let file = |config: &Config| match &config.sinks[0].kind {
        SinkKind::File(file) => file.clone(),
        other => panic!("the first sink is a file, not {other:?}"),
    };
    assert_eq!(config::FileOptions { rotate_size: None, ..file(&shown) }, file(&as_shipped));
    let named = |config: &Config, name: &str| config.sinks.iter().find(|sink| sink.name == name).unwrap().clone();
    assert_eq!(named(&shown, "console"), named(&as_shipped, "console"));
    let nats = |config: &Config| match named(config, "bus").kind {
        SinkKind::Nats(bus) => *bus,
        other => panic!("the bus is NATS, not {other:?}"),
    };
    let as_by_default = config::NatsOptions { login: config::NatsLogin::Url, tls: None, ca_file: None, ..nats(&shown) };
    assert_eq!(as_by_default, nats(&as_shipped));
    let clickhouse = |config: &Config| match named(config, "olap").kind {
        SinkKind::Clickhouse(olap) => *olap,
        other => panic!("the OLAP is ClickHouse, not {other:?}"),
    };
    let as_by_default = config::ClickhouseOptions { user: None, password: None, ca_file: None, ..clickhouse(&shown) };
    assert_eq!(as_by_default, clickhouse(&as_shipped));
}

/// `key = …` of a line `#key = …`.
fn activate(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?;
    let key = rest.split(" = ").next().filter(|key| key.len() < rest.len())?;
    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then_some(rest)
}

#[test]
fn every_recipe_is_a_whole_configuration() {
    let page = include_str!("../../docs/recipes.md");
    let recipes: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(text, _)| text).collect();
    assert!(recipes.len() >= 6, "{} recipes", recipes.len());
    recipes.into_iter().for_each(|recipe| drop(good(recipe)));
}

#[test]
fn every_key_of_the_schema_is_in_the_example() {
    fn keys(node: &serde_json::Value, found: &mut Vec<String>) {
        found.extend(node["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        node["$defs"].as_object().into_iter().flatten().for_each(|(_, def)| keys(def, found));
    }
    let mut found = Vec::new();
    keys(&config::schema(), &mut found);
    assert!(found.len() > 35);
    for key in found {
        // What excludes another key that is shown stands in words only.
        let spelt = format!("{key} = ");
        let assigned =
            |line: &str| activate(line).unwrap_or(line).starts_with(&spelt) || line.starts_with(&format!("# {spelt}"));
        let header =
            |line: &str| line.starts_with('[') && line.trim_matches(['[', ']']).split('.').any(|part| part == key);
        assert!(EXAMPLE.lines().any(|line| assigned(line) || header(line)), "`{key}` is not in config/example.toml");
    }
}

#[test]
fn the_surroundings_fill_in_what_is_not_typed() {
    let env = |name: &str| (name == "STATE_DIRECTORY").then(|| ":/var/lib/a:/var/lib/b".to_owned());
    assert_eq!(config::parse(MINIMAL, "f", &env).unwrap().data_dir, Path::new("/var/lib/a"));
    assert_eq!(Config::without_file(&env).data_dir, Path::new("/var/lib/a"));
    let typed = format!("data_dir = \"/typed\"\n{MINIMAL}");
    assert_eq!(config::parse(&typed, "f", &env).unwrap().data_dir, Path::new("/typed"));

    let credentials = tempfile::tempdir().unwrap();
    for name in ["sparkpost-api-key", "sparkpost-api-key-eu"] {
        std::fs::write(credentials.path().join(name), "k").unwrap();
    }
    let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| credentials.path().display().to_string());
    let text = with("[api]\n[accounts.eu]\n[accounts.us]\n[accounts.env]\nkey_env = \"K\"\n");
    let accounts = config::parse(&text, "f", &env).unwrap().accounts;
    let file = |name: &str| KeySource::File(credentials.path().join(name));
    assert_eq!(accounts["default"].key, file("sparkpost-api-key"));
    assert_eq!(accounts["eu"].key, file("sparkpost-api-key-eu"));
    assert_eq!(accounts["us"].key, KeySource::Missing);
    assert_eq!(accounts["env"].key, KeySource::Env("K".to_owned()));

    // A unit's credentials lie elsewhere for every unit, and a file of one is named without that.
    let nothing = |_: &str| None;
    let text = with("[api]\n[accounts.a]\nkey_file = \"$CREDENTIALS_DIRECTORY/a\"\n");
    assert_eq!(config::parse(&text, "f", &env).unwrap().accounts["a"].key, file("a"));
    let nowhere = config::parse(&text, "f", &nothing).unwrap().accounts["a"].key.clone();
    assert_eq!(nowhere, KeySource::File("$CREDENTIALS_DIRECTORY/a".into()));
    assert!(nowhere.read(&nothing).unwrap_err().hint().contains("LoadCredential="));
    for typed in ["$CREDENTIALS_DIRECTORY", "$CREDENTIALS_DIRECTORY/", "$CREDENTIALS_DIRECTORY/../a", "$HOME/a"] {
        let text = with(&format!("[api]\n[accounts.a]\nkey_file = \"{typed}\"\n"));
        assert!(config::parse(&text, "f", &env).is_err(), "{typed}");
    }
}

#[test]
fn every_form_of_a_value_is_read() {
    let config = good(&with(
        "[api]\nurl = \"http://localhost:8080\"\n\
         [accounts.a]\nurl = \"http://[::1]/\"\n[accounts.b]\nurl = \"http://mail.example.com\"\nallow_http = true\n\
         [accounts.c]\nurl = \"https://Demo.SparkPostElite.com\"\ndialect = \"message-events\"\n\
         [streams.b]\nsinks = [\"archive\"]\nstart = 2026-11-12T01:00:00+01:00\nevery = \"1h 30m\"\n\
         [streams.c]\nsinks = [\"archive\"]\nstart = \"now\"\nschedule = \"30 2 * * *\"\ntimezone = \"europe/berlin\"\n\
         [streams.c.filter]\nsubaccounts = [1, \"2\", 0x10]\n",
    ));
    assert_eq!(config.accounts["c"].url.as_str(), "https://demo.sparkpostelite.com/");
    assert_eq!(config.accounts["c"].dialect, config::DialectChoice::MessageEvents);
    let [_, b, c] = config.streams.as_slice() else { panic!("{:?}", config.streams) };
    assert_eq!(b.start, Start::At(UtcMillis::parse("2026-11-12T00:00:00Z").unwrap()));
    assert_eq!(b.schedule, Schedule::Every(90 * MINUTE));
    assert_eq!(c.start, Start::Now);
    assert_eq!(c.filter["subaccounts"], ["1", "2", "16"]);
    let next = c.schedule.next_after(UtcMillis::parse("2026-01-01T00:00:00Z").unwrap());
    assert_eq!(next, UtcMillis::parse("2026-01-01T01:30:00Z"));
}

#[test]
fn problems_carry_their_place_and_follow_the_file() {
    let error = parse("[streams.all]\nsinks = [\"a\", \"b\"]\nsettel = \"1s\"\n[sinks.a.stdout]\n").unwrap_err();
    let places: Vec<_> = error.problems().iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
    assert_eq!(places, [(2, 15, "streams.all.sinks[1]"), (3, 1, "streams.all.settel")]);
    assert!(error.render(true).contains("\u{1b}[") && !error.render(false).contains('\u{1b}'));
    assert_eq!(error.to_string(), error.render(false));
}

#[test]
fn no_report_betrays_a_secret_or_moves_the_terminal() {
    for text in [
        "[api]\nkey = \"hunter2\"\n",
        "[api]\nkey = hunter2\n",
        "api_key = \"hunter2\nx = ]\n",
        "[api]\nurl = \"https://hunter2@\"\n",
        "[api]\nurl = \"https://a:hunter2@host/\"\n",
        "[api]\nurl = \"a:hunter2@host\"\n",
        "[api]\nurl = \"https:\\\\a:hunter2@host/\"\n",
        "[api]\nurl = \"https:\\q\\a:hunter2@host/\"\n",
        "[api]\nurl = a:hunter2@host\n",
        "[api]\nurl = \"https://host/?k=hunter2\"\n",
        "[api]\nkey_env = \"hunter2-\"\n",
    ] {
        let shown = report(text);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert!(!report("\"a\\u001b[31mb\" = 1\n").contains('\u{1b}'));
    assert!(!report("\"x\u{7}\" = \"\u{1b}[31m\"\n").contains('\u{1b}'));
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let absent = config::load(&path("absent.toml"), &nothing).unwrap_err();
    assert!(matches!(&absent, ConfigError::Unreadable { .. }) && absent.problems().is_empty());
    assert!(absent.to_string().contains("absent.toml` cannot be read: No such file"), "{absent}");

    std::fs::write(path("latin.toml"), b"[streams.all]\n# M\xfcll\n").unwrap();
    let latin = config::load(&path("latin.toml"), &nothing).unwrap_err();
    assert_eq!((latin.problems()[0].line, latin.problems()[0].column), (2, 4));

    std::fs::write(path("good.toml"), MINIMAL).unwrap();
    let loaded = config::load(&path("good.toml"), &nothing).unwrap();
    assert_eq!(loaded.file, Some(path("good.toml")));
    assert_eq!(Config { file: None, ..loaded }, Config { file: None, ..good(MINIMAL) });

    std::fs::write(path("huge.toml"), "#".repeat(2 << 20)).unwrap();
    let huge = config::load(&path("huge.toml"), &nothing).unwrap_err();
    assert_eq!(huge.problems()[0].message, "the file is too large for a configuration");
}

#[test]
fn many_problems_are_counted_not_drawn() {
    let text = (0..500).map(|n| format!("key_{n} = 1")).collect::<Vec<_>>().join("\n");
    let error = parse(&text).unwrap_err();
    assert_eq!(error.problems().len(), 501);
    let shown = error.render(false);
    assert!(shown.ends_with("501 problems in `sparkspool.toml`; the first 50 are shown"), "{shown}");
    assert_eq!(shown.matches("error:").count(), 50);
}

mod any_text {
    use super::{EXAMPLE, parse};
    use proptest::prelude::*;
    use sparkspool::config::DialectChoice;
    use sparkspool::config::raw::*;
    use sparkspool::source::sparkpost::filter;
    use std::collections::BTreeMap;

    /// Whatever the text, there is an answer, and every problem has a place in the file.
    fn answers(text: &str) -> Result<(), TestCaseError> {
        if let Err(error) = parse(text) {
            prop_assert!(!error.problems().is_empty());
            let lines = text.matches('\n').count() + 1;
            for problem in error.problems() {
                prop_assert!((1..=lines).contains(&problem.line) && problem.column >= 1 && !problem.message.is_empty());
                // What the check lets through can always be read.
                prop_assert!(!problem.message.contains("cannot be read:"), "{}", problem.message);
            }
            prop_assert!(error.render(false).contains("error") && !error.render(true).is_empty());
        }
        Ok(())
    }

    /// Texts that are nearly configurations: the example's own lines, tables and values, shuffled together.
    fn nearly() -> impl Strategy<Value = String> {
        let lines: Vec<&str> = EXAMPLE.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).collect();
        let line = prop::sample::select(lines).prop_map(|line| line.trim_start_matches('#').to_owned());
        let value = prop::sample::select(vec![
            "1",
            "-1",
            "1.5",
            "true",
            "\"\"",
            "\"10\"",
            "\"é{\"",
            "[]",
            "[1]",
            "[[]]",
            "{}",
            "{ a = 1 }",
            "2026-01-01",
            "07:00:00",
            "99999999999999999999",
            "\"*/5 * * * *\"",
            "\"https://é@\"",
            "\"2026-11-1é\"",
            "0x1F",
            "nan",
        ]);
        let other = (line.clone(), value).prop_map(|(line, value)| match line.split_once(" = ") {
            Some((key, _)) => format!("{key} = {value}"),
            None => line,
        });
        prop::collection::vec(prop_oneof![line, other], 0..12).prop_map(|lines| lines.join("\n"))
    }

    fn name() -> impl Strategy<Value = String> {
        "[A-Za-z0-9_-]{1,12}"
    }

    fn span(range: std::ops::Range<u32>) -> impl Strategy<Value = String> {
        range.prop_map(|secs| format!("{secs}s"))
    }

    fn account() -> impl Strategy<Value = RawAccount> {
        let key = prop_oneof![
            Just((None, None)),
            "[A-Z_]{1,9}".prop_map(|k| (Some(k), None)),
            name().prop_map(|k| (None, Some(k)))
        ];
        (1..=10_000_u32, 1..=16_u32, 1..=6_000_u32, span(1..600), key, any::<bool>()).prop_map(
            |(page_size, concurrency, requests_per_minute, idle_timeout, (key_env, key_file), events)| RawAccount {
                page_size,
                concurrency,
                requests_per_minute,
                idle_timeout,
                key_env,
                key_file,
                dialect: if events { RawDialect::Events } else { RawDialect::MessageEvents },
                ..RawAccount::default()
            },
        )
    }

    /// Filters that the dialect has, each under one of its names, with values that it takes.
    fn filters(dialect: RawDialect) -> impl Strategy<Value = BTreeMap<String, RawFilterValues>> {
        let choice = if dialect == RawDialect::Events { DialectChoice::Events } else { DialectChoice::MessageEvents };
        let value =
            || prop_oneof![any::<i64>().prop_map(RawFilterValue::Number), "\\PC{0,8}x".prop_map(RawFilterValue::Text)];
        let names: Vec<&str> = filter::names(choice).collect();
        let one = prop::sample::select(names).prop_flat_map(move |name| {
            let most = if name == "reason" { 1 } else { 3 };
            let values = prop::collection::vec(value(), 1..=most).prop_map(RawFilterValues);
            (Just(name.to_owned()), values)
        });
        prop::collection::vec(one, 0..3).prop_map(|filters| filters.into_iter().collect())
    }

    fn stream(sinks: Vec<String>, dialect: RawDialect) -> impl Strategy<Value = RawStream> {
        let timing = prop_oneof![
            Just((None, None)),
            span(1..86_400).prop_map(|every| (Some(every), None)),
            (0..60_u8, 0..24_u8).prop_map(|(m, h)| (None, Some(format!("{m} {h} * * *")))),
        ];
        (timing, span(1..86_400), span(0..864_000), filters(dialect)).prop_map(
            move |((every, schedule), settle, lookback, filter)| RawStream {
                every,
                schedule,
                settle,
                lookback,
                filter,
                sinks: sinks.clone(),
                ..RawStream::default()
            },
        )
    }

    fn config() -> impl Strategy<Value = RawConfig> {
        (prop::collection::btree_map(name(), "[a-z/ {é'\"\\\\]{1,12}", 1..4), account()).prop_flat_map(
            |(sinks, api)| {
                let stream = stream(sinks.keys().cloned().collect(), api.dialect);
                (Just(sinks), Just(api), prop::collection::btree_map(name(), stream, 1..4)).prop_map(
                    |(sinks, api, streams)| {
                        let file = |(n, (name, path)): (usize, (String, String))| {
                            let path = format!("/{n}{}{{stream}}", path.replace('{', ""));
                            (name, RawSink { file: Some(RawFile { path, ..RawFile::default() }), ..RawSink::default() })
                        };
                        let sinks: BTreeMap<_, _> = sinks.into_iter().enumerate().map(file).collect();
                        RawConfig { api: Some(api), streams, sinks, ..RawConfig::default() }
                    },
                )
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn never_panics(text in "(\\PC|\n){0,80}", toml in "([a-z.\"'\\[\\]{}=,#0-9T:Z-]|\n| ){0,80}") {
            answers(&text)?;
            answers(&toml)?;
        }

        #[test]
        fn never_panics_nearly(text in nearly(), cut in 0_usize..4_000) {
            answers(&text)?;
            let cut = EXAMPLE.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(0);
            answers(&EXAMPLE[..cut])?;
        }

        #[test]
        fn what_is_right_comes_back_as_it_was(raw in config()) {
            let text = toml::to_string(&raw).unwrap();
            prop_assert_eq!(&toml::from_str::<RawConfig>(&text).unwrap(), &raw);
            let config = parse(&text).map_err(|error| TestCaseError::fail(format!("{text}\n{error}")))?;
            prop_assert_eq!(config.streams.len(), raw.streams.len());
            prop_assert_eq!(config.sinks.len(), raw.sinks.len());
            for (stream, (name, typed)) in config.streams.iter().zip(&raw.streams) {
                prop_assert_eq!(stream.name.as_str(), name);
                prop_assert_eq!(format!("{}s", stream.settle / 1_000), typed.settle.clone());
                prop_assert_eq!(&stream.sinks, &typed.sinks);
                prop_assert_eq!(stream.filter.len(), typed.filter.len());
            }
        }
    }
}
