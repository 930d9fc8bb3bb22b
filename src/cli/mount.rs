//! `hdrive mount`: a drive as a folder, until it is unmounted or interrupted.

use super::args::Mount;
use super::context::Context;
use super::drafting;
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::joined;
use super::log::clock_note;
use super::looking::{Looking, Sought};
use super::moment::Moment;
use super::share::refuse_shared;
use super::target::{Target, check_link, encryption_key, from_live, newest, resolve, tell_version};
use super::words::date;
use crate::disk::Own;
use crate::fs::volume::Volume;
use crate::fs::{Access, DraftVolume, DriveVolume, End, MountOptions, Mounted, split_options};
use crate::hyper::drive::{LiveDrive, Past};
use crate::node::{Drafting, DriveUse, last_until};
use std::sync::Arc;
use std::time::Duration;

/// A first look at the drive is waited for this long before the mount is called ready; it fills later.
const FIRST_LOOK: Duration = Duration::from_millis(800);
/// The same once a peer is connected, so that the names are certain to come.
const NAMES_COMING: Duration = Duration::from_secs(10);
/// And the sizes of files that only a block map tells.
const SIZES_COMING: Duration = Duration::from_secs(1);
/// How often it is looked whether the mount is where it was.
const LOOK: Duration = Duration::from_secs(2);
/// What a request may wait beyond the drive's own read timeout.
const MARGIN: Duration = Duration::from_secs(5);

/// The option by which mount(8) asks for other options of a mount that is there.
pub const REMOUNT: &str = "remount";

/// Fails for what its words alone show to fail: whoever can never mount need not own the store first. The mount point is
/// not looked at: where its disk hangs, who waits for what another one looks up there cannot be killed.
pub fn check(args: &Mount) -> Result {
    check_link(&args.key)?;
    options(args).map(drop)
}

