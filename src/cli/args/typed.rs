//! Parses a command line: what clap does not, of variables and of what it says when something is wrong.

use super::{Cli, Command};
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches};
use std::ffi::OsString;

impl Cli {
    /// Parses what was typed.
    ///
    /// # Errors
    /// What clap has to say, help and version included.
    pub fn typed(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let mut command = Self::command();
        command = command.mut_args(without_empty_variable);
        command = command.mut_subcommands(|sub| sub.mut_args(without_empty_variable));
        if words.len() < 2 {
            // Else clap takes what variables set for something typed.
            command = command.mut_args(|arg| arg.env(Resettable::Reset));
        }
        let matches = command.try_get_matches_from_mut(&words);
        let mut parsed = matches.and_then(|matches| Self::from_arg_matches(&matches));
        if let Ok(Self { command: Command::Seed(seed), .. }) = &mut parsed {
            seed.name_once();
        }
        parsed.map_err(|error| {
            let error = with_variables(error, &command, &words);
            with_plain_usage(error, &mut command, &words)
        })
    }
}

/// An empty variable counts as unset.
fn without_empty_variable(arg: Arg) -> Arg {
    let value = arg.get_env().and_then(std::env::var_os);
    if value.is_some_and(|value| value.is_empty()) { arg.env(Resettable::Reset) } else { arg }
}

/// What is wrong with a flag that nobody typed is said of the variable that set it.
fn with_variables(
    mut error: clap::Error,
    command: &clap::Command,
    words: &[OsString],
) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        // `--name <VALUE>`
        let Some(ContextValue::String(flag)) = error.get(kind) else { continue };
        let flag = flag.split(' ').next().unwrap_or_default();
        let is_typed =
            |word: &OsString| word.to_str().and_then(|w| w.split('=').next()) == Some(flag);
        let is_named = |arg: &&Arg| arg.get_long() == flag.strip_prefix("--");
        let variable = command.get_arguments().find(is_named).and_then(Arg::get_env);
        let is_of_value = error.kind() == ErrorKind::ValueValidation;
        if (is_of_value || error.kind() == ErrorKind::ArgumentConflict)
            && !words.iter().any(is_typed)
            && let Some(variable) = variable.map(|name| name.to_string_lossy().into_owned())
        {
            error.insert(kind, ContextValue::String(variable));
        }
    }
    error
}

/// clap's own usage line lists every option that a variable sets as if it had been typed.
fn with_plain_usage(
    mut error: clap::Error,
    command: &mut clap::Command,
    words: &[OsString],
) -> clap::Error {
    if error.get(ContextKind::Usage).is_some() {
        let is_command = |word: &&OsString| command.find_subcommand(word).is_some();
        // What follows a command that there is none of is of no command.
        let known = error.kind() != ErrorKind::InvalidSubcommand;
        let name = words.iter().skip(1).find(is_command).filter(|_| known);
        let meant = match name.and_then(|name| command.find_subcommand_mut(name)) {
            Some(subcommand) => subcommand,
            None => command,
        };
        let usage = meant.render_usage();
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
    error
}
