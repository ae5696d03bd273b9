//! PEM (RFC 7468) read strictly: every block is either understood or a named fault.
//!
//! `rustls-pemfile` decodes the blocks. What it passes over in silence (a block cut short and
//! merged with the next, a byte order mark, text on a marker's line, blocks of another kind) is
//! found here first, because a trust file that is quietly shorter than its owner thinks is an
//! outage at the next rotation.

use std::fmt;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pemfile::Item;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// What is wrong with a file's content, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemError {
    /// The line, counted from 1; `None` where the fault is the whole file's.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: PemErrorKind,
}

impl PemError {
    pub(super) fn at(line: usize, problem: PemErrorKind) -> Self {
        Self { line: Some(line), problem }
    }

    pub(crate) fn whole(problem: PemErrorKind) -> Self {
        Self { line: None, problem }
    }
}

/// The closed list of what can be wrong with a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemErrorKind {
    /// Larger than a trust file may be.
    TooLarge,
    /// Nothing in it is a certificate.
    NoCertificate,
    /// Nothing in it is a private key.
    NoPrivateKey,
    /// More than one private key.
    SeveralPrivateKeys,
    /// A private key where only certificates belong.
    PrivateKey,
    /// The key is encrypted.
    EncryptedKey,
    /// UTF-16 text.
    Utf16,
    /// DER, not PEM.
    Der,
    /// The line breaks of the PEM text are gone.
    OneLine,
    /// The line breaks are there as a backslash and an `n`.
    LiteralNewlines,
    /// A block that begins and does not end.
    Cut,
    /// An end marker without its beginning, or of another kind.
    StrayEnd,
    /// Not base64.
    BadBase64,
    /// A block that is not a certificate: its label.
    NotACertificate(String),
    /// Bytes after the end of the certificate's DER.
    TrailingBytes,
    /// Not a certificate that can be parsed: the parser's words.
    BadDer(String),
    /// An RSA key of fewer than 2048 bits: how many.
    ShortKey(usize),
    /// A key of a kind that no TLS signature can be verified with.
    UnverifiableKey,
    /// A trust anchor that is not a CA certificate.
    NotACa,
    /// A CA certificate that no chain can be verified up to.
    UnusableCa,
}

impl PemErrorKind {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooLarge => "split it into files of at most 1 MiB",
            Self::NoCertificate => {
                "put the PEM text of a certificate in it, from -----BEGIN CERTIFICATE----- on, \
                 or move the file out of the way"
            }
            Self::NoPrivateKey => {
                "give the PEM file of an unencrypted private key (PKCS#8, PKCS#1 or SEC1)"
            }
            Self::SeveralPrivateKeys => "leave only the key of the certificate in it",
            Self::PrivateKey => {
                "a private key does not belong among the certificates to trust: take it out, and \
                 make a new pair if others could read it"
            }
            Self::EncryptedKey => {
                "decrypt it for the server, which cannot ask for a passphrase: \
                 openssl pkey -in ENCRYPTED -out KEY"
            }
            Self::Utf16 => "save it as plain ASCII or UTF-8 text",
            Self::Der => "convert it to PEM: openssl x509 -inform der -in FILE -out FILE.pem",
            Self::OneLine | Self::LiteralNewlines => {
                "write it as the AWS CLI prints text: aws apigateway get-client-certificate \
                 --client-certificate-id ID --query pemEncodedCertificate --output text > FILE"
            }
            Self::Cut => "the file was cut short: copy it again, whole",
            Self::StrayEnd => {
                "the beginning of the block is missing or of another kind: copy it again, whole"
            }
            Self::BadBase64 => "the text was damaged on its way: copy it again",
            Self::NotACertificate(label) if label.ends_with(" CERTIFICATE") => {
                "write it as a plain one: openssl x509 -in FILE -out FILE.pem"
            }
            Self::NotACertificate(_) => "leave only -----BEGIN CERTIFICATE----- blocks in it",
            Self::TrailingBytes | Self::BadDer(_) | Self::UnusableCa => {
                "get the certificate again from its source"
            }
            Self::ShortKey(_) => "use a certificate with an RSA key of 2048 bits or more",
            Self::UnverifiableKey => {
                "use RSA (2048 to 8192 bits), ECDSA P-256, P-384 or P-521, or Ed25519"
            }
            Self::NotACa => {
                "give the certificate of the CA; to let in exactly this certificate, pin it \
                 with --trust"
            }
        }
    }
}

