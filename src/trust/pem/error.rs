//! The errors of PEM files, with their remedies.

use std::fmt;

/// An error in a file's content, with its line and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemError {
    /// The line, counted from 1; `None` where the error concerns the whole file.
    pub line: Option<usize>,
    /// The kind of the error.
    pub kind: PemErrorKind,
}

impl PemError {
    pub(crate) fn at(line: usize, kind: PemErrorKind) -> Self {
        Self { line: Some(line), kind }
    }

    pub(crate) fn whole(kind: PemErrorKind) -> Self {
        Self { line: None, kind }
    }
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}; {}", self.kind, self.kind.remedy())
    }
}

impl std::error::Error for PemError {}

/// The closed list of the errors of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemErrorKind {
    /// It is larger than a trust file may be.
    TooLarge,
    /// It holds no certificate.
    NoCertificate,
    /// It holds no private key.
    NoPrivateKey,
    /// It holds more than one private key.
    SeveralPrivateKeys,
    /// It holds a private key where only certificates belong.
    PrivateKey,
    /// The key is encrypted.
    EncryptedKey,
    /// It is UTF-16 text.
    Utf16,
    /// It is DER, not PEM.
    Der,
    /// It is a private key in DER.
    DerKey,
    /// It is an encrypted private key in DER.
    EncryptedDerKey,
    /// It is DER of another kind: which.
    OtherDer(&'static str),
    /// It is a PKCS#12 archive.
    Pkcs12,
    /// It is a PKCS#7 bundle in DER.
    Pkcs7Der,
    /// A certificate's block holds a PKCS#7 bundle, as Windows CAs write it.
    Pkcs7Block,
    /// It is a Java keystore.
    JavaKeystore,
    /// It is the JSON output of the AWS CLI.
    AwsJson,
    /// The PEM text has lost its line breaks.
    OneLine,
    /// The line breaks are a backslash and an `n`.
    LiteralNewlines,
    /// The PEM text stands in quotes.
    Quoted,
    /// A marker stands behind a YAML key or list dash.
    Yaml,
    /// Other text stands on the line of a marker, as in a quoted mail.
    TextAroundMarker,
    /// Everything in it is commented out.
    CommentedOut,
    /// A block begins and does not end.
    Truncated,
    /// An end marker has no beginning, or one of another kind.
    StrayEnd,
    /// The text is not base64.
    BadBase64,
    /// A block is not a certificate: its label.
    NotACertificate(String),
    /// There is no private key, but a block of another kind: its label.
    NotAPrivateKey(String),
    /// Bytes follow the end of the certificate's DER.
    TrailingBytes,
    /// The certificate cannot be parsed: the parser's message.
    BadDer(String),
    /// The RSA key has fewer than 2048 bits: how many.
    ShortKey(usize),
    /// The RSA key has more than 8192 bits, unusual parameters or an unusual exponent.
    OddRsaKey,
    /// The RSA private key has more than two primes.
    MultiPrimeKey,
    /// The key is of a supported kind, and its content is damaged.
    DamagedKey,
    /// The RSA key is restricted to PSS (id-RSASSA-PSS).
    PssKey,
    /// The elliptic curve is spelled out instead of named.
    ExplicitCurve,
    /// The key is of a kind that makes no TLS signature: which.
    UnsupportedKey(String),
    /// A trust anchor is not a CA certificate.
    NotACa,
    /// No chain can be verified up to the CA certificate.
    UnusableCa,
}

const GIVE_KEY: &str = "give the PEM file of an unencrypted private key (PKCS#8, PKCS#1 or SEC1)";

