//! `hdrive ls`: the names in a folder of a drive.

use super::args::Ls;
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::{encryption_key, open_target};
use crate::hyper::drive::{Dir, Found, Leaf, Node};
use crate::path::DrivePath;
use serde_json::json;
use std::time::Duration;

/// Sizes that only a block map tells are waited for this long.
const SIZES: Duration = Duration::from_secs(2);

pub async fn run(args: Ls, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    let (target, drive, mut index) = open_target(&cx, &args.target, secret).await?;
    if (args.long || cx.out.json) && index.unsized_files() > 0 {
        drive.sized(SIZES).await;
        index = drive.index().unwrap_or(index);
    }
    match index.lookup(&target.path) {
        Some(Found::Directory(dir)) => list(&args, &cx, dir, ""),
        Some(Found::File(_) | Found::Link(_)) => {
            let parent = target.path.parent().unwrap_or_else(DrivePath::root);
            let node = index.list(&parent).and_then(|dir| dir.get(target.path.name()));
            if let Some(node) = node {
                print(&args, &cx, target.path.name(), node);
            }
        }
        None => {
            let text = format!("no such file or directory: {}", target.path);
            return Err(Failure::new(Exit::NotFound, text));
        }
    }
    Ok(())
}

/// Prints the names of a directory; `prefix` is what stands before them.
fn list(args: &Ls, cx: &Context, dir: &Dir, prefix: &str) {
    for (name, node) in dir.iter() {
        print(args, cx, &format!("{prefix}{name}"), node);
        if args.recursive
            && let Found::Directory(below) = node.shown()
        {
            list(args, cx, below, &format!("{prefix}{name}/"));
        }
    }
}

fn print(args: &Ls, cx: &Context, name: &str, node: &Node) {
    let found = node.shown();
    if cx.out.json {
        cx.out.object(&match found {
            Found::Directory(dir) => {
                json!({"name": name, "type": "directory", "entries": dir.len()})
            }
            Found::File(file) => json!({
                "name": name, "type": "file", "size": file.known_size(), "mode": file.mode,
                "mtime": file.mtime_ms,
            }),
            Found::Link(link) => json!({"name": name, "type": "link", "target": &*link.target}),
        });
        return;
    }
    if !args.long {
        let slash = if matches!(found, Found::Directory(_)) { "/" } else { "" };
        return cx.out.line(format_args!("{name}{slash}"));
    }
    let leaf_time = node.leaf().and_then(|leaf| match leaf {
        Leaf::File(file) => file.mtime_ms,
        Leaf::Link(link) => link.mtime_ms,
    });
    let time = leaf_time.map_or_else(|| "-".into(), date);
    cx.out.line(match found {
        Found::Directory(_) => format!("drwxr-xr-x {:>12} {:>16} {name}/", "-", "-"),
        Found::File(file) => {
            let size = file.known_size().map_or_else(|| "?".into(), |size| size.to_string());
            format!("-{} {size:>12} {time:>16} {name}", mode(file.mode))
        }
        Found::Link(link) => {
            let target = &link.target;
            format!("lrwxrwxrwx {:>12} {time:>16} {name} -> {target}", target.len())
        }
    });
}

/// `rwxr-xr-x`.
fn mode(bits: u16) -> String {
    let flag =
        |bit: u16| if bits >> bit & 1 == 1 { ["x", "w", "r"][bit as usize % 3] } else { "-" };
    (0..9).rev().map(flag).collect()
}

/// `2024-06-30 17:05` in UTC.
pub fn date(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1 March of the year 0 in the proleptic calendar: the leap day ends a year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_dates_read_well() {
        assert_eq!(mode(0o754), "rwxr-xr--");
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(1_700_000_000_123), "2023-11-14 22:13");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00");
        assert_eq!(date(-1), "1969-12-31 23:59");
    }
}