impl fmt::Display for PemErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the file is larger than 1 MiB"),
            Self::NoCertificate => write!(f, "there is no certificate in it"),
            Self::NoPrivateKey => write!(f, "there is no private key in it"),
            Self::SeveralPrivateKeys => write!(f, "there is more than one private key in it"),
            Self::PrivateKey => write!(f, "there is a private key in it"),
            Self::EncryptedKey => write!(f, "the private key is encrypted"),
            Self::Utf16 => write!(f, "it is UTF-16 text"),
            Self::Der => write!(f, "it is DER, not PEM"),
            Self::OneLine => write!(f, "the PEM text has lost its line breaks"),
            Self::LiteralNewlines => {
                write!(f, "the PEM text has a literal \\n in place of its line breaks")
            }
            Self::Cut => write!(f, "the block that begins here has no end"),
            Self::StrayEnd => write!(f, "an end marker without its beginning"),
            Self::BadBase64 => write!(f, "bad base64"),
            Self::NotACertificate(label) => write!(f, "a block of kind {label:?}"),
            Self::TrailingBytes => write!(f, "bytes after the end of the certificate's DER"),
            Self::BadDer(detail) => write!(f, "the certificate cannot be parsed: {detail}"),
            Self::ShortKey(bits) => write!(f, "the RSA key is too short: {bits} bits"),
            Self::UnverifiableKey => write!(f, "the key is of a kind that cannot be verified"),
            Self::UnusableCa => write!(f, "no chain can be verified up to this CA certificate"),
            Self::NotACa => write!(f, "not a CA certificate (no basicConstraints CA:TRUE)"),
        }
    }
}

/// The decoded blocks of a PEM text with the lines they begin on, and every fault.
struct Pem {
    blocks: Vec<(usize, Block)>,
    faults: Vec<PemError>,
}

