//! Locks that outlive a panic.
//!
//! A thread that panics while it holds a lock poisons it. Here the state behind a lock is whole at every point where
//! a panic can leave it, and a mount or a store must not go down with one request: the lock is taken all the same.

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError,
};

/// None if somebody has it.
pub fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lock on nothing, whose guard any thread may give back, and which borrows nothing.
#[derive(Default)]
pub struct Baton {
    taken: Mutex<bool>,
    free: Condvar,
}

/// The baton is taken; given back when dropped.
pub struct Taken(Arc<Baton>);

impl Baton {
    /// Waits until nobody has it.
    pub fn take(self: &Arc<Self>) -> Taken {
        let taken = self.free.wait_while(lock(&self.taken), |taken| *taken);
        *taken.unwrap_or_else(PoisonError::into_inner) = true;
        Taken(Arc::clone(self))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *lock(&self.0.taken) = false;
        self.0.free.notify_one();
    }
}
