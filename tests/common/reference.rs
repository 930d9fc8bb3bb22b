//! Node.js and the reference's packages, for every test that runs a JavaScript peer.

use std::path::PathBuf;
use std::process::Command;

/// The oldest Node.js that the reference runs on.
const MAJOR: u32 = 20;

/// `node`, which finds the reference's packages. `None`, with a printed reason, where one of the two is missing;
/// with `HDRIVE_REQUIRE_ALL` that is a failure.
pub fn node() -> Option<Command> {
    let packages = packages();
    let recent = version().is_some_and(|major| major >= MAJOR);
    if !recent || !packages.is_dir() {
        let what = format!("Node.js {MAJOR} or the reference in {}", packages.display());
        let required = std::env::var_os("HDRIVE_REQUIRE_ALL").is_some();
        assert!(!required, "{what} is missing, and HDRIVE_REQUIRE_ALL is set");
        eprintln!("SKIPPED: {what} is missing; `make setup` installs what can be installed");
        return None;
    }
    let mut node = Command::new(program());
    node.env("NODE_PATH", packages);
    Some(node)
}

/// Where the reference is installed: what `HDRIVE_REFERENCE` names, or where `make setup` puts it.
fn packages() -> PathBuf {
    let set = std::env::var_os("HDRIVE_REFERENCE").map(PathBuf::from);
    set.unwrap_or_else(|| root().join("natlab/js/node_modules"))
}

/// The Node.js that `make setup` put beside one of the system that is too old, or the system's.
fn program() -> PathBuf {
    let own = root().join("target/tools/node_modules/node/bin/node");
    if own.exists() { own } else { "node".into() }
}

/// Its major version.
fn version() -> Option<u32> {
    let output = Command::new(program()).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
