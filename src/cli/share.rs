//! `hdrive share`: a folder as a drive, announced, served and kept up to date.

mod dry_run;
mod place;
mod roles;
mod told;
mod waiting;

use self::place::Place;
use self::roles::{check_roles, is_filled, known_root, written_by};
use self::told::Told;
pub use self::told::private_line;
use self::waiting::{Under, Waiting};
use super::args::Share;
use super::context::Context;
use super::drafting::settle_before_share;
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::joined;
use super::findable::{Findable, findable};
use super::looking::Looking;
use super::progress::Progress;
use super::request::SHARED;
use super::signals::LAST_WAIT;
use super::target::{check_name, encryption_key, from_live};
use super::words::count;
use crate::disk;
use crate::hyper::drive::Drive;
use crate::key::{CoreKey, Topic};
use crate::lease::Lease;
use crate::lock::lock;
use crate::node::{DriveUse, Node, Writing};
use crate::path::DrivePath;
use crate::share::folder::Folder;
use crate::share::follow::{Follower, Touched};
use crate::share::import::{Import, Report};
use crate::share::ledger::{Ledger, SharedRoot};
use crate::share::rules::Rules;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the first announcement is waited for at a time.
const ANNOUNCE: Duration = Duration::from_secs(20);
/// And by one who was asked to go to the background.
const BACKGROUND: Duration = Duration::from_secs(10);
/// What could not be taken in is tried again after this, then after twice as long, up to the second.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

pub async fn run(args: Share, cx: Context) -> Result {
    let shares = !args.dry_run;
    match share(args, &cx).await {
        // All of it was in the drive before, and it was not changed since.
        Err(failure) if failure.exit == Exit::Interrupted && cx.told >= SHARED => Ok(()),
        Err(failure) if failure.exit == Exit::Interrupted => {
            if shares && !cx.cancel.is_hand_over() {
                cx.out.note(
                    "interrupted: not all of the folder is in the drive; share it again to go on",
                );
            }
            Err(failure)
        }
        done => done,
    }
}

async fn share(args: Share, cx: &Context) -> Result {
    let (at, store) = (cx.cwd.join(&args.folder), cx.node.config().store.clone());
    let may_miss = !args.dry_run;
    let place = cx.ask_disk(move || Place::of(&at, may_miss, store)).await??;
    let Place { folder, store, identity } = place;
    let rules = Rules::of_share(&folder, &args.exclude, args.cross_mounts, store)
        .or_fail(Exit::Usage, "--exclude")?;
    if args.dry_run {
        return dry_run::tell_only(&rules, cx).await;
    }
    let name = args.name.clone().unwrap_or_else(|| folder.to_string_lossy().into_owned());
    // One that an older version gave goes on.
    if args.name.is_some() && cx.node.drive_named(&name)?.is_none() {
        check_name(&name)?;
    }
    let identity = match identity {
        Ok(identity) => identity,
        // What it held is served until it is back.
        Err(error) => match known_root(&cx.node, &name)?.filter(|root| root.path == folder) {
            Some(root) => root.identity,
            None => {
                return Err(Failure::new(
                    Exit::NotFound,
                    format_args!("{}: {error}", folder.display()),
                ));
            }
        },
    };
    let root = SharedRoot { path: folder.clone(), identity };
    check_roles(&cx.node, &name, &root, args.replace).await?;
    let secret = encryption_key(&args.secret)?;
    let db = cx.node.create_drive(&name, secret).await?;
    let key = db.key();
    settle_before_share(cx, key, secret).await?;
    let writing = cx.node.claim_following(key);
    let writing = writing.map_err(|writer| written_by(cx, writer, &name, (key, &folder)))?;
    // Somebody may have put something into it until now.
    check_roles(&cx.node, &name, &root, args.replace).await?;
    let ledger = Ledger::new(cx.node.store().storage().clone(), key);
    let known = ledger.root().or_exit(Exit::Store)?;
    if known.is_none() {
        ledger.set_root(&root).or_exit(Exit::Store)?;
    }
    if args.replace {
        ledger.forget_crossed().or_exit(Exit::Store)?;
    }
    cx.running.note_begun();
    cx.out.once(|out| out.pair("key", key));

    // Watched before it is read, so that no change falls between the two.
    let watched = rules.clone();
    let follower = cx.ask_disk(move || Follower::new(watched)).await?;
    let live = cx.node.drive(key, secret, None, true).await?;
    let joined = Instant::now();
    // From here on the use of the drive keeps it from being forgotten.
    drop(db);
    let _looking = Looking::start(&cx.node, &cx.out, &live, None);
    let known = known.map(|root| root.identity);
    let goes_on = known.is_some() && is_filled(&cx.node, key)?;
    let shared = Shared {
        live,
        joined,
        hint: args.hint,
        goes_on,
        rules: Arc::new(rules),
        ledger: Arc::new(ledger),
        folder: Arc::new(Mutex::new(Folder::new(&folder, identity, known, args.replace))),
        told: Told::new(cx.told >= SHARED),
        cx: cx.clone(),
        cancelled: Arc::default(),
        imported: AtomicBool::new(cx.told >= SHARED),
        changed: AtomicBool::new(false),
        lease: Mutex::default(),
        writing: Arc::new(writing),
    };
    let work = shared.serve(follower);
    tokio::select! {
        done = work => done,
        () = cx.cancel.cancelled() => {
            shared.cancelled.store(true, Ordering::Relaxed);
            // An import may wait for its disk for ever; others go on with the drive.
            let lease = lock(&shared.lease).clone();
            let end = tokio::task::spawn_blocking(move || lease.end());
            let _ = tokio::time::timeout(LAST_WAIT, end).await;
            if shared.imported.load(Ordering::Relaxed) {
                return Ok(());
            }
            Err(Failure::new(Exit::Interrupted, "interrupted"))
        }
    }
}

