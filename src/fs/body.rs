//! What all open files of one inode read.
//!
//! A content is one file at one revision. The body around it is what open files hold, so that the content can be
//! exchanged under all of them at once: somebody reads a file, somebody else opens it to write, and from then on
//! both have the one that is written.

use super::volume::FileContent;
use crate::lock::{read, write};
use std::sync::{Arc, RwLock};

/// See the module.
pub struct Body {
    content: RwLock<Arc<dyn FileContent>>,
}

impl Body {
    pub fn new(content: Arc<dyn FileContent>) -> Self {
        Self { content: RwLock::new(content) }
    }

    /// The content as it is now; a request asks once and goes on with that one.
    pub fn content(&self) -> Arc<dyn FileContent> {
        read(&self.content).clone()
    }

    /// From now on all read `content`; requests under way end with the one that was.
    pub fn exchange(&self, content: Arc<dyn FileContent>) {
        *write(&self.content) = content;
    }
}
