//! `hdrive create`: an empty drive in this store.

use super::args::Create;
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::encryption_key;

pub async fn run(args: Create, cx: Context) -> Result {
    if crate::key::parse_key(&args.name).is_ok() || args.name.is_empty() {
        return Err(Failure::new(Exit::Usage, "a name must not be empty and not look like a key"));
    }
    if cx.node.drive_named(&args.name)?.is_some() {
        let text = format!("this store has a drive called '{}': `hdrive info` shows it", args.name);
        return Err(Failure::new(Exit::Failed, text));
    }
    let drive = cx.node.create_drive(&args.name, encryption_key(&args.secret)?)?;
    cx.out.pair("key", drive.key());
    Ok(())
}