enum Block {
    Certificate(CertificateDer<'static>),
    Key(PrivateKeyDer<'static>),
    EncryptedKey,
    Other(String),
}

/// The certificates of a file of which nothing but certificates is expected, each with the line it
/// begins on, and all that is wrong with the file.
pub fn certificates(bytes: &[u8]) -> (Vec<(usize, CertificateDer<'static>)>, Vec<PemError>) {
    let Pem { blocks, mut faults } = read(bytes);
    let mut found = Vec::new();
    for (line, block) in blocks {
        match block {
            Block::Certificate(der) => found.push((line, der)),
            Block::Key(_) | Block::EncryptedKey => {
                faults.push(PemError::at(line, PemErrorKind::PrivateKey));
            }
            Block::Other(label) => {
                faults.push(PemError::at(line, PemErrorKind::NotACertificate(label)))
            }
        }
    }
    if found.is_empty() && faults.is_empty() {
        faults.push(PemError::whole(PemErrorKind::NoCertificate));
    }
    faults.sort_by_key(|fault| fault.line);
    (found, faults)
}

/// The certificate chain of a server's PEM file, which may hold its key beside it.
///
/// # Errors
/// Every fault of the file.
pub fn chain(bytes: &[u8]) -> Result<Vec<(usize, CertificateDer<'static>)>, Vec<PemError>> {
    let Pem { blocks, mut faults } = read(bytes);
    let found: Vec<_> = blocks
        .into_iter()
        .filter_map(|(line, block)| match block {
            Block::Certificate(der) => Some((line, der)),
            _ => None,
        })
        .collect();
    if found.is_empty() && faults.is_empty() {
        faults.push(PemError::whole(PemErrorKind::NoCertificate));
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// The one private key of a server's PEM file, which may hold its certificates beside it.
///
/// # Errors
/// Every fault of the file.
pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Vec<PemError>> {
    let Pem { blocks, mut faults } = read(bytes);
    let mut key = None;
    for (line, block) in blocks {
        match block {
            Block::Key(_) if key.is_some() => {
                faults.push(PemError::at(line, PemErrorKind::SeveralPrivateKeys));
            }
            Block::Key(found) => key = Some(found),
            Block::EncryptedKey => faults.push(PemError::at(line, PemErrorKind::EncryptedKey)),
            Block::Certificate(_) | Block::Other(_) => {}
        }
    }
    match key {
        Some(key) if faults.is_empty() => Ok(key),
        None if faults.is_empty() => Err(vec![PemError::whole(PemErrorKind::NoPrivateKey)]),
        _ => Err(faults),
    }
}

/// A block whose end has not been seen yet.
struct Open<'a> {
    line: usize,
    label: &'a str,
    body: Vec<(usize, &'a str)>,
}

fn read(bytes: &[u8]) -> Pem {
    let mut pem = Pem { blocks: Vec::new(), faults: Vec::new() };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        pem.faults.push(PemError::whole(PemErrorKind::Utf16));
        return pem;
    }
    let text = String::from_utf8_lossy(bytes);
    // A certificate's DER begins with a SEQUENCE whose length takes two octets or more.
    if matches!(bytes, [0x30, 0x81..=0x84, ..]) && !text.contains(BEGIN) {
        pem.faults.push(PemError::whole(PemErrorKind::Der));
        return pem;
    }
    let mut open: Option<Open<'_>> = None;
    for (number, line) in lines(&text) {
        if !line.contains(BEGIN) && !line.contains(END) {
            if let Some(open) = &mut open {
                open.body.push((number, line));
            }
            continue;
        }
        let Some(markers) = markers(line) else {
            pem.faults.push(match (line.contains("\\n"), &open) {
                (true, _) => PemError::at(number, PemErrorKind::LiteralNewlines),
                (false, _) if is_whole(line) => PemError::at(number, PemErrorKind::OneLine),
                // The text ends within a marker.
                (false, Some(open)) => PemError::at(open.line, PemErrorKind::Cut),
                (false, None) => PemError::at(number, PemErrorKind::Cut),
            });
            open = None;
            continue;
        };
        for marker in markers {
            match (marker, open.take()) {
                (Marker::Begin(label), before) => {
                    if let Some(before) = before {
                        pem.faults.push(PemError::at(before.line, PemErrorKind::Cut));
                    }
                    open = Some(Open { line: number, label, body: Vec::new() });
                }
                (Marker::End(label), Some(block)) if block.label == label => match decode(&block) {
                    Ok(decoded) => pem.blocks.push((block.line, decoded)),
                    Err(fault) => pem.faults.push(fault),
                },
                (Marker::End(_), _) => {
                    pem.faults.push(PemError::at(number, PemErrorKind::StrayEnd))
                }
            }
        }
    }
    if let Some(open) = open {
        pem.faults.push(PemError::at(open.line, PemErrorKind::Cut));
    }
    pem
}

/// The lines of a text, counted from 1, ended by LF, CR LF or CR, without the white space and the
/// byte order marks around them.
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

/// The markers of a line that consists of nothing else. Several stand on one where files without
/// a final newline were put together, as the API's output is.
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

/// Whether the first marker of a line has its closing dashes.
fn is_whole(line: &str) -> bool {
    let after = [BEGIN, END].iter().filter_map(|marker| line.split_once(marker)).next();
    after.is_some_and(|(_, after)| after.contains(DASHES))
}

fn decode(block: &Open<'_>) -> Result<Block, PemError> {
    // RFC 1421 headers: only ever seen on keys that openssl encrypted the old way.
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
        Ok(Some((Item::X509Certificate(der), _))) => Ok(Block::Certificate(der)),
        Ok(Some((Item::Pkcs1Key(key), _))) => Ok(Block::Key(key.into())),
        Ok(Some((Item::Pkcs8Key(key), _))) => Ok(Block::Key(key.into())),
        Ok(Some((Item::Sec1Key(key), _))) => Ok(Block::Key(key.into())),
        Ok(_) => Ok(Block::Other(label.to_owned())),
        Err(_) => Err(PemError::at(block.line, PemErrorKind::BadBase64)),
    }
}
