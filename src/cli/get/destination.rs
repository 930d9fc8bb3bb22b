//! Where a download goes: as `cp -r` has it, and into what an earlier one left.
//!
//! | typed | destination |
//! |---|---|
//! | nothing, or a folder that is there | in it, under the name of what is downloaded |
//! | a name that is free | that name |
//! | a folder that an unfinished download of the same made | that folder: it is resumed |

use super::super::args::Get;
use super::super::context::Context;
use super::super::exit::{Exit, Failure, Result};
use super::super::request::{BESIDE, INTO};
use super::super::target::Target;
use super::folder_name;
use super::local::refuse_link;
use super::mark::Mark;
use super::plan::Plan;
use std::path::PathBuf;
use std::sync::Arc;

/// Whether the destination is a folder that somebody else made. Who asked is told, so that another try knows.
pub async fn look(args: &mut Get, cx: &Context) -> Result {
    if args.into_folder.is_none() {
        let given = args.destination.as_ref().map(|given| cx.cwd.join(given));
        let look = move || given.is_some_and(|given| given.is_dir());
        let into = cx.ask_disk(look).await?;
        args.into_folder = Some(into);
        cx.out.say(if into { INTO } else { BESIDE });
    }
    Ok(())
}

/// The place of what `target` names.
pub async fn of(args: &Get, cx: &Context, target: &Target) -> Result<PathBuf> {
    let name = match target.path.is_root() {
        true => {
            let names = cx.node.names()?;
            let known = names.iter().find(|(_, key)| *key == target.key);
            folder_name(known.map(|(name, _)| name.as_str()), &target.key)
        }
        false => target.path.name().to_string(),
    };
    let Some(given) = &args.destination else { return Ok(cx.cwd.join(name)) };
    let place = cx.cwd.join(given);
    if args.into_folder == Some(true) {
        return Ok(place.join(name));
    }
    let is_there = |place: PathBuf| move || place.exists();
    if given.as_os_str().as_encoded_bytes().ends_with(b"/")
        && cx.ask_disk(is_there(place.clone())).await?
    {
        let text = format!("{} is not a folder", given.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(place)
}

/// Sends the plan of a folder into the folder that was typed itself, if an earlier download of the same began it.
///
/// # Errors
/// Something else than a folder is at the place.
pub async fn resume(args: &Get, cx: &Context, plan: &mut Plan, mark: &Arc<Mark>) -> Result {
    let Some(place) = plan.folders.first().map(|folder| folder.to.clone()) else { return Ok(()) };
    let given = args.destination.as_ref().filter(|_| args.into_folder == Some(true));
    let (given, mark, at) = (given.map(|given| cx.cwd.join(given)), mark.clone(), place.clone());
    let look = move || match given.filter(|given| mark.is_on(given)) {
        Some(given) => Ok(Some(given)),
        None => refuse_link(&at).map(|()| None),
    };
    if let Some(given) = cx.ask_disk(look).await?? {
        plan.move_to(&place, &given);
    }
    Ok(())
}
