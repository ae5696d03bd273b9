//! The status page: one file that loads nothing else, and a policy that runs only its own script.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page with its style and its script in it.
pub(super) static PAGE: LazyLock<String> =
    LazyLock::new(|| HTML.replace("/* page.css */", STYLE).replace("/* page.js */", SCRIPT));

/// What a browser may do with the page. Style and script are allowed by their hash, so that injected
/// ones do not run.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        BASE64.encode(digest(&SHA256, SCRIPT.as_bytes())),
        BASE64.encode(digest(&SHA256, STYLE.as_bytes())),
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_complete_and_loads_nothing_external() {
        assert!(PAGE.contains(STYLE) && PAGE.contains(SCRIPT));
        for outside in ["http://", "https://", "<link", "src=", "@import", "url(", "innerHTML"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }

    #[test]
    fn no_attribute_of_the_page_is_style_or_script() {
        for inline in [" style=", " onclick=", " onload="] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
    }
}
