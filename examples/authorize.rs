//! A tower service behind the gate, with a closure that authorises each request by its client's
//! certificate, as the middleware client-certificate-auth does for Express.
//!
//!     cargo run --example authorize -- 127.0.0.1:8443

use std::convert::Infallible;
use std::error::Error;

use http::{Request, Response};
use hyper::body::Incoming;
use portcullis::service::Authorize;
use portcullis::{ClientIdentity, Config};
use tower::{ServiceBuilder, service_fn};

async fn hello(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let client = request.extensions().get::<ClientIdentity>().map(ClientIdentity::serial);
    Ok(Response::new(format!("hello {}\n", client.unwrap_or_default())))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".to_owned());
    let bound = Config::new("certs-example/server-cert.pem", "certs-example/server-key.pem")
        .trust("certs-example/trust")
        .listen(listen.parse()?)
        .bind()?;
    println!("listening on {}", bound.local_addrs()[0]);
    // Every trusted client may read. Only the one of this file may write; others get a 403.
    let authorize = Authorize::new(|client, request| {
        request.method.is_safe() || client.file().ends_with("client-1.pem")
    });
    let service = ServiceBuilder::new().layer(authorize).service(service_fn(hello));
    bound.serve(service).with_graceful_shutdown(tokio::signal::ctrl_c()).await;
    Ok(())
}
