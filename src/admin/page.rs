//! The status page: one file, nothing from outside, and a policy that runs nothing but its own
//! script.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page with its style and its script in it.
pub(super) static PAGE: LazyLock<String> =
    LazyLock::new(|| HTML.replace("/* page.css */", STYLE).replace("/* page.js */", SCRIPT));

/// What a browser may do with it. Style and script are named by what they are, so that neither
/// counts where something else has got into the page.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        base64(digest(&SHA256, SCRIPT.as_bytes()).as_ref()),
        base64(digest(&SHA256, STYLE.as_bytes()).as_ref()),
    )
});

/// Base64 with padding (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let octet = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for at in 0..4 {
            let index = bits >> (18 - 6 * at) & 63;
            let digit = usize::try_from(index).ok().and_then(|index| ALPHABET.get(index));
            text.push(match digit {
                Some(digit) if at <= three.len() => char::from(*digit),
                _ => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_one_of_its_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody_for_anything() {
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