/// Keeps a drive from being made to follow a folder while a command changes it; an error if it does already.
pub fn claim_change(node: &Node, key: CoreKey) -> Result<Writing> {
    let claim = node.claim_changing(key);
    refuse_shared(node, key)?;
    claim.ok_or_else(|| {
        let text = format!("drive {key} is being shared: change the files of the folder");
        Failure::new(Exit::Failed, text)
    })
}

/// An error if a drive follows a folder: what another command writes would be undone by the share.
pub fn refuse_shared(node: &Node, key: CoreKey) -> Result {
    let ledger = Ledger::new(node.store().storage().clone(), key);
    match ledger.root().or_exit(Exit::Store)? {
        Some(root) => Err(Failure::new(
            Exit::Failed,
            format_args!(
                "drive {key} follows the folder {}: change the files there; what is changed here would be undone",
                root.path.display()
            ),
        )),
        None => Ok(()),
    }
}

struct Shared {
    live: DriveUse,
    joined: Instant,
    /// A key with hints is to be told.
    hint: bool,
    rules: Arc<Rules>,
    ledger: Arc<Ledger>,
    folder: Arc<Mutex<Folder>>,
    told: Told,
    cx: Context,
    cancelled: Arc<AtomicBool>,
    /// The whole folder was looked at.
    imported: AtomicBool,
    /// The drive was filled from the folder before: what there is no room for now keeps nothing else from being served.
    goes_on: bool,
    /// The drive changed since.
    changed: AtomicBool,
    /// What the import may write with that is under way.
    lease: Mutex<Lease>,
    /// Held by that as well: a write that was begun comes to its end.
    writing: Arc<Writing>,
}

