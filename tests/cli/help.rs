//! The help is as recorded, and the manual page knows every flag.

use crate::common::*;
use clap::CommandFactory;
use hdrive::cli::args::Cli;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn help(args: &[&str]) -> String {
    let mut command = Hdrive::command(args);
    command.arg("--help").env_remove("COLUMNS");
    let done = run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.text()
}

/// With `HDRIVE_BLESS=1` the record is written anew.
#[test]
fn help_is_as_recorded() {
    let mut all = help(&[]);
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        all.push_str(&format!("\n==== {name} ====\n\n{}", help(&[name])));
    }
    let path = root().join("tests/cli/help.txt");
    if std::env::var_os("HDRIVE_BLESS").is_some() {
        fs::write(&path, &all).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(all, recorded, "if this change is meant: HDRIVE_BLESS=1 cargo test --test cli help");
}

#[test]
fn the_manual_page_and_the_command_line_know_the_same_flags() {
    let mut known = BTreeSet::new();
    let mut root_command = Cli::command();
    root_command.build();
    let commands = std::iter::once(&root_command).chain(root_command.get_subcommands());
    for argument in commands.flat_map(|command| command.get_arguments()) {
        known.extend(argument.get_long().map(str::to_string));
        known.extend(argument.get_short().map(|short| short.to_string()));
    }
    let page = fs::read_to_string(root().join("man/hdrive.1")).unwrap();
    let mut described = BTreeSet::new();
    for line in page.lines() {
        let words: Vec<&str> = line.trim_start_matches('.').split_whitespace().collect();
        for flag in words.windows(2).filter(|pair| pair[0] == "Fl").map(|pair| pair[1]) {
            match flag.strip_prefix('-') {
                Some(long) => {
                    described.insert(long.to_string());
                }
                None => described.extend(flag.chars().map(|short| short.to_string())),
            }
        }
    }
    assert_eq!(described, known, "left: man/hdrive.1, right: hdrive --help");
    for command in root_command.get_subcommands() {
        let heading = format!(".It Cm {}", command.get_name());
        assert!(page.lines().any(|line| line.starts_with(&heading)), "{heading} is missing");
    }
}

/// Groff sets the second of two quotations on one line within the first.
#[test]
fn no_line_of_the_manual_page_has_two_quotations() {
    let page = fs::read_to_string(root().join("man/hdrive.1")).unwrap();
    let quotations = |line: &str| {
        let words = line.trim_start_matches('.').split_whitespace();
        words.filter(|word| ["Ql", "Dq", "Sq"].contains(word)).count()
    };
    let nested: Vec<&str> =
        page.lines().filter(|line| line.starts_with('.') && quotations(line) > 1).collect();
    assert!(nested.is_empty(), "{nested:#?}");
}

/// Every command's own part of the manual page: its lines of the synopsis, and its name beside what only some take.
#[test]
fn the_manual_page_gives_each_command_its_own_flags() {
    let page = fs::read_to_string(root().join("man/hdrive.1")).unwrap();
    let section = |from: &str, to: &str| {
        let start = page.find(from).unwrap_or_else(|| panic!("{from}"));
        let end = page[start..].find(to).unwrap_or_else(|| panic!("{to}"));
        page[start..start + end].lines().collect::<Vec<_>>()
    };
    let synopsis = section(".Sh SYNOPSIS", ".Sh DESCRIPTION");
    let options = section("The options are:", ".Ss Keys");
    // Flags of a line, single letters one by one.
    let flags = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of = |pair: &&[&str]| pair[0].trim_start_matches('.') == "Fl";
        let split = |pair: &[&str]| match pair[1].strip_prefix('-') {
            Some(long) => vec![long.to_string()],
            None => pair[1].chars().map(String::from).collect(),
        };
        words.windows(2).filter(of).flat_map(split).collect::<Vec<String>>()
    };

    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands() {
        let name = command.get_name();
        let mut own: Vec<(Option<String>, Option<String>)> = Vec::new();
        for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
            let (short, long) = (argument.get_short(), argument.get_long());
            let is_own = short.or(long.map(|_| ' ')).is_some() && long != Some("help");
            own.extend(is_own.then(|| (short.map(String::from), long.map(String::from))));
        }
        let heading = format!(".Cm {name}");
        let lines = synopsis.iter().skip_while(|line| **line != heading);
        let shown: Vec<String> =
            lines.skip(1).take_while(|line| **line != ".Nm").flat_map(|line| flags(line)).collect();
        for (short, long) in &own {
            let is_shown = shown.iter().any(|flag| [short, long].contains(&&Some(flag.clone())));
            assert!(is_shown, "SYNOPSIS of {name} lacks {long:?} {short:?}");
        }
        for flag in &shown {
            let is_own = own.iter().any(|(s, l)| [s, l].contains(&&Some(flag.clone())));
            assert!(is_own, "SYNOPSIS of {name} has {flag}, which it does not take");
        }
        // Below the flag it says for which commands it is, unless it is for all that open a drive.
        for (index, line) in options.iter().enumerate().filter(|(_, l)| l.starts_with(".It Fl")) {
            let Some(whose) = options[index + 1].strip_prefix(".Pq Cm ") else { continue };
            if options.iter().filter(|other| *other == line).count() > 1 && !whose.contains(name) {
                continue;
            }
            let is_own = own.iter().any(|(short, long)| {
                let known: Vec<String> = short.iter().chain(long).cloned().collect();
                flags(line).iter().any(|flag| known.contains(flag))
            });
            let is_named = whose.split(" , ").any(|word| word == name);
            assert_eq!(is_named, is_own, "{line}: {whose}: {name}");
        }
        for (short, long) in &own {
            let described = options.iter().filter(|line| line.starts_with(".It Fl"));
            let is_there = described
                .flat_map(|line| flags(line))
                .any(|flag| [short, long].contains(&&Some(flag)));
            assert!(is_there, "{name}: {long:?} {short:?} is not described");
        }
    }
}

