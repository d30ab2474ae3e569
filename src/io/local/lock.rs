//! Taking turns at something that takes long.

use std::cell::Cell;

use super::Notify;

/// One holder at a time; others wait.
#[derive(Debug, Default)]
pub struct Lock {
    is_held: Cell<bool>,
    freed: Notify,
}

/// Frees the lock when it is dropped.
#[must_use = "it is held as long as this lives"]
#[derive(Debug)]
pub struct Held<'a>(&'a Lock);

impl Lock {
    pub async fn lock(&self) -> Held<'_> {
        while self.is_held.replace(true) {
            self.freed.notified().await;
        }
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.is_held.set(false);
        self.0.freed.notify_one();
    }
}
