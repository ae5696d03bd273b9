//! A limit on the handshakes that compute at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::server::meters::Meters;

/// Lets a few handshakes compute at once, and everything else that is ready run between them: a
/// handshake computes for longer than most requests, which would wait behind a flood of them.
#[derive(Debug)]
pub(in crate::server) struct HandshakeLimiter {
    at_once: Semaphore,
    /// Where those that wait are counted.
    meters: Option<Arc<Meters>>,
}

impl HandshakeLimiter {
    pub(in crate::server) fn new(at_once: usize, meters: Arc<Meters>) -> Self {
        Self { at_once: Semaphore::new(at_once), meters: Some(meters) }
    }

    /// A limit on handshakes that are no client's.
    #[cfg(feature = "acme")]
    pub(super) fn uncounted(at_once: usize) -> Self {
        Self { at_once: Semaphore::new(at_once), meters: None }
    }

    /// Drives a future to completion. Each poll holds a permit, and `polled` is called after it.
    pub(in crate::server) async fn run<F: Future + Unpin>(
        &self,
        mut future: F,
        mut polled: impl FnMut(),
    ) -> F::Output {
        loop {
            {
                let _permit = match self.at_once.try_acquire() {
                    Ok(permit) => Ok(permit),
                    Err(_) => {
                        self.meters.iter().for_each(|meters| meters.handshake_delayed());
                        // It fails only if the semaphore is closed, which this one never is.
                        self.at_once.acquire().await
                    }
                };
                yield_now().await;
                let poll =
                    poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context))).await;
                polled();
                if let Poll::Ready(output) = poll {
                    return output;
                }
            }
            // The future holds this task's waker: the next poll of the task means progress.
            let mut is_woken = false;
            poll_fn(|_| match std::mem::replace(&mut is_woken, true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// The order in which handshakes (`h`) and a request (`r`) that came after them are polled.
    async fn order(at_once: usize) -> String {
        let limiter = Arc::new(HandshakeLimiter::new(at_once, Arc::new(Meters::new())));
        let seen = Arc::new(Mutex::new(String::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (limiter, seen) = (Arc::clone(&limiter), Arc::clone(&seen));
            tasks.spawn(async move {
                let compute = poll_fn(|_| {
                    seen.lock().unwrap().push('h');
                    Poll::Ready(())
                });
                limiter.run(compute, || {}).await;
            });
        }
        let request = Arc::clone(&seen);
        tasks.spawn(async move { request.lock().unwrap().push('r') });
        tasks.join_all().await;
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test]
    async fn request_does_not_wait_for_the_handshakes_before_it() {
        assert_eq!(order(2).await, "rhhhhhhhh");
    }
}
