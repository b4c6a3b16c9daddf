//! API keys as clients send them: `fbk_<public id>_<secret>`, and the hash that is kept of the secret.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use forebay_schemas::{KeyId, names::KEY_ID_CHARS};
use rand::{TryRngCore, rngs::OsRng};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::AccessError;

/// How every API key begins, so that scanners for leaked secrets find them.
const PREFIX: &str = "fbk_";
/// The random bytes of a secret: 43 characters as unpadded base64url.
const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;
/// The characters of a public id: 32 of them, so that five random bits choose one evenly. Those that look alike are
/// left out.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// An API key in full, as a client has it. Its secret is shown by [`Self::expose`] alone.
#[derive(Clone)]
pub struct Credential {
    id: KeyId,
    secret: SecretString,
}

impl Credential {
    /// A new one, from the operating system's random numbers.
    pub fn random() -> Result<Self, AccessError> {
        let mut bytes = [0; KEY_ID_CHARS + SECRET_BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(|error| AccessError::Random(error.to_string()))?;
        let (id, secret) = bytes.split_at(KEY_ID_CHARS);
        let id: String =
            id.iter().map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)])).collect();
        let id = id.parse().map_err(|error| AccessError::Random(format!("{error}")))?;
        Ok(Self { id, secret: URL_SAFE_NO_PAD.encode(secret).into() })
    }

    /// Reads one; `None` if the text is not of that form, and so no key of this fleet.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_secret = secret.len() == SECRET_CHARS
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let id = id.parse().ok()?;
        is_secret.then(|| Self { id, secret: secret.into() })
    }

    /// The public id, which may be logged.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The hash of the secret. A slow one is for passwords: this secret has 256 random bits.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret.expose_secret()).into())
    }

    /// The whole key, secret included: for the one time that it is shown, at its creation.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret.expose_secret())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_***", self.id)
    }
}

/// The SHA-256 of a secret. Compared by [`Self::matches`] alone, which takes the time of no guess.
#[derive(Clone)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Whether both are of one secret, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom("`hash` is not a SHA-256 in base64url"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_read_as_it_was_written_and_differs_from_every_other() {
        let credential = Credential::random().unwrap();
        let text = credential.expose();
        assert_eq!(text.len(), PREFIX.len() + KEY_ID_CHARS + 1 + SECRET_CHARS);
        let read = Credential::parse(&text).unwrap();
        assert_eq!(read.id(), credential.id());
        assert!(read.hash().matches(&credential.hash()));
        let other = Credential::random().unwrap();
        assert_ne!(other.id(), credential.id());
        assert!(!other.hash().matches(&credential.hash()));
    }

    #[test]
    fn a_secret_is_never_shown_by_accident() {
        let credential = Credential::random().unwrap();
        let secret = credential.secret.expose_secret();
        let shown = format!("{credential:?} {:?}", credential.hash());
        assert!(shown.contains(credential.id().as_str()) && !shown.contains(secret), "{shown}");
        let stored = serde_json::to_string(&credential.hash()).unwrap();
        assert!(!stored.contains(secret));
        let read: SecretHash = serde_json::from_str(&stored).unwrap();
        assert!(read.matches(&credential.hash()));
    }

    #[test]
    fn other_texts_are_no_keys() {
        let good = Credential::random().unwrap().expose();
        let longer = format!("{good}x");
        for bad in [
            "",
            "fake",
            "sk-proj-abc",
            "fbk_",
            "fbk_k3mz8q2v7x4a",
            "fbk_k3mz8q2v7x4a_",
            "fbk__AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "fbk_k3mz8q2v7x4a_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.",
            &good[..good.len() - 1],
            &good[1..],
            &longer,
        ] {
            assert!(Credential::parse(bad).is_none(), "{bad}");
        }
        assert!(Credential::parse(&good).is_some());
    }

    #[test]
    fn a_hash_of_another_length_is_refused_by_its_field() {
        let error = serde_json::from_str::<SecretHash>("\"AAAA\"").unwrap_err();
        assert!(error.to_string().contains("`hash`"), "{error}");
    }
}
