//! Locks that outlive a panic.
//!
//! A thread that panics while it holds a lock poisons it. Here the state behind a lock is whole at every point where
//! a panic can leave it, and a mount or a store must not go down with one request: the lock is taken all the same.

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError,
};

pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// None while somebody has it.
pub fn try_lock<T: ?Sized>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lock on nothing, whose guard any thread may give back, and which borrows nothing. Whoever asks first has it first:
/// who gives it back to those who wait, and asks again, comes after them.
#[derive(Default)]
pub struct Baton {
    turns: Mutex<Turns>,
    free: Condvar,
}

#[derive(Default)]
struct Turns {
    /// So many have asked.
    asked: u64,
    /// So many have given it back.
    had: u64,
}

/// The baton is taken; given back when dropped.
pub struct Taken(Arc<Baton>);

impl Baton {
    /// Waits until nobody has it who asked before.
    pub fn take(self: &Arc<Self>) -> Taken {
        let mut turns = lock(&self.turns);
        let turn = turns.asked;
        turns.asked += 1;
        let turns = self.free.wait_while(turns, |turns| turns.had < turn);
        drop(turns.unwrap_or_else(PoisonError::into_inner));
        Taken(Arc::clone(self))
    }

    /// Whether somebody waits for whoever has it.
    pub fn is_wanted(&self) -> bool {
        let turns = lock(&self.turns);
        turns.asked - turns.had > 1
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        lock(&self.0.turns).had += 1;
        self.0.free.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn who_gives_a_baton_back_comes_after_those_who_wait() {
        let baton = Arc::new(Baton::default());
        let (told, order) = channel();
        let first = baton.take();
        assert!(!baton.is_wanted());
        let mut threads = Vec::new();
        for n in 0..3 {
            let (baton, told) = (baton.clone(), told.clone());
            let before = lock(&baton.turns).asked;
            let waits = baton.clone();
            threads.push(std::thread::spawn(move || {
                let _taken = baton.take();
                told.send(n).unwrap();
            }));
            while lock(&waits.turns).asked == before {
                std::thread::yield_now();
            }
        }
        assert!(baton.is_wanted());
        drop(first);
        let again = baton.take();
        told.send(9).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2, 9]);
        drop(again);
        assert!(!baton.is_wanted());
    }
}
