//! PEM (RFC 7468) read strictly: every block is either understood or a named error.
//!
//! `rustls-pemfile` decodes the blocks. It ignores a block that is cut short and merged with the
//! next, a byte order mark, text on a marker's line, and blocks of another kind. This module finds
//! them first: a trust file that holds less than its owner thinks is an outage at the next
//! rotation.

mod error;
mod foreign;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pemfile::Item;

use foreign::{BEGIN, DASHES, END};

pub use error::{PemError, PemErrorKind};

/// The end of the label of every private key.
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// The decoded blocks of a PEM text with the lines they begin on, and every error.
#[derive(Default)]
struct Pem {
    blocks: Vec<(usize, Block)>,
    errors: Vec<PemError>,
    /// The first line of a block that is commented out.
    commented_out: Option<usize>,
}

enum Block {
    Certificate(CertificateDer<'static>),
    Key(PrivateKeyDer<'static>),
    EncryptedKey,
    Other(String),
}

impl Block {
    fn label(&self) -> &str {
        match self {
            Self::Certificate(_) => "CERTIFICATE",
            Self::Key(PrivateKeyDer::Pkcs1(_)) => "RSA PRIVATE KEY",
            Self::Key(PrivateKeyDer::Sec1(_)) => "EC PRIVATE KEY",
            Self::Key(_) => "PRIVATE KEY",
            Self::EncryptedKey => "ENCRYPTED PRIVATE KEY",
            Self::Other(label) => label,
        }
    }
}

/// The certificates of a file that holds nothing but certificates, each with the line it begins on,
/// and all errors of the file.
pub fn certificates(bytes: &[u8]) -> (Vec<(usize, CertificateDer<'static>)>, Vec<PemError>) {
    let mut pem = Pem::read(bytes);
    let mut found = Vec::new();
    for (line, block) in std::mem::take(&mut pem.blocks) {
        match block {
            Block::Certificate(der) => found.push((line, der)),
            Block::Key(_) | Block::EncryptedKey => {
                pem.errors.push(PemError::at(line, PemErrorKind::PrivateKey));
            }
            Block::Other(label) if label.ends_with(PRIVATE_KEY) => {
                pem.errors.push(PemError::at(line, PemErrorKind::PrivateKey));
            }
            Block::Other(label) => {
                pem.errors.push(PemError::at(line, PemErrorKind::NotACertificate(label)));
            }
        }
    }
    if found.is_empty() && pem.errors.is_empty() {
        pem.errors.push(pem.nothing(PemErrorKind::NoCertificate));
    }
    pem.errors.sort_by_key(|error| error.line);
    (found, pem.errors)
}

/// The certificate chain of a server's PEM file, which may hold its key beside it.
///
/// # Errors
/// All errors of the file.
pub fn chain(bytes: &[u8]) -> Result<Vec<(usize, CertificateDer<'static>)>, Vec<PemError>> {
    let mut pem = Pem::read(bytes);
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for (line, block) in std::mem::take(&mut pem.blocks) {
        match block {
            Block::Certificate(der) => found.push((line, der)),
            block => others.push((line, block)),
        }
    }
    // Keys and parameters may stand beside the chain; a certificate of another kind is a part of it.
    let is_wrong = |label: &str| {
        found.is_empty() || label.ends_with("CERTIFICATE") || matches!(label, "PKCS7" | "CMS")
    };
    for (line, block) in others.iter().filter(|(_, block)| is_wrong(block.label())) {
        let kind = PemErrorKind::NotACertificate(block.label().to_owned());
        pem.errors.push(PemError::at(*line, kind));
    }
    if found.is_empty() && pem.errors.is_empty() {
        pem.errors.push(pem.nothing(PemErrorKind::NoCertificate));
    }
    pem.errors.sort_by_key(|error| error.line);
    if pem.errors.is_empty() { Ok(found) } else { Err(pem.errors) }
}

/// The one private key of a server's PEM file, which may hold its certificates beside it.
///
/// # Errors
/// All errors of the file.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Vec<PemError>> {
    let mut pem = Pem::read(bytes);
    let (mut key, mut others) = (None, Vec::new());
    for (line, block) in std::mem::take(&mut pem.blocks) {
        match block {
            Block::Key(_) if key.is_some() => {
                pem.errors.push(PemError::at(line, PemErrorKind::SeveralPrivateKeys));
            }
            Block::Key(found) => key = Some(found),
            Block::EncryptedKey => pem.errors.push(PemError::at(line, PemErrorKind::EncryptedKey)),
            other => others.push((line, other)),
        }
    }
    if key.is_none() && pem.errors.is_empty() {
        let is_key = |(_, block): &&(usize, Block)| block.label().ends_with(PRIVATE_KEY);
        let other = others.iter().find(is_key).or(others.first());
        pem.errors.push(match other.map(|(line, block)| (*line, block.label())) {
            Some((line, "DSA PRIVATE KEY")) => {
                PemError::at(line, PemErrorKind::UnsupportedKey("DSA".to_owned()))
            }
            Some((line, label)) => {
                PemError::at(line, PemErrorKind::NotAPrivateKey(label.to_owned()))
            }
            None => pem.nothing(PemErrorKind::NoPrivateKey),
        });
    }
    match key {
        Some(key) if pem.errors.is_empty() => Ok(key),
        _ => Err(pem.errors),
    }
}

/// True for a file that holds a private key which is not encrypted, whether or not it loads.
pub(crate) fn holds_private_key(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut labels = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(DASHES));
    labels.any(|(label, _)| label.ends_with(PRIVATE_KEY) && !label.starts_with("ENCRYPTED"))
        || matches!(foreign::format(bytes, &text), Some(PemErrorKind::DerKey))
}

/// A block whose end has not been seen yet.
struct Open<'a> {
    line: usize,
    label: &'a str,
    body: Vec<(usize, &'a str)>,
}

impl Pem {
    fn read(bytes: &[u8]) -> Self {
        let mut pem = Self::default();
        let text = String::from_utf8_lossy(bytes);
        match foreign::format(bytes, &text) {
            Some(kind) => pem.errors.push(PemError::whole(kind)),
            None => pem.read_text(&text),
        }
        pem
    }