impl Shared {
    async fn serve(&self, mut follower: Follower) -> Result {
        let failed = |error| from_live(&self.live.key(), error);
        let drive = self.live.drive().await.map_err(failed)?;
        self.cx.node.may_write(&self.live, &|text| self.cx.out.note(text)).await?;
        let progress = Arc::new(self.cx.out.progress("importing", 0));
        let all = vec![DrivePath::root()];
        let import = self.import(&drive, all, false, BTreeSet::new(), Some(progress));
        let report = tokio::select! {
            report = import => report?,
            never = follower.listen() => match never {},
        };
        self.imported.store(true, Ordering::Relaxed);
        let mut again = report.as_ref().map(|report| report.again.clone()).unwrap_or_default();
        if report.is_none() || lock(&self.folder).awaits_look() {
            again.insert(DrivePath::root());
        }
        let mut waiting = Waiting::default();
        if let Some(report) = report {
            told::waiting(&report.waiting, &mut waiting, &self.rules, &self.cx.out);
            again.extend(report.waiting.into_iter().map(|(path, _)| path));
        }
        follower.again(again, RETRY, false);
        // What is served: it need not be all that the folder holds.
        let index = self.live.current(Duration::from_secs(30)).await.map_err(failed)?;
        let (files, bytes) = (index.files(), index.bytes());
        let topic = Topic::from(self.live.db().discovery_key());
        let found = async |limit| findable(&self.cx.node, topic, self.joined, limit).await;
        let announced = async {
            // Why that takes long is told meanwhile.
            let limit = if self.cx.background { BACKGROUND } else { ANNOUNCE };
            let far = loop {
                let far = found(limit).await;
                if far != Findable::NotYet {
                    break far;
                }
                // Who waits for it to go to the background has readers on this machine as well.
                if self.cx.background {
                    self.cx
                        .out
                        .note("others cannot find it yet: it goes on trying in the background");
                    break far;
                }
            };
            // Nobody listens any more once it is told what is shared.
            if self.cx.background {
                self.tell_hint().await;
            }
            let (files, bytes) = match self.changed.load(Ordering::Relaxed) {
                true => self
                    .live
                    .current(Duration::from_secs(30))
                    .await
                    .map_or((files, bytes), |index| (index.files(), index.bytes())),
                false => (files, bytes),
            };
            self.cx.out.once(|out| {
                if out.json {
                    let dht = far == Findable::Everywhere;
                    let by = far.name();
                    let shared =
                        json!({"shared": {"files": files, "bytes": bytes, "dht": dht, "foundBy": by}});
                    out.object(&shared);
                } else {
                    let near = match far {
                        Findable::Near => "; found on the local network only",
                        Findable::NotYet => "; not found by others yet",
                        Findable::Everywhere => "",
                    };
                    let shared =
                        format!("{}, {}{near}", count(files, "file"), count(bytes, "byte"));
                    out.pair("shared", shared);
                }
            });
            Ok(())
        };
        let hinted = async {
            if self.hint && !self.cx.background {
                found(BACKGROUND).await;
                self.tell_hint().await;
            }
            Ok(())
        };
        // Without a network there are readers on this machine, and changes none the less.
        let follow = self.follow(&drive, &mut follower, waiting);
        tokio::try_join!(announced, hinted, follow).map(|_| ())
    }

    /// Tells where others may look for this drive, as far as that is known now.
    async fn tell_hint(&self) {
        if self.hint {
            let address = self.cx.node.address_of(self.live.key()).await;
            if address.nodes.is_empty() {
                self.cx.out.note("no address of this peer is known: there is nothing to hint at");
            }
            self.cx.out.once(|out| out.pair("hint", &address));
        }
    }

    /// Keeps the drive as the folder is; ends with an error alone. What cannot be taken in waits, and is tried again; the
    /// rest is followed meanwhile.
    async fn follow(&self, drive: &Drive, follower: &mut Follower, mut waiting: Waiting) -> Result {
        let mut pause = RETRY;
        // All that is to be tried again.
        let mut before: BTreeSet<DrivePath> = BTreeSet::new();
        loop {
            if let Some(problem) = follower.problem() {
                self.cx.out.warn(problem);
            }
            let (paths, replaced) = match follower.next().await {
                Touched::Paths(paths) => (paths, false),
                Touched::Everything { replaced } => (vec![DrivePath::root()], replaced),
            };
            self.ledger.set_closed(follower.closed());
            let started = Instant::now();
            let mut again: BTreeSet<DrivePath> = BTreeSet::new();
            let (waited, mut failed, mut looked) = (!waiting.is_empty(), false, true);
            let resting = match is_whole(&paths) && !replaced {
                true => follower.resting(),
                false => BTreeSet::new(),
            };
            let import = self.import(drive, paths.clone(), replaced, resting, None);
            let done = tokio::select! {
                done = import => done,
                never = follower.listen() => match never {},
            };
            let under = Under::these(&paths);
            match done {
                Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
                Err(failure) => {
                    let problem = failure.to_string();
                    if waiting.is_new_problem(&problem) {
                        self.cx.out.warn(format_args!(
                            "what changed in the folder cannot be stored: {problem}; what is there is served, and it is \
                             tried again"
                        ));
                    }
                    waiting.add(paths.iter());
                    again.extend(paths.iter().cloned());
                    failed = true;
                }
                Ok(report) => {
                    let read = report.as_ref().map_or(&[][..], |report| &report.read);
                    follower.looked_at(&paths, read, started.elapsed());
                    let rested = report.as_ref().map_or(&[][..], |report| &report.rested);
                    waiting.done(&under, rested);
                    looked = report.is_some();
                    if let Some(report) = report {
                        told::waiting(&report.waiting, &mut waiting, &self.rules, &self.cx.out);
                        again.extend(report.waiting.into_iter().map(|(path, _)| path));
                        again.extend(report.again);
                        follower.later(report.rested);
                        if report.written + report.removed > 0 {
                            self.changed.store(true, Ordering::Relaxed);
                            let (written, removed) = (report.written, report.removed);
                            tracing::info!(written, removed, "the folder changed");
                        }
                    }
                    if waited && waiting.is_empty() {
                        self.cx.out.note("the folder is followed again");
                        waiting = Waiting::default();
                    }
                }
            }
            // Looks at parts of it are not believed, so all of it has to be looked at, whether or not an event tells.
            if !looked || lock(&self.folder).awaits_look() {
                again.insert(DrivePath::root());
            }
            // Of more names than are remembered only a look at everything tells that none of them waits any more.
            if again.is_empty() && waiting.is_whole() {
                again.insert(DrivePath::root());
            }
            // What is new among it is not made to wait as long as the rest.
            if !again.is_subset(&before) {
                pause = RETRY;
            }
            let waited_for = before.len();
            before.retain(|path| !under.has(path));
            let tried = waited_for == 0 || before.len() < waited_for;
            if !again.is_empty() {
                follower.again(again.iter().cloned(), pause, failed && replaced);
                if tried {
                    pause = (pause * 2).min(MAX_RETRY);
                }
            } else if waiting.is_empty() && before.is_empty() {
                pause = RETRY;
            }
            before.extend(again);
        }
    }