impl PemErrorKind {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::TooLarge => "split it into files of at most 1 MiB",
            Self::NoCertificate => {
                "put the PEM text of a certificate into it, from -----BEGIN CERTIFICATE----- on, \
                 or move the file out of the way"
            }
            Self::NoPrivateKey => GIVE_KEY,
            Self::SeveralPrivateKeys => "leave only the key of the certificate in it",
            Self::PrivateKey | Self::DerKey | Self::EncryptedDerKey => {
                "a private key does not belong among trusted certificates: take it out, and \
                 make a new pair if others could read it"
            }
            Self::EncryptedKey => {
                "decrypt it for the server, which cannot ask for a passphrase: \
                 openssl pkey -in ENCRYPTED -out KEY"
            }
            Self::CommentedOut => {
                "remove the comment signs to trust it, or move the file out of the way"
            }
            Self::Truncated => "the file was cut short: copy it again, whole",
            Self::StrayEnd => {
                "the beginning of the block is missing or of another kind: copy it again, whole"
            }
            Self::BadBase64 => "the text was damaged on its way: copy it again",
            Self::NotACertificate(label) => certificate_remedy(label),
            Self::Pkcs7Block => certificate_remedy("PKCS7"),
            Self::NotAPrivateKey(label) => private_key_remedy(label),
            Self::TrailingBytes | Self::BadDer(_) | Self::UnusableCa => {
                "get the certificate again from its source"
            }
            Self::NotACa => {
                "give the certificate of the CA; to accept exactly this certificate, pin it \
                 with --trust"
            }
            _ => self.format_remedy().unwrap_or_else(|| self.key_remedy()),
        }
    }

    /// The remedy for a file or a line that is not PEM.
    fn format_remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::Utf16 => {
                "save it as plain ASCII or UTF-8 text; PowerShell: | Out-File -Encoding ascii FILE"
            }
            Self::Der => "convert it to PEM: openssl x509 -inform der -in FILE -out FILE.pem",
            Self::OtherDer(_) => "give a certificate as PEM text",
            Self::Pkcs12 => {
                "extract the certificates as PEM: openssl pkcs12 -in FILE -nokeys -out FILE.pem"
            }
            Self::Pkcs7Der => {
                "extract the certificates as PEM: \
                 openssl pkcs7 -inform der -in FILE -print_certs -out FILE.pem"
            }
            Self::JavaKeystore => {
                "export each certificate as PEM: \
                 keytool -exportcert -rfc -keystore FILE -alias ALIAS -file FILE.pem"
            }
            Self::AwsJson => {
                "store the value alone: jq -r .pemEncodedCertificate FILE > FILE.pem, or have the \
                 AWS CLI print it with --query pemEncodedCertificate --output text"
            }
            Self::OneLine | Self::LiteralNewlines => {
                "write it as the AWS CLI prints text: aws apigateway get-client-certificate \
                 --client-certificate-id ID --query pemEncodedCertificate --output text > FILE"
            }
            Self::Quoted => {
                "remove the quotes around it, so that -----BEGIN begins a line and ----- ends one"
            }
            Self::Yaml => {
                "store the value alone, without the YAML key or dash: each marker on its own line"
            }
            Self::TextAroundMarker => {
                "remove that text from each line (a mail quotes with > ), so that -----BEGIN \
                 begins a line and ----- ends one"
            }
            _ => return None,
        })
    }

    fn key_remedy(&self) -> &'static str {
        match self {
            Self::ShortKey(_) => "use an RSA key of 2048 bits or more, or ECDSA P-256",
            Self::OddRsaKey => {
                "use an RSA key of 2048 to 8192 bits as openssl genrsa makes it, or ECDSA P-256"
            }
            Self::MultiPrimeKey => {
                "make a key with two primes, without the option -primes (openssl genrsa -out KEY \
                 2048), and have the certificate issued for it"
            }
            Self::DamagedKey => "copy it again, whole, or make a new key",
            Self::PssKey => {
                "make the key with openssl genpkey -algorithm RSA: TLS makes PSS signatures with \
                 plain RSA keys"
            }
            Self::ExplicitCurve => {
                "name the curve: openssl ec -in KEY -param_enc named_curve -out NEW, and have the \
                 certificate issued for it"
            }
            _ => "use RSA (2048 to 8192 bits), ECDSA P-256, P-384 or P-521, or Ed25519",
        }
    }
}

