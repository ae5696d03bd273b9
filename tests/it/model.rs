//! Random sequences of changes to a trust directory, with a model of which clients are accepted after
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::support::pki::{Credential, PKI};
use crate::support::tls::{Client, Connector, Site, put};
use proptest::prelude::*;

static CREDENTIALS: LazyLock<[&Credential; 4]> =
    LazyLock::new(|| [&PKI.a, &PKI.b, &PKI.stranger, &PKI.other_subject]);

const NAMES: [&str; 4] = ["one.pem", "two.crt", "three.cer", "four.pem"];

/// Which of the credentials a file holds.
type Trusted = BTreeSet<usize>;

/// What is in a file of the directory.
#[derive(Clone, Debug)]
enum Content {
    Good(Trusted),
    /// These, and something that cannot be read.
    Broken(Trusted),
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        name: usize,
        content: Content,
        is_in_place: bool,
    },
    Remove(usize),
    Rename(usize, usize),
    RemoveDirectory,
    MakeDirectory,
    /// Another directory is renamed into its place, with one file.
    ReplaceDirectory(usize, Content),
}

fn content() -> impl Strategy<Value = Content> {
    let held = proptest::collection::btree_set(0..4_usize, 1..3);
    (held, proptest::bool::weighted(0.25)).prop_map(|(held, is_broken)| match is_broken {
        true => Content::Broken(held),
        false => Content::Good(held),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        6 => (name.clone(), content(), any::<bool>())
            .prop_map(|(name, content, is_in_place)| Step::Write { name, content, is_in_place }),
        3 => name.clone().prop_map(Step::Remove),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::RemoveDirectory),
        2 => Just(Step::MakeDirectory),
        1 => (name, content()).prop_map(|(name, content)| Step::ReplaceDirectory(name, content)),
    ]
}

fn text(content: &Content) -> String {
    let (held, is_broken) = match content {
        Content::Good(held) => (held, false),
        Content::Broken(held) => (held, true),
    };
    let mut text: String = held.iter().map(|index| CREDENTIALS[*index].cert.as_str()).collect();
    if is_broken {
        text.push_str("-----BEGIN CERTIFICATE-----\nMIIC");
    }
    text
}

/// Which clients should be accepted.
#[derive(Debug, Default)]
struct Model {
    /// `None` where there is no directory.
    disk: Option<BTreeMap<usize, Content>>,
    /// Whether the directory is another than the active one.
    is_new: bool,
    active: BTreeMap<usize, Trusted>,
}

impl Model {
    fn look(&mut self) {
        let Some(disk) = &self.disk else { return };
        let has_something_good = disk.values().any(|content| matches!(content, Content::Good(_)));
        let loses =
            self.active.iter().any(|(name, held)| !held.is_empty() && !disk.contains_key(name));
        if self.is_new && loses && !has_something_good {
            return;
        }
        let active = disk.iter().map(|(name, content)| match content {
            Content::Good(held) => (*name, held.clone()),
            Content::Broken(_) => (*name, self.active.get(name).cloned().unwrap_or_default()),
        });
        self.active = active.collect();
        self.is_new = false;
    }

    /// Does the step to the disk and to the model.
    fn take(&mut self, step: &Step, directory: &Path) {
        let path = |name: usize| directory.join(NAMES[name]);
        match (step, &mut self.disk) {
            (Step::Write { name, content, is_in_place }, Some(disk)) => {
                match is_in_place {
                    true => fs::write(path(*name), text(content)).unwrap(),
                    false => put(directory, NAMES[*name], &text(content)),
                }
                disk.insert(*name, content.clone());
            }
            (Step::Remove(name), Some(disk)) if disk.contains_key(name) => {
                disk.remove(name);
                fs::remove_file(path(*name)).unwrap();
            }
            (Step::Rename(from, to), Some(disk)) if from != to && disk.contains_key(from) => {
                fs::rename(path(*from), path(*to)).unwrap();
                let content = disk.remove(from).unwrap();
                disk.insert(*to, content);
            }
            (Step::RemoveDirectory, Some(_)) => {
                // At once: a scan while a directory is emptied file by file sees it empty.
                fs::rename(directory, directory.with_extension("old")).unwrap();
                fs::remove_dir_all(directory.with_extension("old")).unwrap();
                self.disk = None;
            }
            (Step::MakeDirectory, None) => {
                fs::create_dir(directory).unwrap();
                (self.disk, self.is_new) = (Some(BTreeMap::new()), true);
            }
            (Step::ReplaceDirectory(name, content), Some(_)) => {
                let other = directory.with_extension("other");
                fs::create_dir(&other).unwrap();
                put(&other, NAMES[*name], &text(content));
                fs::rename(directory, directory.with_extension("old")).unwrap();
                fs::rename(other, directory).unwrap();
                fs::remove_dir_all(directory.with_extension("old")).unwrap();
                self.disk = Some(BTreeMap::from([(*name, content.clone())]));
                self.is_new = true;
            }
            _ => {}
        }
    }
}

async fn follow(steps: Vec<Step>) {
    let site = Site::new();
    let first = Content::Good(Trusted::from([0, 1]));
    site.trust(NAMES[0], &text(&first));
    let server = site.serve();
    let mut model = Model { disk: Some(BTreeMap::from([(0, first)])), ..Model::default() };
    model.look();
    let connectors = CREDENTIALS.map(|credential| {
        let client = Client::from_pem(&credential.cert, &credential.key);
        Connector::new(Some(&client), &rustls::version::TLS13)
    });
    for (number, step) in steps.iter().enumerate() {
        model.take(step, &site.path("trust"));
        model.look();
        // A scan that starts by itself meanwhile is one more, of the same disk.
        server.handle.reload().await;
        for (index, connector) in connectors.iter().enumerate() {
            let expected = model.active.values().any(|held| held.contains(&index));
            let result = connector.ask(server.address).await;
            let name = CREDENTIALS[index].name;
            assert_eq!(
                result.is_ok(),
                expected,
                "{name} after step {number} of {steps:#?}: {model:#?}"
            );
        }
    }
    server.handle.abort();
    server.running.stopped().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn accepted_clients_match_the_model_after_each_step(steps in proptest::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(follow(steps));
    }
}
