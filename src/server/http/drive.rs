//! Drives a connection until it closes: by itself, at a deadline, or by a signal.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::server::http::close_reason::CloseReason;
use crate::server::http::deadlines::{Deadlines, Due, NEVER};
use crate::server::http::state::ConnectionState;
use crate::server::phase::Phase;
use crate::server::tls_stream::CLOSE_TIMEOUT;

/// A connection that finishes its requests in flight when it is asked to close.
pub(super) trait GracefulConnection: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

/// How the driving of a connection ended.
#[derive(Debug)]
pub(super) enum Driven {
    Closed(CloseReason),
    /// hyper returned an error.
    Failed(hyper::Error),
    /// It has been idle, and may give up its HTTP buffers.
    Parked,
}

/// What a connection that is driven waits for.
enum Event {
    Signal(Signal),
    Alarm,
    /// A new deadline precedes the alarm.
    Earlier(Instant),
    Ended(hyper::Result<()>),
}

/// What the server signals to a connection.
enum Signal {
    CertificateGone,
    Phase(Phase),
    ServerGone,
    LastResponse,
    /// A response waits until all that is queued is written.
    Flush,
}

/// What follows from an event.
enum Step {
    WaitUntil(Instant),
    Wait,
    CloseGracefully(CloseReason),
    End(Driven),
}

/// Drives a connection to its end. It begins to close when its certificate is removed, a deadline
/// passes or the server stops, and has a limited time for the requests in flight then.
pub(super) async fn drive<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    phase: &mut watch::Receiver<Phase>,
    deadlines: Deadlines<'_>,
) -> Driven {
    let mut alarm = pin!(sleep_until(deadlines.next().0));
    // Set once it closes gracefully: from then on it only finishes its requests in flight.
    let mut closing = None;
    loop {
        let event =
            next_event(connection.as_mut(), alarm.as_mut(), phase, &deadlines, closing).await;
        match step(event, closing, &deadlines) {
            Step::Wait => {}
            Step::WaitUntil(at) => alarm.as_mut().reset(at),
            Step::End(driven) => return driven,
            Step::CloseGracefully(reason) => {
                if closing.is_none() || reason.is_certificate() {
                    connection.as_mut().graceful_shutdown();
                    closing = Some(reason);
                    alarm.as_mut().reset(Instant::now() + grace(reason, &deadlines));
                }
            }
        }
    }
}

/// How long a connection that closes gracefully may take.
fn grace(reason: CloseReason, deadlines: &Deadlines<'_>) -> Duration {
    match reason {
        // It has nothing to finish, and a head that never completes must not keep it open.
        CloseReason::Idle => CLOSE_TIMEOUT,
        // The stop sequence aborts it with all others.
        CloseReason::Stopped => NEVER,
        _ => deadlines.limits.drain_timeout,
    }
}

async fn next_event<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    mut alarm: Pin<&mut Sleep>,
    phase: &mut watch::Receiver<Phase>,
    deadlines: &Deadlines<'_>,
    closing: Option<CloseReason>,
) -> Event {
    let state = deadlines.state;
    let knows_of_certificate = closing.is_some_and(CloseReason::is_certificate);
    // Unconstrained, as is the alarm: a poll without budget left would register nothing.
    let mut signal = pin!(unconstrained(next_signal(state, phase, knows_of_certificate)));
    let mut is_registered = false;
    poll_fn(|context| {
        // A signal to close comes before a request that is ready. Once registered, the signals and
        // the alarm are polled only if one is pending, which is cheaper.
        let is_first = !std::mem::replace(&mut is_registered, true);
        if (is_first || !state.has_no_pending_signal(knows_of_certificate))
            && let Poll::Ready(signal) = signal.as_mut().poll(context)
        {
            return Poll::Ready(Event::Signal(signal));
        }
        if (is_first || alarm.is_elapsed())
            && pin!(unconstrained(alarm.as_mut())).poll(context).is_ready()
        {
            return Poll::Ready(Event::Alarm);
        }
        let requested = state.flushes.requested();
        if let Poll::Ready(result) = connection.as_mut().poll(context) {
            return Poll::Ready(Event::Ended(result));
        }
        // A connection writes all that it can with each poll.
        if !state.progress.has_unwritten() {
            state.flushes.complete(requested);
        }
        match deadlines.next_for_progress() {
            Some((at, _)) if at < alarm.deadline() && closing.is_none() => {
                Poll::Ready(Event::Earlier(at))
            }
            _ => Poll::Pending,
        }
    })
    .await
}

async fn next_signal(
    state: &ConnectionState,
    phase: &mut watch::Receiver<Phase>,
    knows_of_certificate: bool,
) -> Signal {
    tokio::select! {
        biased;
        () = state.admission.removed(), if !knows_of_certificate => Signal::CertificateGone,
        changed = phase.changed() => match changed {
            Ok(()) => Signal::Phase(*phase.borrow_and_update()),
            Err(_) => Signal::ServerGone,
        },
        () = state.wake.notified() => match state.has_last_response() {
            true => Signal::LastResponse,
            false => Signal::Flush,
        },
    }
}

fn step(event: Event, closing: Option<CloseReason>, deadlines: &Deadlines<'_>) -> Step {
    match event {
        Event::Signal(signal) => step_for_signal(&signal, deadlines),
        Event::Earlier(at) => Step::WaitUntil(at),
        Event::Ended(Ok(())) => Step::End(Driven::Closed(closing.unwrap_or(CloseReason::Done))),
        Event::Ended(Err(error)) => Step::End(Driven::Failed(error)),
        Event::Alarm => match closing {
            Some(reason) => {
                if deadlines.state.is_busy() {
                    deadlines.state.meters.connection_aborted();
                }
                Step::End(Driven::Closed(reason))
            }
            None => step_for_deadline(deadlines),
        },
    }
}

fn step_for_signal(signal: &Signal, deadlines: &Deadlines<'_>) -> Step {
    let state = deadlines.state;
    match signal {
        Signal::CertificateGone if state.admission.time_left().is_none() => {
            Step::CloseGracefully(CloseReason::CertificateExpired)
        }
        Signal::CertificateGone => Step::CloseGracefully(CloseReason::CertificateRemoved),
        Signal::LastResponse => Step::CloseGracefully(CloseReason::Stopped),
        Signal::Flush | Signal::Phase(Phase::Serving | Phase::LameDuck) => Step::Wait,
        // It connected before the drain, so its first request gets a response.
        Signal::Phase(Phase::Draining) if state.awaits_first_request() => {
            Step::WaitUntil(deadlines.next().0)
        }
        Signal::Phase(Phase::Draining) => Step::CloseGracefully(CloseReason::Stopped),
        Signal::Phase(Phase::Aborting) => {
            state.meters.connection_aborted();
            Step::End(Driven::Closed(CloseReason::Stopped))
        }
        Signal::ServerGone => Step::End(Driven::Closed(CloseReason::Stopped)),
    }
}

fn step_for_deadline(deadlines: &Deadlines<'_>) -> Step {
    match deadlines.next() {
        (at, _) if at > Instant::now() => Step::WaitUntil(at),
        (_, Due::Park) => Step::End(Driven::Parked),
        (_, Due::Close(reason @ (CloseReason::SlowHead | CloseReason::SlowReader))) => {
            Step::End(Driven::Closed(reason))
        }
        (_, Due::Close(reason)) => Step::CloseGracefully(reason),
    }
}
