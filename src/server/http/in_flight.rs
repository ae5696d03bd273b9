//! One request in flight.

use std::sync::Arc;

use bytes::Buf;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use tokio::time::Instant;

use crate::server::http::access_log::RequestRecord;
use crate::server::http::state::ConnectionState;
use crate::server::phase::Phase;

/// A request that is in flight until its response is sent or given up, which is when it is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    state: Arc<ConnectionState>,
    record: RequestRecord,
    /// True if the response has data and waits for the client to read.
    has_data: bool,
    is_h2: bool,
}

impl InFlight {
    pub(super) fn new<B>(state: &Arc<ConnectionState>, request: &mut Request<B>) -> Self {
        let in_flight = state.request_began();
        let is_h2 = request.version() == Version::HTTP_2;
        if in_flight == state.max_streams && is_h2 {
            state.meters.streams_exhausted();
        }
        let record = RequestRecord::new(request);
        Self { state: Arc::clone(state), record, has_data: false, is_h2 }
    }

    pub(super) fn is_h2(&self) -> bool {
        self.is_h2
    }

    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }

    /// Records the response. True if no later request of the connection gets one.
    pub(super) fn respond<B: Body>(&mut self, response: &Response<B>) -> bool {
        self.state.meters.responded(response.status());
        self.record.response_began(response.status(), !response.body().is_end_stream());
        self.set_has_data(true);
        let phase = *self.state.phase.borrow();
        if phase != Phase::Serving {
            self.state.signal_last_response();
        }
        phase != Phase::Serving || !self.state.admission.is_accepted()
    }

    /// Records a frame of the response's body; `None` is its end.
    pub(super) fn frame_sent<D: Buf, E>(
        &mut self,
        frame: Option<&Result<Frame<D>, E>>,
        is_last: bool,
    ) {
        let data = frame.and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.record.body_sent(data.map_or(0, Buf::remaining), is_last);
    }

    /// Records whether the response has data for the client to read.
    pub(super) fn set_has_data(&mut self, has_data: bool) {
        match (std::mem::replace(&mut self.has_data, has_data), has_data) {
            (false, true) => self.state.progress.data_offered(),
            (true, false) => self.state.progress.data_exhausted(),
            (true, true) => self.state.progress.data_taken(),
            (false, false) => {}
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        self.record.finish(&self.state, now);
        self.set_has_data(false);
        self.state.request_ended(now);
    }
}
