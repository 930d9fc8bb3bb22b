//! `hdrive cat`: the content of a file on stdout.

use super::args::Cat;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::get::from_blob;
use super::target::{behind_links, content, encryption_key, open_target};

/// Bytes of one read, and how far ahead of it blocks are fetched.
const STEP: u64 = 1 << 20;
const AHEAD: u64 = 16 << 20;

pub async fn run(args: Cat, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    let (target, drive, index) = open_target(&cx, &args.target, secret).await?;
    let path = behind_links(&index, &target.path);
    let reader = content(&drive, &index, &path)?;
    let size = reader.learn_size().await.map_err(|e| from_blob(&target.path, e))?;
    let mut offset = 0;
    let mut fetched = 0;
    while offset < size {
        if fetched < size && offset + AHEAD / 2 >= fetched {
            reader.prefetch(fetched, AHEAD);
            fetched += AHEAD;
        }
        let pieces =
            reader.read(offset, STEP as usize).await.map_err(|e| from_blob(&target.path, e))?;
        let length = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        for piece in pieces {
            // A pipe may be full for as long as its reader likes, and a file lie on a disk that hangs.
            match cx.out.write(piece).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(error).or_fail(Exit::Failed, "standard output"),
            }
        }
        if length == 0 {
            let text = format!("{} ends at {offset} of {size} bytes", target.path);
            return Err(Failure::new(Exit::Failed, text));
        }
        offset += length;
    }
    Ok(())
}
