//! A binary without the feature `acme`.

use crate::support::{Portcullis, run};

#[test]
fn binary_without_acme_names_where_to_get_it_and_exits_2() {
    let flags = ["serve", "--trust=x", "--acme-domain=api.example", "--acme-cache=y"];
    let finished = run(Portcullis::command().args(flags).arg("--acme-agree-terms"), "");
    assert_eq!(finished.code, Some(2), "{finished}");
    for words in ["built without ACME", "package or an image", "--features acme"] {
        assert!(finished.stderr.contains(words), "{finished}");
    }
}
