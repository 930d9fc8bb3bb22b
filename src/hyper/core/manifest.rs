//! Manifests: who may sign a core, and the key that follows from it.

/// Who signs a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {}
