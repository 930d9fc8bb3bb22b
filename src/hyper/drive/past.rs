//! Versions of a drive by time.
//!
//! A version has no time of its own. What is known are the times of the files that were put, where their writer told
//! them; a version is as old as the newest file that was put until then.

use super::names::{self, Name};
use super::{Drive, Entry, Result};
use crate::hyper::bee::Change;

/// What the times of a drive say of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The last version that holds nothing newer.
    Version(u64),
    /// All of the drive is newer; its oldest file is of this time, in milliseconds since 1970.
    Later(i64),
    /// Its writer told no times.
    Timeless,
}

impl Drive {
    /// The last version, as old as `time` or older, in milliseconds since 1970. Reads the log up to there.
    ///
    /// # Errors
    /// Those of fetching blocks.
    pub async fn version_of_time(&self, time: i64) -> Result<Past> {
        let mut history = self.bee.history(1);
        let mut timed = false;
        while let Some(change) = history.next().await? {
            let Change::Put(entry) = change else { continue };
            let Some(Ok(Name::Leaf(_))) = names::parse(&entry.key) else { continue };
            let Some(at) = Entry::decode(&entry.value).ok().and_then(|entry| entry.mtime_ms())
            else {
                continue;
            };
            if at > time {
                // The version of this number ends before this block.
                let version = self.bee.whole_version(entry.seq).await?;
                return Ok(if version > 1 { Past::Version(version) } else { Past::Later(at) });
            }
            timed = true;
        }
        Ok(if timed { Past::Version(self.version()) } else { Past::Timeless })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::bee::run;
    use crate::hyper::drive::tests::{fixture, path};

    #[test]
    fn a_version_is_found_by_the_times_of_what_was_put() {
        let f = fixture(None);
        let put = |files: &[(&str, Option<i64>)]| {
            let mut batch = f.drive.batch().unwrap();
            for (name, time) in files {
                let mut entry = Entry::default();
                time.map(|time| entry.set_mtime_ms(time));
                batch.put(&path(name), &entry).unwrap();
            }
            batch.flush().unwrap()
        };
        let at = |time| run(f.drive.version_of_time(time)).unwrap();
        put(&[("/timeless", None)]);
        assert_eq!(at(i64::MAX), Past::Timeless);
        let first = put(&[("/a", Some(1000)), ("/b", Some(500))]);
        // A batch is one version, whatever is older in it.
        let second = put(&[("/a", Some(1500)), ("/c", Some(3000)), ("/d", Some(20))]);
        assert_eq!(at(3000), Past::Version(second));
        assert_eq!(at(2999), Past::Version(first));
        assert_eq!(at(1000), Past::Version(first));
        assert_eq!(at(999), Past::Version(2), "what has no time is as old as what was before it");
        let g = fixture(None);
        let mut entry = Entry::default();
        entry.set_mtime_ms(70);
        g.drive.put(&path("/x"), &b""[..], entry).unwrap();
        assert_eq!(run(g.drive.version_of_time(69)).unwrap(), Past::Later(70));
    }
}