    fn read_text(&mut self, text: &str) {
        let mut open: Option<Open<'_>> = None;
        // The end marker of a block whose first marker is unreadable is no second error.
        let mut skips_end = false;
        for (number, line) in lines(text) {
            if !line.contains(BEGIN) && !line.contains(END) {
                if let Some(open) = &mut open {
                    open.body.push((number, line));
                }
                continue;
            }
            if let Some(markers) = markers(line) {
                for marker in markers {
                    skips_end &= matches!(marker, Marker::End(_));
                    if !std::mem::take(&mut skips_end) {
                        self.read_marker(number, marker, &mut open);
                    }
                }
                continue;
            }
            if foreign::is_comment(line) {
                self.commented_out = self.commented_out.or(Some(number));
                continue;
            }
            if skips_end && line.contains(END) && !line.contains(BEGIN) {
                skips_end = false;
                continue;
            }
            // The text may end within a marker.
            let cut = open.take().map_or(number, |open| open.line);
            let error = match foreign::marker_line(line) {
                Some(kind) => PemError::at(number, kind),
                None if is_whole(line) => PemError::at(number, PemErrorKind::OneLine),
                None => PemError::at(cut, PemErrorKind::Truncated),
            };
            self.errors.push(error);
            skips_end = line.contains(BEGIN) && !line.contains(END);
        }
        if let Some(open) = open {
            self.errors.push(PemError::at(open.line, PemErrorKind::Truncated));
        }
    }

    fn read_marker<'a>(&mut self, number: usize, marker: Marker<'a>, open: &mut Option<Open<'a>>) {
        match (marker, open.take()) {
            (Marker::Begin(label), before) => {
                if let Some(before) = before {
                    self.errors.push(PemError::at(before.line, PemErrorKind::Truncated));
                }
                *open = Some(Open { line: number, label, body: Vec::new() });
            }
            (Marker::End(label), Some(block)) if block.label == label => match decode(&block) {
                Ok(decoded) => self.blocks.push((block.line, decoded)),
                Err(error) => self.errors.push(error),
            },
            (Marker::End(_), _) => {
                self.errors.push(PemError::at(number, PemErrorKind::StrayEnd));
            }
        }
    }

    /// The error of a file without the wanted block.
    fn nothing(&self, kind: PemErrorKind) -> PemError {
        match self.commented_out {
            Some(line) => PemError::at(line, PemErrorKind::CommentedOut),
            None => PemError::whole(kind),
        }
    }
}

/// The lines of a text, counted from 1, ended by LF, CR LF or CR, without surrounding white space
/// and byte order marks.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let blank = |c: char| c.is_ascii_whitespace() || c == '\u{feff}';
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
        .enumerate()
        .map(move |(index, line)| (index + 1, line.trim_matches(blank)))
}

enum Marker<'a> {
    Begin(&'a str),
    End(&'a str),
}

/// The markers of a line that consists of nothing else. A line has several where files without a
/// final newline were concatenated; the output of the API has none.
fn markers(line: &str) -> Option<Vec<Marker<'_>>> {
    let mut markers = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (begins, after) = match rest.strip_prefix(BEGIN) {
            Some(after) => (true, after),
            None => (false, rest.strip_prefix(END)?),
        };
        let (label, after) = after.split_once(DASHES)?;
        markers.push(if begins { Marker::Begin(label) } else { Marker::End(label) });
        rest = after.trim_start();
    }
    Some(markers)
}

/// True if the first marker of a line has its closing dashes.
fn is_whole(line: &str) -> bool {
    let after = [BEGIN, END].iter().filter_map(|marker| line.split_once(marker)).next();
    after.is_some_and(|(_, after)| after.contains(DASHES))
}

fn decode(block: &Open<'_>) -> Result<Block, PemError> {
    // RFC 1421 headers: seen only on keys that openssl encrypted in the old form.
    if block.label == "ENCRYPTED PRIVATE KEY"
        || block.body.iter().any(|(_, line)| line.starts_with("Proc-Type:"))
    {
        return Ok(Block::EncryptedKey);
    }
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    if let Some((line, _)) = block.body.iter().find(|(_, text)| !text.chars().all(base64)) {
        return Err(PemError::at(*line, PemErrorKind::BadBase64));
    }
    let body = block.body.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n");
    let label = block.label;
    let whole = format!("{BEGIN}{label}{DASHES}\n{body}\n{END}{label}{DASHES}\n");
    match rustls_pemfile::read_one_from_slice(whole.as_bytes()) {
        Ok(Some((Item::X509Certificate(der), _))) => match foreign::der(&der) {
            Some(PemErrorKind::Pkcs7Der) => Err(PemError::at(block.line, PemErrorKind::Pkcs7Block)),
            _ => Ok(Block::Certificate(der)),
        },
        Ok(Some((Item::Pkcs1Key(key), _))) => Ok(Block::Key(key.into())),
        Ok(Some((Item::Pkcs8Key(key), _))) => Ok(Block::Key(key.into())),
        Ok(Some((Item::Sec1Key(key), _))) => Ok(Block::Key(key.into())),
        Ok(_) => Ok(Block::Other(label.to_owned())),
        Err(_) => Err(PemError::at(block.line, PemErrorKind::BadBase64)),
    }
}
