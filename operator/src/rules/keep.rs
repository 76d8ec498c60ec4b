//! Keeps the bundle in the cluster, so that another operator knows the last good version of every resource.
//!
//! Compressed, in ConfigMaps of the operator's namespace; the first one is written last and names the hash of the
//! whole, so that a write that broke off is not taken for a bundle.

use std::{collections::BTreeMap, io::Read};

use bundle::Bundle;
use flate2::{Compression, read::GzDecoder, read::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use crate::names::{BUNDLE_CONFIG_MAP, FIELD_MANAGER};

/// Bytes in one ConfigMap; the API server takes a little more than a MiB, in base64.
const PART_BYTES: usize = 700 << 10;
/// Most ConfigMaps: as many as the chart's role names.
const PARTS: usize = 16;
/// Keys of a ConfigMap.
const PART: &str = "part";
const HASH: &str = "hash";
const COUNT: &str = "parts";

/// Why the bundle could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server refused or was away.
    #[error("cannot use ConfigMap {name}")]
    Api {
        /// Its name.
        name: String,
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// It is too large.
    #[error("the compressed bundle has {bytes} bytes, more than the {} that are kept", PARTS * PART_BYTES)]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// The bundle in the cluster.
#[derive(Clone)]
pub struct Keep(Api<ConfigMap>);

fn name(part: usize) -> String {
    format!("{BUNDLE_CONFIG_MAP}-{part}")
}

impl Keep {
    /// In this namespace.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self(Api::namespaced(client.clone(), namespace))
    }

    /// Replaces what is kept.
    ///
    /// # Errors
    /// When the API server does not take it; then the one before may be lost as well, and is made again.
    pub async fn save(&self, bytes: &[u8]) -> Result<(), KeepError> {
        let mut packed = Vec::new();
        // Reading from memory does not fail.
        let _ = GzEncoder::new(bytes, Compression::default()).read_to_end(&mut packed);
        let parts: Vec<&[u8]> = packed.chunks(PART_BYTES).collect();
        if parts.len() > PARTS {
            return Err(KeepError::TooLarge { bytes: packed.len() });
        }
        for (at, part) in parts.iter().enumerate().rev() {
            let mut data = BTreeMap::new();
            if at == 0 {
                data.insert(HASH, Bundle::hash(bytes));
                data.insert(COUNT, parts.len().to_string());
            }
            let map = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name(at)},
                "data": data,
                "binaryData": {PART: ByteString(part.to_vec())},
            });
            let apply = PatchParams::apply(FIELD_MANAGER).force();
            self.0.patch(&name(at), &apply, &Patch::Apply(&map)).await.map_err(api(at))?;
        }
        // What a larger bundle left behind.
        for at in parts.len()..PARTS {
            match self.0.delete(&name(at), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(error) => return Err(api(at)(error)),
            }
        }
        Ok(())
    }

    /// What is kept; none when there is nothing, or nothing whole.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn load(&self) -> Result<Option<Vec<u8>>, KeepError> {
        let Some(first) = self.0.get_opt(&name(0)).await.map_err(api(0))? else { return Ok(None) };
        let data = first.data.clone().unwrap_or_default();
        let parts = data.get(COUNT).and_then(|count| count.parse().ok()).unwrap_or(0).min(PARTS);
        let mut packed = part(first);
        for at in 1..parts {
            let next = self.0.get_opt(&name(at)).await.map_err(api(at))?;
            packed.extend(next.map(part).unwrap_or_default());
        }
        let mut bytes = Vec::new();
        let unpacked = GzDecoder::new(&*packed).take(link::BUNDLE_BYTES).read_to_end(&mut bytes);
        if unpacked.is_err() || data.get(HASH) != Some(&Bundle::hash(&bytes)) {
            warn!(
                "the bundle that an earlier operator kept is not whole; resources with mistakes have no last good version"
            );
            return Ok(None);
        }
        Ok(Some(bytes))
    }
}

fn api(at: usize) -> impl FnOnce(kube::Error) -> KeepError {
    move |source| KeepError::Api { name: name(at), source: Box::new(source) }
}

fn part(map: ConfigMap) -> Vec<u8> {
    map.binary_data.unwrap_or_default().remove(PART).unwrap_or_default().0
}
