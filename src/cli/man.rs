//! `man`: the pages of the manual, one for each command and one for the configuration. It exists for packages, and for
//! whoever reads on a machine without a browser: `sparkspool man | man -l -`.

use super::exit::{Code, Failure};
use super::{output, reference};
use crate::config;
use clap::{Args, CommandFactory};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Options of `man`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Whose page to print: a command, or `sparkspool.toml` for the configuration [default: the program's]
    #[arg(conflicts_with = "out")]
    of: Option<String>,
    /// Directory to write all pages to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let pages = pages()?;
    if let Some(dir) = &options.out {
        std::fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
        for (name, text) in &pages {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| unwritable(&path, &error))?;
        }
        return Ok(());
    }
    let wanted = match options.of.as_deref() {
        None => "sparkspool.1".to_owned(),
        Some("sparkspool.toml") => "sparkspool.toml.5".to_owned(),
        Some(command) => format!("sparkspool-{command}.1"),
    };
    let Some((_, text)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let asked = options.of.as_deref().unwrap_or_default();
        return Err(Failure::new(
            Code::Usage,
            format!("there is no page `{asked}`"),
            "`sparkspool --help` lists the commands",
        ));
    };
    output::written(std::io::stdout().write_all(text))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Code::Store,
        format!("cannot write `{}`: {error}", path.display()),
        "choose another directory with --out",
    )
}

/// All pages by their files' names.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut pages = vec![("sparkspool.toml.5".to_owned(), reference::roff(&config::schema()).into_bytes())];
    let mut program = super::Cli::command().disable_help_subcommand(true);
    // Gives the commands inside it the names that their pages have: `sparkspool-backfill`.
    program.build();
    render(&program, &mut pages)
        .map_err(|error| Failure::new(Code::Bug, format!("a page cannot be written: {error}"), "please report this"))?;
    Ok(pages)
}

/// A page for the command, and one for each of its own.
fn render(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).section("1").render(&mut text)?;
    pages.push((format!("{}.1", command.get_display_name().unwrap_or(command.get_name())), text));
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).try_for_each(|inner| render(inner, pages))
}
