//! Which certificates there should be, as a function of those that there are and of the time.
//!
//! A new authority is published before anything is signed by it: sensors read the trusted certificates from a mounted
//! ConfigMap, which the kubelet brings up to date within about a minute and a half.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// Life of an authority.
const AUTHORITY_LIFE: Duration = Duration::days(365);
/// Life of a server certificate.
const LEAF_LIFE: Duration = Duration::days(90);
/// How long a new authority is only trusted before it signs.
const PUBLISH_FIRST: Duration = Duration::minutes(10);
/// How long a replaced authority stays trusted: replicas may still show what it signed.
const KEEP_REPLACED: Duration = Duration::days(1);
/// Clocks of nodes differ: certificates are valid a little before they are made.
const CLOCK_SKEW: Duration = Duration::minutes(10);

/// A certificate and its key, with the times that decide about it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS#8.
    pub key: String,
    /// Unix time in seconds.
    pub made: i64,
    /// Unix time in seconds.
    pub expires: i64,
}

impl std::fmt::Debug for Pair {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("made", &self.made).field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Pair {
    /// Two thirds of its life are over.
    fn ageing(&self, now: i64) -> bool {
        now >= self.made + (self.expires - self.made) / 3 * 2
    }

    /// It is valid at that time. One from the future is not: the clock went wrong when it was made, or does now.
    fn valid(&self, now: i64) -> bool {
        self.made - CLOCK_SKEW.whole_seconds() <= now && now < self.expires
    }
}

/// Everything that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Material {
    /// Signs.
    pub authority: Pair,
    /// Will sign; trusted already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Pair>,
    /// Has signed; still trusted. With the time when it was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<(Pair, i64)>,
    /// What listeners show.
    pub leaf: Pair,
    /// Names in the leaf.
    pub names: Vec<String>,
}

impl Material {
    /// The certificates to trust, as PEM.
    pub fn trusted(&self) -> String {
        let others = self.next.iter().chain(self.replaced.as_ref().map(|(pair, _)| pair));
        std::iter::once(&self.authority).chain(others).map(|pair| pair.certificate.trim_end()).fold(
            String::new(),
            |mut text, certificate| {
                text.push_str(certificate);
                text.push('\n');
                text
            },
        )
    }
}

/// What there should be now. Equal to what is there when nothing is to be done.
///
/// # Errors
/// When a key cannot be made, or one that is kept cannot be read.
pub fn plan(there: Option<Material>, names: &[String], now: OffsetDateTime) -> Result<Material, rcgen::Error> {
    let at = now.unix_timestamp();
    let Some(mut material) = there.filter(|material| material.authority.valid(at)) else {
        let authority = authority(now)?;
        let leaf = leaf(&authority, names, now)?;
        return Ok(Material { authority, next: None, replaced: None, leaf, names: names.to_vec() });
    };
    material.next.take_if(|next| !next.valid(at));
    if material.authority.ageing(at) && material.next.is_none() {
        material.next = Some(authority(now)?);
    }
    let mut sign = material.leaf.ageing(at) || !material.leaf.valid(at) || material.names != names;
    if let Some(next) = material.next.take_if(|next| at >= next.made + PUBLISH_FIRST.whole_seconds()) {
        material.replaced = Some((std::mem::replace(&mut material.authority, next), at));
        sign = true;
    }
    material.replaced.take_if(|(pair, when)| at >= (*when + KEEP_REPLACED.whole_seconds()).min(pair.expires));
    if sign {
        material.leaf = leaf(&material.authority, names, now)?;
        material.names = names.to_vec();
    }
    Ok(material)
}

fn authority_params(made: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The name differs between authorities, so that a verifier finds the right one among several.
    params.distinguished_name.push(DnType::CommonName, format!("gyrfalcon authority {}", made.unix_timestamp()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = made - CLOCK_SKEW;
    params.not_after = made + AUTHORITY_LIFE;
    params
}

fn authority(now: OffsetDateTime) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(now).self_signed(&key)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        made: now.unix_timestamp(),
        expires: (now + AUTHORITY_LIFE).unix_timestamp(),
    })
}

