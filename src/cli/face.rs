//! What a command is that another process runs: it sends its request when that process listens, passes on what its
//! user does, and ends with the code that the owner of the store answers.
//!
//! If the owner goes away without a code the face tries again from the start, and may become the owner itself,
//! unless the first try may have left something: then it says so and fails.

use super::args::Command;
use super::exit::{Exit, Fail, Failure, Result};
use super::output::complain;
use super::owner::{OWNER_PATIENCE, silent};
use super::pump::{ended, pump};
use super::request::{
    ACCEPTED, APART, BEGUN, BESIDE, CANCEL, ELSEWHERE, END, FULL, INTO, LATER, LISTENS, Request,
    STANDS, TOLD, ask, greet, read_standing,
};
use super::signals::{LAST_WAIT, Signals};
use rustix::net::sockopt::socket_peercred;
use std::io::PipeWriter;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An owner that was told to end a command and has not after this is named.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// The process at the other end.
pub fn pid_of(owner: &UnixStream) -> i32 {
    socket_peercred(owner).map_or(0, |peer| peer.pid.as_raw_nonzero().get())
}

/// How a face's stay at an owner ended.
pub enum Ended {
    /// The command has, with this code.
    With(u8),
    /// The owner went away, and the command can be run once more.
    Again,
    /// The same after a while, so that the owner can go away.
    Later,
    /// The same when the owner has ended, at which the command cannot go on, for this reason.
    Elsewhere(&'static str),
}

/// Stands in for a command that the owner runs: asks for it, passes Ctrl-C and standard input on and waits for the exit
/// code. What was told once is noted in `request`.
///
/// # Errors
/// An owner that does not even accept the request (it is stopped, say) is named after a while, and one of another
/// version at once. One that went away when the command may have done something is told.
pub async fn face(stream: UnixStream, request: &mut Request, store: &Path) -> Result<Ended> {
    let pid = pid_of(&stream);
    stream.set_nonblocking(true).or_exit(Exit::Failed)?;
    let mut stream = tokio::net::UnixStream::from_std(stream).or_exit(Exit::Failed)?;
    let mut signals = Signals::new().or_exit(Exit::Failed)?;
    let patience = tokio::time::sleep(OWNER_PATIENCE);
    tokio::pin!(patience);
    let mut stdin = tokio::select! {
        handed = hand_over(&mut stream, request, pid) => match handed? {
            Some(stdin) => stdin,
            None => return Ok(Ended::Again),
        },
        () = &mut patience => return Err(silent(store)),
        // It has not been asked for anything.
        _ = signals.next() => return Ok(Ended::With(request.exit_when_asked() as u8)),
    };
    let (mut accepted, mut begun, mut asked, mut told) = (false, false, false, false);
    let mut pumped = None;
    loop {
        let mut code = [0];
        tokio::select! {
            read = stream.read(&mut code) => match read {
                Ok(1) if code[0] == ACCEPTED => {
                    accepted = true;
                    // Not before: as long as nothing was read, another owner may have all of it.
                    pumped = match stdin.take().map(pump).transpose() {
                        Ok(pumped) => pumped,
                        Err(error) => {
                            let _ = stream.write_all(&[CANCEL]).await;
                            return Err(Failure::new(Exit::Failed, error));
                        }
                    };
                    continue;
                }
                Ok(1) if code[0] == BEGUN => {
                    begun = true;
                    continue;
                }
                Ok(1) if code[0] == STANDS => {
                    // Without it nobody knows where it may go on.
                    let standing = read_standing(&mut stream).await;
                    request.stood = Some(standing.map_err(|_| left_alone())?);
                    continue;
                }
                Ok(1) if code[0] == TOLD => {
                    request.told += 1;
                    continue;
                }
                Ok(1) if matches!(code[0], INTO | BESIDE) => {
                    if let Command::Get(get) = &mut request.command {
                        get.into_folder = Some(code[0] == INTO);
                    }
                    continue;
                }
                // Nothing of it was begun, and the user wants it no more.
                Ok(1) if asked && matches!(code[0], LATER | ELSEWHERE | APART | FULL) => {
                    return Ok(Ended::With(request.exit_when_asked() as u8));
                }
                Ok(1) if code[0] == LATER => return Ok(Ended::Later),
                Ok(1) if code[0] == ELSEWHERE => {
                    return Ok(Ended::Elsewhere("sees other files than this command does"));
                }
                Ok(1) if code[0] == APART => {
                    return Ok(Ended::Elsewhere("stands elsewhere in the network (--bootstrap, --local, --port, --relay, --no-lan)"));
                }
                Ok(1) if code[0] == FULL => return Err(full()),
                Ok(1) => return Ok(Ended::With(code[0])),
                // Nobody is left to do it, and the user wants it no more.
                _ if asked => return Ok(Ended::With(request.exit_when_asked() as u8)),
                _ if !accepted || request.repeatable() => return Ok(Ended::Again),
                _ if request.only_prints() && !begun => return Ok(Ended::Again),
                _ => return Err(left_alone()),
            },
            pump = ended(&mut pumped) => {
                match pump {
                    Ok(pipe) => {
                        // Before the pipe ends, so that its end is understood.
                        let _ = stream.write_all(&[END]).await;
                        drop(pipe);
                    }
                    Err(error) => {
                        let _ = stream.write_all(&[CANCEL]).await;
                        return Err(Failure::new(Exit::Failed, format_args!("standard input: {error}")));
                    }
                }
                continue;
            }
            () = &mut patience, if !accepted || asked && !told => {
                if !accepted && !asked {
                    return Err(silent(store));
                }
                if !accepted {
                    // It begins nothing for one who hung up before it took notice.
                    return Ok(Ended::With(request.exit_when_asked() as u8));
                }
                told = true;
                let text = format!(
                    "process {pid}, which works on the store, has not ended this command yet: a second signal does not \
                     wait for it"
                );
                complain("note", text);
                continue;
            }
            _ = signals.next() => {}
        }
        if asked {
            // The second signal does not wait for the owner.
            return Ok(Ended::With(request.exit_when_asked() as u8));
        }
        asked = true;
        let limit = if accepted { LAST_PATIENCE } else { LAST_WAIT };
        patience.as_mut().reset(tokio::time::Instant::now() + limit);
        let _ = stream.write_all(&[CANCEL]).await;
    }
}

/// Asks an owner that listens; what is to be pumped into its standard input if the command reads that. None if it went
/// away first.
///
/// # Errors
/// It takes no more commands, or does not know what a hello is.
async fn hand_over(
    owner: &mut tokio::net::UnixStream,
    request: &Request,
    pid: i32,
) -> Result<Option<Option<PipeWriter>>> {
    // One that has gone may have said why: that can be read still.
    let _ = greet(owner).await;
    let mut said = [0];
    match owner.read(&mut said).await {
        Ok(1) => {}
        _ => return Ok(None),
    }
    match said[0] {
        LISTENS => Ok(ask(owner, request).await.ok()),
        FULL => Err(full()),
        _ => Err(other_version(pid)),
    }
}

fn other_version(pid: i32) -> Failure {
    let text = format!(
        "the store is in use by process {pid} of another version of hdrive: end it, or use the same version"
    );
    Failure::new(Exit::Store, text)
}

fn full() -> Failure {
    let text = "as many commands work on this store as its process takes at once: try again when one has ended \
                (`hdrive status` shows what runs)";
    Failure::new(Exit::Failed, text)
}

/// The owner ended in the middle of a command that cannot simply be run again.
fn left_alone() -> Failure {
    let text = "the process that worked on the store ended in the middle of this command: see what was done \
                (`hdrive ls`), and run it again";
    Failure::new(Exit::Failed, text)
}

/// The owner goes on, and has no answer to one command.
pub fn hangs_up(pid: i32) -> Failure {
    let text = format!(
        "process {pid}, which works on the store, begins this command and does not end it: see what it says, or \
         end it and try again"
    );
    Failure::new(Exit::Store, text)
}
