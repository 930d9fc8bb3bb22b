//! `hdrive ls`: the names in a folder of a drive.

use super::args::Ls;
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::{encryption_key, open_target};
use super::words::date;
use crate::hyper::drive::{Dir, Found, Node, SpecialKind};
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
        Some(Found::Directory(dir)) => list(&args, &cx, dir).await,
        Some(_) => {
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

/// Prints the names of a directory.
async fn list(args: &Ls, cx: &Context, dir: &Dir) {
    // Folders that are being listed, and what stands before their names.
    let mut listed = vec![(dir.iter(), String::new())];
    while let Some((nodes, prefix)) = listed.last_mut() {
        let Some((name, node)) = nodes.next() else {
            listed.pop();
            continue;
        };
        let name = format!("{prefix}{name}");
        cx.out.room().await;
        print(args, cx, &name, node);
        if args.recursive
            && let Found::Directory(below) = node.shown()
        {
            listed.push((below.iter(), name + "/"));
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
                "name": name, "type": "file", "size": file.known_size(), "mode": file.permissions(),
                "mtime": file.mtime_ms(),
            }),
            Found::Link(link) => json!({"name": name, "type": "link", "target": &*link.target}),
            Found::Special(node) => json!({"name": name, "type": kind(node.kind).1}),
        });
        return;
    }
    if !args.long {
        let slash = if matches!(found, Found::Directory(_)) { "/" } else { "" };
        return cx.out.line(format_args!("{name}{slash}"));
    }
    let leaf_time = node.leaf().and_then(|leaf| leaf.stat().mtime.ms());
    let time = leaf_time.map_or_else(|| "-".into(), date);
    cx.out.line(match found {
        Found::Directory(_) => format!("drwxr-xr-x {:>12} {:>16} {name}/", "-", "-"),
        Found::File(file) => {
            let size = file.known_size().map_or_else(|| "?".into(), |size| size.to_string());
            format!("-{} {size:>12} {time:>16} {name}", mode(file.stat.mode))
        }
        Found::Link(link) => {
            let target = &link.target;
            format!("lrwxrwxrwx {:>12} {time:>16} {name} -> {target}", target.len())
        }
        Found::Special(node) => {
            let (letter, bits) = (kind(node.kind).0, mode(node.stat.mode));
            format!("{letter}{bits} {:>12} {time:>16} {name}", "-")
        }
    });
}

/// What is neither file, folder nor link, as a letter and as a word.
fn kind(kind: SpecialKind) -> (char, &'static str) {
    match kind {
        SpecialKind::Fifo => ('p', "fifo"),
        SpecialKind::Socket => ('s', "socket"),
        SpecialKind::Char { .. } => ('c', "char"),
        SpecialKind::Block { .. } => ('b', "block"),
    }
}

/// `rwxr-xr-x`.
fn mode(bits: u16) -> String {
    let flag =
        |bit: u16| if bits >> bit & 1 == 1 { ["x", "w", "r"][bit as usize % 3] } else { "-" };
    (0..9).rev().map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_well() {
        assert_eq!(mode(0o754), "rwxr-xr--");
    }
}