fn leaf(authority: &Pair, names: &[String], now: OffsetDateTime) -> Result<Pair, rcgen::Error> {
    let made = OffsetDateTime::from_unix_timestamp(authority.made).map_err(|_| rcgen::Error::Time)?;
    let issuer = Issuer::new(authority_params(made), KeyPair::from_pem(&authority.key)?);
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "gyrfalcon-operator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - CLOCK_SKEW;
    let expires = (now + LEAF_LIFE).unix_timestamp().min(authority.expires);
    params.not_after = OffsetDateTime::from_unix_timestamp(expires).map_err(|_| rcgen::Error::Time)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem(), made: now.unix_timestamp(), expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("a time") + Duration::days(days)
    }

    fn names() -> Vec<String> {
        vec!["gyrfalcon-operator.gyrfalcon-system.svc".to_owned()]
    }

    fn at(there: &Material, when: OffsetDateTime) -> Material {
        plan(Some(there.clone()), &names(), when).expect("keys can be made")
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let first = plan(None, &names(), day(0)).expect("keys can be made");
        assert_eq!(at(&first, day(30)), first);
    }

    #[test]
    fn a_leaf_is_renewed_after_two_thirds_of_its_life() {
        let first = plan(None, &names(), day(0)).expect("keys can be made");
        let later = at(&first, day(61));
        assert_ne!(later.leaf, first.leaf);
        assert_eq!(later.authority, first.authority);
    }

    #[test]
    fn a_leaf_has_the_names_that_are_asked_for() {
        let first = plan(None, &names(), day(0)).expect("keys can be made");
        let other = vec!["other.svc".to_owned()];
        let later = plan(Some(first.clone()), &other, day(0)).expect("keys can be made");
        assert_eq!(later.names, other);
        assert_ne!(later.leaf, first.leaf);
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_after() {
        let first = plan(None, &names(), day(0)).expect("keys can be made");
        let published = at(&first, day(244));
        let next = published.next.clone().expect("a new authority");
        assert_eq!(published.authority, first.authority);
        assert!(published.trusted().contains(next.certificate.trim_end()));

        let early = at(&published, day(244) + Duration::minutes(9));
        assert_eq!(early.authority, first.authority, "sensors may not have the new one yet");

        let switched = at(&published, day(244) + Duration::minutes(10));
        assert_eq!(switched.authority, next);
        assert!(switched.trusted().contains(first.authority.certificate.trim_end()));

        let done = at(&switched, day(246));
        assert_eq!(done.trusted().matches("BEGIN CERTIFICATE").count(), 1);
    }

    #[test]
    fn what_a_wrong_clock_has_made_is_made_anew() {
        let first = plan(None, &names(), day(100)).expect("keys can be made");
        let back = at(&first, day(0));
        assert_ne!(back.authority, first.authority, "nobody would trust it for a hundred days");
        assert_eq!(at(&back, day(0)), back);
        let slightly = at(&first, day(100) - Duration::minutes(5));
        assert_eq!(slightly, first, "clocks differ by minutes");

        let early = plan(None, &names(), day(0)).expect("keys can be made");
        let mut renewed = at(&early, day(80));
        renewed = at(&renewed, day(10));
        assert_eq!(renewed.authority, early.authority);
        assert!(renewed.leaf.valid(day(10).unix_timestamp()));

        let published = at(&early, day(244));
        let back = at(&published, day(240));
        assert_eq!(back.next, None, "a successor from the future never signs");
    }

    #[test]
    fn an_expired_authority_is_replaced_at_once() {
        let first = plan(None, &names(), day(0)).expect("keys can be made");
        let later = at(&first, day(400));
        assert_ne!(later.authority, first.authority);
        assert_eq!(later.trusted().matches("BEGIN CERTIFICATE").count(), 1);
    }
}
