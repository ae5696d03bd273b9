//! HTTP: signature, faults, the call itself, its response.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::account::Account;
use super::faults::Fault;
use super::routes::{self, Route};
use super::signature;
use super::{Call, Shared, State, stages};

/// How much of the account's past is kept.
const PAST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cut")
    }
}

impl std::error::Error for Cut {}

type Body = BoxBody<Bytes, Cut>;

/// A status and what is in the body.
pub struct Reply {
    pub status: u16,
    pub body: Option<Value>,
    pub kind: Option<&'static str>,
    pub retry_after: Option<u64>,
}

impl Reply {
    pub fn of(status: u16, body: Value) -> Self {
        Self { status, body: Some(body), kind: None, retry_after: None }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, body: None, kind: None, retry_after: None }
    }

    pub fn error(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        let body = Some(json!({ "message": message.into() }));
        Self { status, body, kind: Some(kind), retry_after: None }
    }
}

pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| respond(Arc::clone(&shared), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let is_json = parts.headers.get("accept").is_some_and(|accept| accept == "application/json");
    let route = Route::of(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
    let action = route.action();
    let number = {
        let mut state = shared.lock();
        let path = parts.uri.to_string();
        state.calls.push(Call {
            action,
            path,
            status: None,
            at: Instant::now(),
            is_performed: false,
        });
        state.calls.len()
    };
    shared.changed.notify_all();
    wait_while_held(&shared, number, false).await;
    if let Err((kind, message)) = signature::verify(&parts, &body) {
        return Ok(finish(&shared, number, Reply::error(403, kind, message), is_json));
    }
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let fault = shared.lock().faults.take(action);
    match fault {
        Some(Fault::Throttled(after)) => {
            let mut reply = Reply::error(429, "TooManyRequestsException", "Too Many Requests");
            reply.retry_after = after;
            return Ok(finish(&shared, number, reply, is_json));
        }
        Some(Fault::Error(status, after)) => {
            let mut reply = Reply::error(status, "ServiceUnavailableException", "try again");
            reply.retry_after = after;
            return Ok(finish(&shared, number, reply, is_json));
        }
        Some(Fault::CutBefore) => return Err(Cut),
        _ => {}
    }
    let reply = match &route {
        Route::TestInvokeMethod { .. } if !shared.lock().settings.denied.contains(action) => {
            stages::test_invoke(&shared, &route, &body).await
        }
        _ => perform(&shared, &route, &body, fault),
    };
    if let Some(call) = shared.lock().calls.get_mut(number - 1) {
        call.is_performed = true;
    }
    shared.changed.notify_all();
    wait_while_held(&shared, number, true).await;
    match fault {
        Some(Fault::CutAfter) => Err(Cut),
        Some(Fault::CutBody) => Ok(half(finish(&shared, number, reply, is_json)).await),
        _ => Ok(finish(&shared, number, reply, is_json)),
    }
}

fn perform(shared: &Shared, route: &Route, body: &Value, fault: Option<Fault>) -> Reply {
    let mut state = shared.lock();
    let state = &mut *state;
    if state.settings.denied.contains(route.action()) {
        return routes::denied(route);
    }
    if route.method() == Method::GET {
        let account = seen(state);
        return routes::read(&account, &state.settings, route, fault);
    }
    let before = state.account.clone();
    let reply = routes::write(state, route, body, fault);
    state.past.retain(|(until, _)| until.elapsed() < PAST);
    state.past.push((Instant::now(), before));
    reply
}

/// The account, or for every other read the account as it was.
fn seen(state: &mut State) -> Account {
    state.reads += 1;
    let lag = state.settings.read_lag;
    let mut past = state.past.iter();
    // Each entry was true until then.
    match past.find(|(until, _)| until.elapsed() < lag) {
        Some((_, account)) if state.reads % 2 == 1 => account.clone(),
        _ => state.account.clone(),
    }
}

async fn wait_while_held(shared: &Shared, number: usize, after: bool) {
    loop {
        let released = shared.released.notified();
        tokio::pin!(released);
        released.as_mut().enable();
        let hold = shared.lock().hold;
        let is_held = hold.is_some_and(|hold| match hold.after {
            // The call itself is held after its effect, those that follow before theirs.
            true => number > hold.call || number == hold.call && after,
            false => number >= hold.call,
        });
        if !is_held {
            return;
        }
        released.await;
    }
}

fn finish(shared: &Shared, number: usize, reply: Reply, is_json: bool) -> Response<Body> {
    if let Some(call) = shared.lock().calls.get_mut(number - 1) {
        call.status = Some(reply.status);
        call.is_performed = true;
    }
    shared.changed.notify_all();
    let mut response = Response::builder().status(StatusCode::from_u16(reply.status).expect("one"));
    if let Some(kind) = reply.kind {
        response = response.header("x-amzn-errortype", kind);
    }
    if let Some(after) = reply.retry_after {
        response = response.header("retry-after", after);
    }
    let body = reply.body.map(|body| if is_json { body } else { hal(body) });
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let response = response.header("content-type", "application/json");
    response.body(Full::new(body).map_err(|error: Infallible| match error {}).boxed()).expect("one")
}

/// Without `Accept: application/json` the service responds in HAL.
fn hal(mut body: Value) -> Value {
    if let Some(items) = body.as_object_mut().and_then(|body| body.remove("item")) {
        body["_embedded"] = json!({ "item": items });
    }
    body
}

async fn half(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let whole = body.collect().await.expect("whole").to_bytes();
    parts.headers.insert("content-length", whole.len().max(1).into());
    let (mut sender, body) = Channel::<Bytes, Cut>::new(1);
    tokio::spawn(async move {
        let _ = sender.send_data(whole.slice(..whole.len() / 2)).await;
        sender.abort(Cut);
    });
    Response::from_parts(parts, body.boxed())
}
