//! The configuration as a user meets it: the shipped examples are right, and what is wrong is told all at once.
//! The reports are snapshots, because their text is what a person reads at three in the morning.

use sparkspool::config::{self, Config, ConfigError, KeySource, Schedule, SinkKind, Start};
use sparkspool::core::time::{DAY, HOUR, MINUTE, SECOND, UtcMillis};
use std::path::{Path, PathBuf};

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
    parse(text).map(|config| panic!("accepted: {config:?}")).unwrap_or_else(|error: ConfigError| error.render(false))
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
        wrong_choices: with("[api]\ndialect = \"event\"\n[sinks.b.file]\npath = \"b\"\nformat = \"csv\"\ncompress = \"zip\"\n");
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
        kinds_of_sink: with(
            "[sinks.a.kafka]\nbrokers = [\"k1\"]\n[sinks.b.fiel]\npath = \"b\"\n[sinks.c.file]\npath = \"c\"\n\
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
             [sinks.g.file]\npath = \"-\"\n[sinks.h.stdout]\nformat = \"raw\"\ninclude_raw = false\n[sinks.i.stdout]\n"
        );
        filters: with("[streams.b]\nsinks = [\"archive\"]\nfilter = { events = [], subaccounts = [1.5], tags = [\"\"] }\n");
        nothing_to_do: "";
        no_streams: "[streams]\n[sinks.a.stdout]\n";
        misplaced: "[streams]\nsinks = [\"a\"]\n[sinks]\nkind = \"file\"\n[log]\ndata_dir = \"/x\"\nlevel = \"info\"\n";
    }
}