    /// Looks at these paths and brings the drive up to them. None if the folder is not there to be looked at.
    async fn import(
        &self,
        drive: &Drive,
        paths: Vec<DrivePath>,
        replaced: bool,
        resting: BTreeSet<DrivePath>,
        progress: Option<Arc<Progress>>,
    ) -> Result<Option<Report>> {
        let whole = is_whole(&paths);
        let folder = self.folder.clone();
        let look = disk::ask(move || lock(&folder).look(whole, replaced)).await;
        let (look, text) = joined(look)?;
        self.tell(text);
        let Some(look) = look else { return Ok(None) };
        let failed = |error| from_live(&self.live.key(), error);
        let turn = self.cx.node.turn_to_write(self.live.key()).await;
        let index = self.live.current(Duration::from_secs(30)).await.map_err(failed)?;
        let lease = Lease::default();
        // A turn that is not given yet, and is dropped at once, keeps nobody.
        let _ = lease.hold((turn, self.writing.clone()));
        *lock(&self.lease) = lease.clone();
        let (drive, rules, ledger) = (drive.under(&lease), self.rules.clone(), self.ledger.clone());
        let (folder, cancelled) = (self.folder.clone(), self.cancelled.clone());
        let in_parts = self.goes_on || self.imported.load(Ordering::Relaxed);
        let paths_again = paths.clone();
        let work = move || -> Result<(Report, Option<String>)> {
            let interrupted = || Failure::new(Exit::Interrupted, "interrupted");
            let tell = |done, total| {
                if let Some(progress) = &progress {
                    progress.set_total(total);
                    progress.set(done);
                }
            };
            let looked = |report: Report| {
                // Nothing is noted of what was refused, but the disk may be asked once more.
                if report.refused {
                    lease.end();
                    let text = lock(&folder).looked(&look, whole, &report, &ledger);
                    return Ok((report, text.or_exit(Exit::Store)?));
                }
                let mut folder = lock(&folder);
                let looked = || folder.looked(&look, whole, &report, &ledger);
                let text = lease.during(looked).ok_or_else(interrupted)?;
                lease.end();
                Ok((report, text.or_exit(Exit::Store)?))
            };
            let held = match rules.hold() {
                Ok(held) => held,
                Err(error) => {
                    let blind = Some(error.to_string());
                    return looked(Report { refused: true, blind, ..Report::default() });
                }
            };
            let import = Import {
                drive: &drive,
                index: &index,
                rules: &rules,
                ledger: &ledger,
                trust: look.trust,
                resting: &resting,
                held: &held,
                in_parts,
                still: &|| lock(&folder).holds(&look, &held),
                progress: &tell,
                cancelled: &|| cancelled.load(Ordering::Relaxed),
            };
            let done = import.run(&paths);
            if done.is_err() {
                lease.end();
            }
            looked(done.or_exit(Exit::Store)?)
        };
        let done = joined(disk::ask(work).await)?;
        let (mut report, text) = done?;
        self.tell(text);
        if report.blind.is_some() {
            report.again = paths_again.into_iter().collect();
        }
        self.told.tell(&report, &self.cx.out);
        Ok(Some(report))
    }

    fn tell(&self, text: Option<String>) {
        if let Some(text) = text {
            self.cx.out.warn(text);
        }
    }
}

fn is_whole(paths: &[DrivePath]) -> bool {
    paths.iter().any(DrivePath::is_root)
}
