//! Jitter for the intervals of `acme/` and `aws/`.

/// A number in `0.0..1.0`, to keep many processes from doing the same at the same time.
pub(crate) fn random() -> f64 {
    let mut bytes = [0; 4];
    // A failure only removes the jitter.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