pub async fn run(args: Mount, cx: Context) -> Result {
    let mut options = options(&args)?;
    let point = cx.cwd.join(&args.mountpoint);
    let (at, nonempty) = (point.clone(), options.nonempty);
    // Its end waits for nobody's disk but that which it lies on.
    let own = Own::start("hdrive-mount").or_exit(Exit::Mount)?;
    // Before the drive is looked for, which may take long.
    let look = own.begin(move || crate::fs::check_mount_point(&at, nonempty));
    match cx.wait_for(look).await {
        Err(failure) if failure.exit == Exit::Interrupted => return Ok(()),
        looked => looked?.or_exit(Exit::Mount)?,
    }
    let target = resolve(&cx.node, &args.key)?;
    if !target.path.is_root() {
        let text =
            format!("a drive is mounted as a whole, without '{}' behind its key", target.path);
        return Err(Failure::new(Exit::Usage, text));
    }
    let secret = encryption_key(&args.secret)?;
    let at = match (args.at, target.version) {
        (None, version) => version,
        (Some(Moment::Version(at)), None) => Some(at),
        (Some(Moment::Version(at)), Some(version)) if at == version => Some(at),
        (Some(Moment::Time(time)), None) => {
            Some(version_of_time(&cx, &target, secret, time).await?)
        }
        (Some(_), Some(version)) => {
            let text = format!("the link names version {version}, and --at another: pass one");
            return Err(Failure::new(Exit::Usage, text));
        }
    };
    let drive = Arc::new(cx.node.drive(target.key, secret, at, true).await?);
    let looking = Looking::start(&cx.node, &cx.out, &drive, None);
    let draft = match at.is_none() && is_to_be_written(&args) {
        true => draft(&cx, &drive, args.publish_after).await?,
        false => None,
    };
    options.writable = draft.is_some();
    let volume: Arc<dyn Volume> = match &draft {
        Some(draft) => {
            let store = cx.node.config().store.clone();
            Arc::new(DraftVolume::new(draft.clone(), store, args.read_timeout))
        }
        None => Arc::new(DriveVolume::new(drive.clone(), at.is_some(), args.read_timeout)),
    };
    let runtime = tokio::runtime::Handle::current();
    let place = point.clone();
    let mount = move || crate::fs::mount(volume, &point, &options, runtime);
    let mut mounting = own.begin(mount);
    let mounted = tokio::select! {
        mounted = &mut mounting => joined(mounted)?.or_exit(Exit::Mount)?,
        () = cx.cancel.cancelled() => tokio::select! {
            // It ends as one that was mounted.
            mounted = mounting => {
                let end = own.begin(move || drop(mounted));
                tokio::select! { _ = end => {}, () = cx.cancel.overdue() => {} }
                return Ok(());
            }
            () = cx.cancel.overdue() => {
                let text = format!(
                    "the mount on {} is still being made: if it is there in a moment, `hdrive umount` takes it away",
                    place.display()
                );
                return Err(Failure::new(Exit::Mount, text));
            }
        },
    };
    let mounted = Arc::new(mounted);
    cx.running.note_mount(&mounted, (target.key, at), draft.is_some());
    let trouble = async {
        match &draft {
            Some(draft) => drafting::tell_trouble(draft, mounted.mount_point(), &cx).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = serve(&mounted, &own, &drive, at, &looking, &cx) => result,
        () = trouble => Ok(()),
    };
    cx.running.forget_mount();
    let end = own.begin(move || drop(mounted));
    tokio::select! {
        _ = end => {}
        () = cx.cancel.given_up() => {}
    }
    match draft {
        Some(draft) => drafting::end(draft, &place, &cx).await.and(result),
        None => result,
    }
}

/// Whether it is asked to be writable; of `ro` and `rw` the last counts.
fn is_to_be_written(args: &Mount) -> bool {
    let options = args.options.iter().flat_map(|text| split_options(text));
    options.filter(|option| matches!(*option, "ro" | "rw")).last() == Some("rw")
}

/// The drive to be worked on, if this store writes it and no share does. A line says why not where one might expect it.
async fn draft(
    cx: &Context,
    drive: &Arc<DriveUse>,
    quiet: Duration,
) -> Result<Option<Arc<Drafting>>> {
    if !drive.writable() {
        return Ok(None);
    }
    let read_only = |why: &dyn std::fmt::Display| {
        cx.out.note(format_args!("mounted read-only: {why}"));
        Ok(None)
    };
    if let Err(follows) = refuse_shared(&cx.node, drive.key()) {
        return read_only(&follows);
    }
    if let Err(doubt) = cx.node.may_write(drive, &|text| cx.out.note(text)).await {
        return read_only(&doubt);
    }
    match cx.node.draft(drive.clone(), quiet).await? {
        Some(draft) => Ok(Some(draft)),
        None => read_only(&"a share makes the drive what a folder is: change the files there"),
    }
}

async fn serve(
    mounted: &Arc<Mounted>,
    own: &Own,
    drive: &LiveDrive,
    at: Option<u64>,
    looking: &Looking,
    cx: &Context,
) -> Result {
    // With a peer near the names are here before the line is printed, so that `ls` finds them.
    tokio::select! {
        () = async {
            first_look(drive).await;
            if drive.problem().is_none() {
                cx.running.note_begun();
            }
            // Who sees only what comes before the line must not take an empty folder for the drive.
            if cx.background {
                looking.first_verdict().await;
            }
        } => {}
        () = cx.cancel.cancelled() => {}
    }
    // A parent that waits for the line passes on what was said before it.
    let told_already = drive.other_version().is_some();
    if told_already {
        tell_version(drive, cx);
    }
    if let Some(at) = at
        && drive.problem().is_none()
        && drive.index().is_none_or(|index| index.version() == 0)
    {
        cx.out.note(format_args!("version {at} is not here yet: the folder fills when it comes"));
    }
    if drive.problem().is_none() {
        cx.out.once(|out| out.pair("mounted", mounted.mount_point().display()));
    }
    let mut failed = None;
    let told = async {
        drive.shown().await;
        if !told_already {
            tell_version(drive, cx);
        }
        std::future::pending().await
    };
    tokio::select! {
        () = told => {}
        () = tell_unmounted(mounted, cx) => {}
        end = mounted.ended() => return match end {
            End::Unmounted => Ok(()),
            End::Broken => Err(Failure::new(Exit::Mount, format!(
                "{} ended though nobody unmounted it (its connection was cut, by `umount -f`, say): mount it again",
                mounted.mount_point().display()
            ))),
        },
        () = cx.cancel.cancelled() => {}
        // Without the right key, say, it would stay empty for ever.
        error = drive.failed() => failed = Some(error),
    }
    let mount = mounted.clone();
    let done = tokio::select! {
        done = own.begin(move || mount.end()) => joined(done)?,
        () = cx.cancel.given_up() => {
            let point = mounted.mount_point().display();
            let text = format!(
                "{point} is not unmounted yet: the file system that it lies on does not answer"
            );
            return Err(Failure::new(Exit::Mount, text));
        }
    };
    let busy = done.or_exit(Exit::Mount)?;
    if busy {
        let point = mounted.mount_point().display();
        match cx.cancel.is_hand_over() {
            true => cx.out.warn(format_args!(
                "{point} was in use when the process that served it ended: what was open there, or stood there, ends; \
                 it is mounted again"
            )),
            false => cx.out.note(format_args!("{point} was in use; it is unmounted lazily")),
        }
    }
    match failed {
        Some(error) => Err(from_live(&drive.key(), error)),
        None => Ok(()),
    }
}

/// Says it once when the mount was taken away from its place, and goes on because somebody has it still. Does not end.
async fn tell_unmounted(mounted: &Mounted, cx: &Context) {
    let mut gone = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok((own, copies)) = mounted.places() else { continue };
        // The end may just be on its way here.
        if !gone || own.is_some() {
            gone = own.is_none();
            continue;
        }
        let by = match copies.first() {
            Some(copy) => format!("on {}", copy.display()),
            None => "by open files or in another mount namespace".into(),
        };
        cx.out.note(format_args!(
            "{} is unmounted, and used still {by}: this command ends when that does, or by a signal",
            mounted.mount_point().display()
        ));
        std::future::pending::<()>().await;
    }
}