/// As it is shown: what must be given has no brackets, what may be left out has its own.
#[test]
fn the_manual_page_shows_what_each_command_takes() {
    if !mandoc_available() {
        return;
    }
    let shown = mandoc(&["-T", "ascii"]).stdout;
    // A letter in bold is the letter, a step back and the letter again.
    let shown = String::from_utf8(shown).unwrap().chars().fold(String::new(), |mut page, c| {
        if c == '\u{8}' {
            page.pop();
        } else {
            page.push(c);
        }
        page
    });
    let start = shown.find("The subcommands are:").unwrap();
    let list = &shown[start..][..shown[start..].find("The options are:").unwrap()];
    let mut cli = Cli::command();
    cli.build();
    // What help takes clap does not tell.
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let heads = list.lines().filter_map(|line| line.strip_prefix("     "));
        // Behind one that is short its description begins.
        let heads = heads.map(|line| line.split("  ").next().unwrap_or_default());
        let takes = |head: &str| Some(head.strip_prefix(name)?.trim_start().replace(" ...", "..."));
        let named = |head: &&str| head.split(' ').next() == Some(name);
        let taken = heads.filter(named).find_map(takes).unwrap_or_else(|| panic!("{name}"));
        let closes = |word: &str| word.matches('[').count() == word.matches(']').count();
        assert!(taken.split_whitespace().all(closes), "{name} {taken}: brackets around two things");
        let told: Vec<_> = taken
            .split_whitespace()
            .map(|word| (!word.starts_with('['), word.contains("...")))
            .collect();
        let takes: Vec<_> = command
            .get_positionals()
            .map(|one| (one.is_required_set(), one.get_num_args().unwrap().max_values() > 1))
            .collect();
        assert_eq!(told, takes, "{name} {taken}: must it be given, and may more be given");
    }
    assert!(shown.contains("`?' and `#'"), "what ends the path of a link");
}

/// What looks like a key where people copy from is one.
#[test]
fn sample_keys_are_keys() {
    let mut pages = vec![root().join("README.md"), root().join("man/hdrive.1")];
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    let mut found = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        for word in words.filter(|word| word.len() > 40) {
            let key = word.parse::<hdrive::key::CoreKey>();
            assert!(key.is_ok(), "{}: {word}: {}", page.display(), key.unwrap_err());
            found += 1;
        }
    }
    assert!(found >= 4, "samples are looked at");
}

fn mandoc(args: &[&str]) -> std::process::Output {
    let page = root().join("man/hdrive.1");
    Command::new("mandoc").args(args).arg(page).output().unwrap()
}

fn mandoc_available() -> bool {
    available("mandoc", Command::new("mandoc").args(["-T", "lint", "/dev/null"]).output().is_ok())
}

#[test]
fn the_manual_page_is_clean() {
    if !mandoc_available() {
        return;
    }
    let lint = mandoc(&["-T", "lint", "-W", "warning"]);
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn version_and_nonsense() {
    let done = run(Hdrive::command(&["--version"]));
    assert_eq!(done.text().trim(), concat!("hdrive ", env!("CARGO_PKG_VERSION")));
    for nonsense in [&["frobnicate"][..], &["mount"], &["ls", "--frob"], &[]] {
        let done = run(Hdrive::command(nonsense));
        assert_eq!(done.code, 2, "{nonsense:?}: {}", done.stderr);
        assert!(done.stderr.contains("Usage: hdrive"), "{}", done.stderr);
    }
}
