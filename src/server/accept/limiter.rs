//! The turns in which handshakes are computed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::server::meters::Meters;

/// A handshake computes for longer than most requests, and whoever has been let in would wait for
/// all of those that have come. So only some compute, and between two turns of these everything else
/// that is ready has its own.
#[derive(Debug)]
pub(in crate::server) struct HandshakeLimiter {
    at_once: Semaphore,
    meters: Arc<Meters>,
}

impl HandshakeLimiter {
    pub(in crate::server) fn new(at_once: usize, meters: Arc<Meters>) -> Self {
        Self { at_once: Semaphore::new(at_once), meters }
    }

    /// Polls a future to its end, each time only in its turn, and calls `polled` after each.
    pub(in crate::server) async fn take<F: Future + Unpin>(
        &self,
        mut future: F,
        mut polled: impl FnMut(),
    ) -> F::Output {
        loop {
            {
                let _turn = match self.at_once.try_acquire() {
                    Ok(turn) => Ok(turn),
                    Err(_) => {
                        self.meters.handshake_delayed();
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
            // The future has this task's waker: the next time the task is polled, it may go on.
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

    /// In which order handshakes (`h`) and a request (`r`) that came after them are polled.
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
                limiter.take(compute, || {}).await;
            });
        }
        let request = Arc::clone(&seen);
        tasks.spawn(async move { request.lock().unwrap().push('r') });
        tasks.join_all().await;
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test]
    async fn a_request_waits_for_none_of_the_handshakes_that_have_come_before_it() {
        assert_eq!(order(2).await, "rhhhhhhhh");
    }
}