/// The version of a drive at a time; its log is needed for that, so a peer is waited for.
async fn version_of_time(
    cx: &Context,
    target: &Target,
    secret: Option<[u8; 32]>,
    time: i64,
) -> Result<u64> {
    let failed = |error| from_live(&target.key, error);
    let drive = cx.node.drive(target.key, secret, None, true).await?;
    let drive = Sought::new(&cx.node, &cx.out, drive);
    if newest(cx, target, &drive).await?.version() == 0 {
        return Err(Failure::new(Exit::NotFound, "--at: nothing was ever put into this drive"));
    }
    let log = drive.drive().await.map_err(failed)?;
    // What was noted when it came is nearer the truth than the times of files; `log` tells the same.
    let seen = cx.node.seen(target.key)?;
    if let Some(note) = clock_note(&seen) {
        cx.out.note(note);
    }
    match last_until(&seen, time) {
        Some(last) if last + 1 == seen.len() => return Ok(log.version()),
        Some(at) => return Ok(seen[at].version),
        None => {}
    }
    let found = log.version_of_time(time).await.map_err(|error| failed(error.into()))?;
    let text = match found {
        Past::Version(version) => return Ok(version),
        Past::Later(first) => {
            format!("--at: nothing in the drive is older than {} UTC", date(first))
        }
        Past::Timeless => "--at: this drive tells no times; pass a version".into(),
    };
    Err(Failure::new(Exit::NotFound, text))
}

/// Waits until the names are here, or it is clear that they will not be for a while.
async fn first_look(drive: &LiveDrive) {
    let mut found = drive.current(FIRST_LOOK).await;
    if found.is_err() && drive.problem().is_none() && drive.db().reach().borrow().peers > 0 {
        found = drive.current(NAMES_COMING).await;
    }
    if found.is_ok() {
        drive.sized(SIZES_COMING).await;
    }
}

fn options(args: &Mount) -> Result<MountOptions> {
    let mut options = MountOptions { deadline: args.read_timeout + MARGIN, ..Default::default() };
    for text in &args.options {
        for option in split_options(text) {
            if option == REMOUNT {
                let text = "-o remount: a mounted drive keeps its options: unmount it, and mount it again with others";
                return Err(Failure::new(Exit::Usage, text));
            }
            if !options.apply(option).or_exit(Exit::Usage)? {
                let text = format!("-o {option}: hdrive knows no such mount option");
                return Err(Failure::new(Exit::Usage, text));
            }
        }
    }
    if args.allow_other {
        options.access = Access::Everybody;
    }
    Ok(options)
}
