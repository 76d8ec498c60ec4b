//! Reads the Secrets and ConfigMaps that sinks name, one object at a time and by name: the operator needs no right to
//! list them, and is given the right to read them namespace by namespace.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use ::sinks::{Secret, Secrets};
use api::{condition::Reason, sink::AlertSinkSpec};
use futures::{FutureExt as _, future::BoxFuture, future::join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use kube::{Api, Client};

use super::Problem;

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came of reading one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Its keys and values.
    Found(BTreeMap<String, Vec<u8>>),
    /// There is no such object.
    NotFound,
    /// We may not read it.
    Forbidden,
    /// The API server did not answer, or not what it should.
    Failed(String),
}

/// Where values come from.
pub trait SecretSource: Send + Sync + 'static {
    /// Reads a Secret.
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Fetched>;
    /// Reads a ConfigMap.
    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Fetched>;
}

/// The API server.
#[derive(Clone)]
pub struct Cluster(Client);

impl Cluster {
    /// Reads with this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl SecretSource for Cluster {
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Fetched> {
        let objects = Api::<SecretObject>::namespaced(self.0.clone(), namespace);
        async move {
            let read = tokio::time::timeout(TIMEOUT, objects.get_opt(name)).await;
            fetched(read, |secret| {
                secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
            })
        }
        .boxed()
    }

    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Fetched> {
        let objects = Api::<ConfigMap>::namespaced(self.0.clone(), namespace);
        async move {
            let read = tokio::time::timeout(TIMEOUT, objects.get_opt(name)).await;
            fetched(read, |map| {
                let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
                text.chain(map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0))).collect()
            })
        }
        .boxed()
    }
}

fn fetched<T>(
    read: Result<kube::Result<Option<T>>, tokio::time::error::Elapsed>,
    values: impl FnOnce(T) -> BTreeMap<String, Vec<u8>>,
) -> Fetched {
    match read {
        Err(_) => Fetched::Failed("no answer in time".into()),
        Ok(Ok(Some(object))) => Fetched::Found(values(object)),
        Ok(Ok(None)) => Fetched::NotFound,
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Fetched::Forbidden,
        Ok(Err(error)) => Fetched::Failed(link::chain(&error).to_string()),
    }
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// Someone must do something; what was known before is no longer so.
    Problem(Problem),
    /// The API server cannot be asked: what was known before may well be true.
    Failed(Problem),
}

/// Everything that a spec names, from one namespace.
pub async fn resolve(source: &dyn SecretSource, spec: &AlertSinkSpec, namespace: &str) -> Result<Secrets, Unresolved> {
    let (refs, maps) = (spec.secrets(), spec.config_maps());
    let names: BTreeSet<&str> = refs.iter().map(|(_, key)| key.name.as_str()).collect();
    let objects = join_all(names.into_iter().map(|name| source.secret(namespace, name).map(move |got| (name, got))));
    let objects: HashMap<&str, Fetched> = objects.await.into_iter().collect();
    let mut secrets = Secrets::default();
    for (field, key) in refs {
        let value = value(objects.get(key.name.as_str()), field, "Secret", namespace, &key.name, &key.key)?;
        secrets.secrets.insert(key.clone(), Secret::new(&value));
    }
    for (field, key) in maps {
        let object = source.config_map(namespace, &key.name).await;
        let value = value(Some(&object), field, "ConfigMap", namespace, &key.name, &key.key)?;
        secrets.config_maps.insert(key.clone(), value);
    }
    Ok(secrets)
}

fn value(
    object: Option<&Fetched>,
    field: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<String, Unresolved> {
    let missing = if kind == "Secret" { Reason::SecretNotFound } else { Reason::RefNotFound };
    let problem = |reason, message: String| Problem { reason, message, stalled: false };
    let what = format!("{field}: {kind} `{name}` in namespace `{namespace}`");
    match object {
        Some(Fetched::Found(values)) => {
            let bytes = values.get(key).ok_or_else(|| {
                let message = format!("{what} has no key `{key}`; add it, or name another key");
                Unresolved::Problem(problem(missing, message))
            })?;
            String::from_utf8(bytes.clone()).map_err(|_| {
                Unresolved::Problem(problem(Reason::InvalidSpec, format!("{what}: the value of `{key}` is not text")))
            })
        }
        Some(Fetched::NotFound) => {
            Err(Unresolved::Problem(problem(missing, format!("{what} does not exist; create it, or name another"))))
        }
        Some(Fetched::Forbidden) => {
            let resource = if kind == "Secret" { "secrets" } else { "configmaps" };
            let message = format!(
                "{what}: the operator may not read it; give its service account a Role there with `get` on {resource} \
                 (Helm: add the namespace to sinks.watchNamespaces, or the name to sinks.secretNames)"
            );
            Err(Unresolved::Problem(problem(Reason::SourceError, message)))
        }
        Some(Fetched::Failed(why)) => {
            Err(Unresolved::Failed(problem(Reason::SourceError, format!("{what} could not be read: {why}"))))
        }
        None => Err(Unresolved::Failed(problem(Reason::SourceError, format!("{what} was not read")))),
    }
}
