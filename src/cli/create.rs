//! `hdrive create`: an empty drive in this store.

use super::args::Create;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::target::{check_name, encryption_key, tell_unserved};

pub async fn run(args: Create, cx: Context) -> Result {
    check_name(&args.name)?;
    // A name may be left whose drive is gone: then it is free.
    let drive = cx.node.drive_named(&args.name)?.map(|key| cx.node.store().writes(&key));
    if drive.transpose().or_exit(Exit::Store)?.unwrap_or_default() {
        let text = format!("this store has a drive called '{}': `hdrive info` shows it", args.name);
        return Err(Failure::new(Exit::Failed, text));
    }
    let drive = cx.node.create_drive(&args.name, encryption_key(&args.secret)?).await?;
    cx.out.pair("key", drive.key());
    tell_unserved(&cx, drive.key(), &args.name);
    Ok(())
}
