//! Signatures of a request: Standard Webhooks (HMAC-SHA256 under one or several secrets) and SendGrid's (ECDSA P-256).
//! It exists so that a receiver can tell our requests from anybody else's with the libraries that it has already.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use secrecy::{ExposeSecret, SecretString};

/// The header that carries SendGrid's signature, and the one that carries its instant.
pub(super) const SENDGRID_SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
pub(super) const SENDGRID_TIMESTAMP: &str = "x-twilio-email-event-webhook-timestamp";

/// The shortest and the longest secret, in bytes (the specification of Standard Webhooks).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a key cannot sign. No variant holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Not base64.
    #[error("it is not base64")]
    NotBase64,
    /// Too short or too long.
    #[error("it has {0} bytes; a secret has 24 to 64")]
    Length(usize),
    /// Not such a key.
    #[error("it is no private key for ECDSA P-256 in PKCS#8 form")]
    NotEcdsa,
}

/// Secrets of Standard Webhooks. A request is signed with each, so that a receiver may know either while they are changed.
pub struct Secrets(Vec<hmac::Key>);

impl Secrets {
    /// Reads secrets, `whsec_` and base64 each, separated by commas.
    pub fn read(text: &SecretString) -> Result<Self, KeyProblem> {
        let key = |secret: &str| {
            let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
            let bytes = STANDARD.decode(secret).map_err(|_| KeyProblem::NotBase64)?;
            if !SECRET_BYTES.contains(&bytes.len()) {
                return Err(KeyProblem::Length(bytes.len()));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        text.expose_secret().split(',').map(key).collect::<Result<_, _>>().map(Self)
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        let sign = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(head.as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// A private key as SendGrid has one for each of its webhooks.
pub struct SendGridKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl SendGridKey {
    /// Reads a key: PKCS#8, DER, in base64.
    pub fn read(text: &SecretString) -> Result<Self, KeyProblem> {
        let der = STANDARD.decode(text.expose_secret()).map_err(|_| KeyProblem::NotBase64)?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random);
        Ok(Self { pair: pair.map_err(|_| KeyProblem::NotEcdsa)?, random })
    }

    /// The value of [`SENDGRID_SIGNATURE`]; `None` where this machine has no randomness to sign with.
    pub fn sign(&self, timestamp: i64, body: &[u8]) -> Option<String> {
        let text = [timestamp.to_string().as_bytes(), body].concat();
        self.pair.sign(&self.random, &text).ok().map(|signature| STANDARD.encode(signature))
    }
}

impl std::fmt::Debug for SendGridKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendGridKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, KeyPair, UnparsedPublicKey};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn secrets(text: &str) -> Result<Secrets, KeyProblem> {
        Secrets::read(&SecretString::from(text))
    }

    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        // The example in the specification of Standard Webhooks.
        let signature =
            secrets(SECRET).unwrap().sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_secrets_change_a_request_carries_a_signature_of_each() {
        let other = format!("whsec_{}", STANDARD.encode([7; 32]));
        let both = secrets(&format!("{other},{SECRET}")).unwrap().sign("id", 1, b"{}");
        let each = [&other, SECRET].map(|secret| secrets(secret).unwrap().sign("id", 1, b"{}"));
        assert_eq!(both, each.join(" "));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_told() {
        assert_eq!(secrets("whsec_???").unwrap_err(), KeyProblem::NotBase64);
        assert_eq!(secrets("whsec_MfKQ").unwrap_err(), KeyProblem::Length(3));
        assert_eq!(secrets("").unwrap_err(), KeyProblem::Length(0));
        assert!(!format!("{:?}", secrets(SECRET).unwrap()).contains("MfKQ"));
        let key = SecretString::from(STANDARD.encode(b"something else"));
        assert_eq!(SendGridKey::read(&key).unwrap_err(), KeyProblem::NotEcdsa);
    }

    #[test]
    fn a_sendgrid_signature_holds_for_its_instant_and_body_alone() {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let key = SendGridKey::read(&SecretString::from(STANDARD.encode(made.as_ref()))).unwrap();
        let signature = STANDARD.decode(key.sign(7, b"[]").unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.pair.public_key().as_ref());
        assert!(public.verify(b"7[]", &signature).is_ok());
        assert!(public.verify(b"8[]", &signature).is_err());
    }
}
