//! A wish to stop, seen between steps: what runs is finished, nothing new is begun.

use tokio::sync::watch;

/// Asks everything that holds the other half to stop.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Wish>);

/// Tells whether somebody wishes to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Wish>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    GoOn,
    Stop,
}

/// Makes both halves.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Wish::GoOn);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks to stop. Asking twice is asking once.
    pub fn stop(&self) {
        self.0.send_replace(Wish::Stop);
    }
}

impl Shutdown {
    /// One that never comes, for work that is short.
    pub fn never() -> Self {
        channel().1
    }

    /// Whether stopping was asked for.
    pub fn requested(&self) -> bool {
        *self.0.borrow() == Wish::Stop
    }

    /// Waits until stopping is asked for: for ever, if nobody can any more.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|wish| *wish == Wish::Stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
