//! A source that has only what is here: nobody is asked and nothing is waited for.

use super::{BlockSource, BoxFuture, SourceError};
use bytes::Bytes;
use std::future::ready;

/// See the module. A block that is not here is [`SourceError::TimedOut`] at once.
pub struct Local<S>(pub S);

impl<S: BlockSource> BlockSource for Local<S> {
    fn length(&self) -> u64 {
        self.0.length()
    }

    fn fork(&self) -> u64 {
        self.0.fork()
    }

    fn byte_length(&self) -> u64 {
        self.0.byte_length()
    }

    fn has(&self, index: u64) -> bool {
        self.0.has(index)
    }

    fn try_block(&self, index: u64) -> Result<Option<Bytes>, SourceError> {
        self.0.try_block(index)
    }

    fn block(&self, index: u64) -> BoxFuture<'static, Result<Bytes, SourceError>> {
        let found = self.0.try_block(index);
        Box::pin(ready(found.and_then(|block| block.ok_or(SourceError::TimedOut(index)))))
    }

    fn prefetch(&self, _indexes: &[u64]) {}

    fn seek(&self, byte: u64) -> BoxFuture<'static, Result<(u64, u64), SourceError>> {
        Box::pin(ready(Err(SourceError::TimedOut(byte))))
    }

    fn byte_offset(&self, index: u64) -> Result<Option<u64>, SourceError> {
        self.0.byte_offset(index)
    }
}