/// What to do about a block that is not a certificate.
fn certificate_remedy(label: &str) -> &'static str {
    match label {
        "PKCS7" | "PKCS #7 SIGNED DATA" => {
            "extract the certificates: openssl pkcs7 -in FILE -print_certs -out FILE.pem"
        }
        "CMS" => {
            "extract the certificates: \
             sed 's/ CMS-/ PKCS7-/' FILE | openssl pkcs7 -print_certs -out FILE.pem"
        }
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
            "this is a request: give the certificate that the CA has issued for it"
        }
        label if label.ends_with(" CERTIFICATE") => {
            "write it as a plain one: openssl x509 -in FILE -out FILE.pem"
        }
        label if label.ends_with("KEY") => "give the certificate that belongs to this key",
        _ => "leave only -----BEGIN CERTIFICATE----- blocks in it",
    }
}

/// What to do about a file that has this block in place of a private key.
fn private_key_remedy(label: &str) -> &'static str {
    match label {
        "OPENSSH PRIVATE KEY" => {
            "convert it in place: ssh-keygen -p -N '' -m PKCS8 -f FILE; if it stays the same \
             (Ed25519 before OpenSSH 9.6), make a new key and certificate"
        }
        label if label.ends_with("PUBLIC KEY") => {
            "give the private key that belongs to it: a public key cannot sign"
        }
        label if label.ends_with("CERTIFICATE") => {
            "give the file of the certificate's private key; --cert and --key may be swapped"
        }
        _ => GIVE_KEY,
    }
}

impl fmt::Display for PemErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = match self {
            Self::TooLarge => "the file is larger than 1 MiB",
            Self::NoCertificate => "there is no certificate in it",
            Self::NoPrivateKey => "there is no private key in it",
            Self::SeveralPrivateKeys => "there is more than one private key in it",
            Self::PrivateKey => "there is a private key in it",
            Self::EncryptedKey => "the private key is encrypted",
            Self::Utf16 => "it is UTF-16 text",
            Self::Der => "it is DER, not PEM",
            Self::DerKey => "it is a private key in DER, not PEM",
            Self::EncryptedDerKey => "it is an encrypted private key in DER, not PEM",
            Self::OtherDer(kind) => return write!(f, "it is {kind} in DER, not PEM"),
            Self::Pkcs12 => "it is a PKCS#12 archive, not PEM",
            Self::Pkcs7Der => "it is a PKCS#7 bundle in DER, not PEM",
            Self::Pkcs7Block => "the block holds a PKCS#7 bundle, not a certificate",
            Self::JavaKeystore => "it is a Java keystore, not PEM",
            Self::AwsJson => "it is the JSON output of the AWS CLI, not PEM",
            Self::OneLine => "the PEM text has lost its line breaks",
            Self::LiteralNewlines => "the PEM text has a literal \\n in place of its line breaks",
            Self::Quoted => "the PEM text is in quotes",
            Self::Yaml => "the PEM text begins behind a YAML key or dash",
            Self::TextAroundMarker => "other text stands on the line of a PEM marker",
            Self::CommentedOut => "everything in it is commented out",
            Self::Truncated => "the block that begins here has no end",
            Self::StrayEnd => "an end marker without its beginning",
            Self::BadBase64 => "bad base64",
            Self::NotACertificate(label) => return write!(f, "a block of kind {label:?}"),
            Self::NotAPrivateKey(label) => {
                return write!(f, "there is no private key in it, but a block of kind {label:?}");
            }
            Self::TrailingBytes => "bytes after the end of the certificate's DER",
            Self::BadDer(detail) => {
                return write!(f, "the certificate cannot be parsed: {detail}");
            }
            Self::ShortKey(bits) => {
                return write!(f, "the RSA key is too short: {bits} bits");
            }
            Self::OddRsaKey => "the RSA key has an unusual length or form",
            Self::MultiPrimeKey => "the RSA key has more than two primes (multi-prime)",
            Self::DamagedKey => "the key is damaged",
            Self::PssKey => "the RSA key is restricted to PSS (id-RSASSA-PSS)",
            Self::ExplicitCurve => {
                "the key has explicit curve parameters in place of the curve's name"
            }
            Self::UnsupportedKey(which) => {
                return write!(f, "the key is of a kind that TLS does not sign with: {which}");
            }
            Self::UnusableCa => "no chain can be verified up to this CA certificate",
            Self::NotACa => "not a CA certificate (no basicConstraints CA:TRUE)",
        };
        f.write_str(message)
    }
}
