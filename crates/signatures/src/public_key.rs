//! Public keys in the shapes in which providers publish them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use webpki::EndEntityCert;

/// The `SubjectPublicKeyInfo` in a key or a certificate, as PEM, as DER or as that in base64.
///
/// A certificate's names, dates and issuer are not looked at: whoever gives it here trusts it.
pub(crate) fn spki(given: &[u8]) -> Option<Vec<u8>> {
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(given) {
        return Some(key.to_vec());
    }
    if let Ok(certificate) = CertificateDer::from_pem_slice(given) {
        return of_certificate(&certificate);
    }
    let decoded = STANDARD.decode(given.trim_ascii());
    let der = decoded.unwrap_or_else(|_| given.to_vec());
    let is_key = bits(&der, RSA).or_else(|| bits(&der, P256)).is_some();
    if is_key {
        return Some(der);
    }
    of_certificate(&CertificateDer::from(der))
}

/// A private key of PKCS #8, as PEM or as DER in base64.
pub(crate) fn pkcs8(given: &[u8]) -> Option<Vec<u8>> {
    if let Ok(key) = PrivatePkcs8KeyDer::from_pem_slice(given) {
        return Some(key.secret_pkcs8_der().to_vec());
    }
    STANDARD.decode(given.trim_ascii()).ok()
}

fn of_certificate(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let certificate = EndEntityCert::try_from(der).ok()?;
    Some(certificate.subject_public_key_info().to_vec())
}

/// The key's own bytes, if it is one for this algorithm.
pub(crate) fn bits<'a>(spki: &'a [u8], algorithm: &[u8]) -> Option<&'a [u8]> {
    let (info, rest) = der(SEQUENCE, spki)?;
    let (own, key) = der(SEQUENCE, info)?;
    let (key, behind) = der(BIT_STRING, key)?;
    let is_whole = rest.is_empty() && behind.is_empty() && own == algorithm;
    // The first byte counts the bits that are left over; keys have none.
    key.strip_prefix(&[0]).filter(|_| is_whole)
}

/// The contents of a DER value that begins here, and what is behind it.
fn der(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&own, input) = input.split_first()?;
    let (&short, input) = input.split_first()?;
    let (length, input) = match short {
        0..=0x7f => (usize::from(short), input),
        0x81 => (usize::from(*input.first()?), &input[1..]),
        0x82 => {
            let (long, input) = input.split_first_chunk::<2>()?;
            (u16::from_be_bytes(*long).into(), input)
        }
        _ => return None,
    };
    (own == tag).then(|| input.split_at_checked(length))?
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// `rsaEncryption` with its parameters, which are none.
pub(crate) const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// `id-ecPublicKey` on `prime256v1`.
pub(crate) const P256: &[u8] =
    b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_no_key() {
        let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
        let der = spki(key.as_bytes()).unwrap();
        assert_eq!(bits(&der, P256).unwrap().len(), 65);
        assert_eq!(bits(&der, RSA), None);
        assert_eq!(spki(&der).unwrap(), der);
        for length in 0..der.len() {
            assert_eq!(spki(&der[..length]), None, "{length}");
        }
        assert_eq!(spki(&[&*der, b"x"].concat()), None);
    }
}
