//! Hyperblobs.
