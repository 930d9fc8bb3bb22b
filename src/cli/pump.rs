//! Standard input of a face on its way to the owner of the store: only a process in the terminal's foreground may read.

use std::io::PipeWriter;
use tokio::sync::oneshot;

/// Pumps this process's standard input into a pipe and gives the pipe back at the end, still open.
///
/// # Errors
/// The system gives no thread.
pub fn pump(
    mut into: PipeWriter,
) -> std::io::Result<oneshot::Receiver<std::io::Result<PipeWriter>>> {
    let (done, pumped) = oneshot::channel();
    crate::threads::spawn("hdrive-input", move || {
        let copied = std::io::copy(&mut std::io::stdin().lock(), &mut into);
        let _ = match copied {
            // Whoever reads does not want any more, and says why itself.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            copied => done.send(copied.map(|_| into)).map_err(drop),
        };
    })?;
    Ok(pumped)
}

/// Waits for the end of a pump, once; for ever where there is none.
pub async fn ended(
    pumped: &mut Option<oneshot::Receiver<std::io::Result<PipeWriter>>>,
) -> std::io::Result<PipeWriter> {
    if let Some(pump) = pumped.as_mut() {
        let done = pump.await;
        *pumped = None;
        if let Ok(done) = done {
            return done;
        }
    }
    std::future::pending().await
}
