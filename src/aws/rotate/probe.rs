//! `--probe 'GET /resource'`: one real request through the gateway with the new certificate.

use std::str::FromStr;
use std::time::Duration;

use super::Stop;
use super::display::Step;
use super::engine::{Engine, RotationCertificate};
use crate::aws::control_plane::Resource;

/// How long the replicas may take to count the probe's handshake.
const COUNTED: Duration = Duration::from_secs(10);

/// A method and the path that is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    method: String,
    path: String,
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = || "write it as 'GET /resource'".to_owned();
        let (method, path) = text.split_once(' ').ok_or_else(example)?;
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        match is_method && path.starts_with('/') && !path.contains(char::is_whitespace) {
            true => Ok(Self { method: method.to_owned(), path: path.to_owned() }),
            false => Err(example()),
        }
    }
}

impl Probe {
    /// The resource of the path that has the method, or ANY.
    fn find<'a>(&self, resources: &'a [Resource]) -> Option<&'a Resource> {
        let path = self.path.split('?').next().unwrap_or_default();
        let has_method = |resource: &&Resource| {
            resource.methods.iter().any(|method| *method == self.method || method == "ANY")
        };
        let mut fitting: Vec<_> =
            resources.iter().filter(has_method).filter(|one| fits(&one.path, path)).collect();
        // The literal path comes before one with parameters, as API Gateway routes.
        fitting.sort_by_key(|one| one.path.matches('{').count());
        fitting.first().copied()
    }
}

/// True if a resource's path, whose segments may be `{name}` or `{name+}`, is that of a request.
fn fits(resource: &str, path: &str) -> bool {
    let mut segments = path.trim_end_matches('/').split('/');
    for part in resource.trim_end_matches('/').split('/') {
        if part.starts_with('{') && part.ends_with("+}") {
            return segments.next().is_some();
        }
        let is_parameter = part.starts_with('{') && part.ends_with('}');
        match segments.next() {
            Some(segment) if segment == part || is_parameter && !segment.is_empty() => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

impl Engine<'_> {
    /// Has each API call the application once with the new certificate.
    pub(super) async fn try_it(&self, probe: &Probe, to: &RotationCertificate) -> Result<(), Stop> {
        self.display
            .start(Step::Try, &format!("calls {} {} with {}", probe.method, probe.path, to.id));
        for api in self.apis() {
            let resources = self.plane.list_resources(&api).await?;
            let Some(resource) = probe.find(&resources) else {
                return Err(Stop::new(
                    format!("API {api} has no {} {} (--probe)", probe.method, probe.path),
                    "name a method and a path of the API, without the stage",
                ));
            };
            let method = match resource.methods.contains(&probe.method) {
                true => probe.method.as_str(),
                false => "ANY",
            };
            let before = self.scan().await;
            let handshakes = |instance: &str| {
                let known = before.replicas.iter().find(|replica| replica.instance == instance);
                let counters = known.and_then(|replica| replica.trusted.get(&to.fingerprint_text));
                counters.map_or(0, |counters| counters.handshakes)
            };
            let tried =
                self.plane.test_invoke(&api, &resource.id, method, &probe.path, &to.id).await?;
            let counted = self
                .scan_until(COUNTED.min(self.options.timeout), |scan| {
                    let is_counted = scan.replicas.iter().any(|replica| {
                        let counters = replica.trusted.get(&to.fingerprint_text);
                        counters.is_some_and(|own| own.handshakes > handshakes(&replica.instance))
                    });
                    if is_counted {
                        Ok(())
                    } else {
                        Err("waits for a handshake with it".to_owned())
                    }
                })
                .await;
            if counted.is_err() {
                let log = tried.log.lines().last().unwrap_or_default();
                return Err(Stop::new(
                    format!(
                        "no replica counted a handshake with {} after {} {} of API {api}, which \
                         responded {}: {log}",
                        to.id, probe.method, probe.path, tried.status
                    ),
                    "see that the integration calls these servers, and that --replicas names them all",
                ));
            }
        }
        self.display.finish(&format!("a replica accepted {}", to.id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_is_a_method_and_a_path() {
        let probe: Probe = "GET /health?deep=1".parse().unwrap();
        assert_eq!((probe.method.as_str(), probe.path.as_str()), ("GET", "/health?deep=1"));
        for bad in ["/health", "GET", "get /health", "GET health", "GET /a b", ""] {
            assert!(bad.parse::<Probe>().is_err(), "{bad}");
        }
    }

    #[test]
    fn path_is_matched_as_the_gateway_routes() {
        for (resource, path, expected) in [
            ("/", "/", true),
            ("/health", "/health", true),
            ("/health", "/healthy", false),
            ("/a/{id}", "/a/7", true),
            ("/a/{id}", "/a", false),
            ("/{proxy+}", "/a/b/c", true),
            ("/a", "/a/b", false),
        ] {
            assert_eq!(fits(resource, path), expected, "{resource} {path}");
        }
    }
}
