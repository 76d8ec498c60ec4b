//! Keeps the certificates in the cluster: all of them in a Secret, those to trust in a ConfigMap and in the webhook's
//! configuration.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration,
        core::v1::{ConfigMap, Secret},
    },
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::rotation::{Material, plan};
use crate::names::{CA_CONFIG_MAP, CA_KEY, FIELD_MANAGER, TLS_KEY, TLS_SECRET};

/// Why the certificates are not in place.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused or was away.
    #[error("cannot {step}")]
    Api {
        /// What was tried.
        step: &'static str,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Keys could not be made.
    #[error("cannot make certificates")]
    Make(#[source] rcgen::Error),
    /// The stored form could not be written.
    #[error("cannot write certificates as JSON")]
    Encode(#[source] serde_json::Error),
}

fn api(step: &'static str) -> impl FnOnce(kube::Error) -> StoreError {
    move |source| StoreError::Api { step, source: Box::new(source) }
}

/// The certificates in the cluster.
#[derive(Clone)]
pub struct Store {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    webhooks: Api<ValidatingWebhookConfiguration>,
    webhook: Option<String>,
    names: Vec<String>,
}

impl Store {
    /// For an operator in `namespace`, whose listeners are known by `names`. `webhook` is the
    /// ValidatingWebhookConfiguration to keep up to date.
    pub fn new(client: &Client, namespace: &str, names: Vec<String>, webhook: Option<String>) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            webhooks: Api::all(client.clone()),
            webhook,
            names,
        }
    }

    /// What the Secret holds; none when it isn't there or cannot be understood.
    pub async fn load(&self) -> Result<Option<Material>, StoreError> {
        let secret = self.secrets.get_opt(TLS_SECRET).await.map_err(api("read the Secret with the certificates"))?;
        Ok(secret.as_ref().and_then(read))
    }

    /// Makes what is missing or ageing, and puts it everywhere that it belongs. Only the leader calls this.
    ///
    /// The Secret is written with the version that was read, so that two leaders, if there ever are two, cannot
    /// overwrite each other's authority.
    pub async fn keep(&self) -> Result<Material, StoreError> {
        let secret = self.secrets.get_opt(TLS_SECRET).await.map_err(api("read the Secret with the certificates"))?;
        let there = secret.as_ref().and_then(read);
        if secret.is_some() && there.is_none() {
            warn!(secret = TLS_SECRET, "the certificates cannot be understood and are made anew");
        }
        let material = plan(there.clone(), &self.names, OffsetDateTime::now_utc()).map_err(StoreError::Make)?;
        if there.as_ref() != Some(&material) {
            self.write(secret, &material).await?;
            info!(secret = TLS_SECRET, "certificates renewed");
        }
        self.publish(&material).await?;
        Ok(material)
    }

    async fn write(&self, there: Option<Secret>, material: &Material) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(material).map_err(StoreError::Encode)?;
        let mut secret = there.clone().unwrap_or_default();
        secret.metadata.name = Some(TLS_SECRET.to_owned());
        secret.metadata.managed_fields = None;
        secret.data.get_or_insert_default().insert(TLS_KEY.to_owned(), ByteString(bytes));
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match there {
            Some(_) => self.secrets.replace(TLS_SECRET, &params, &secret).await,
            None => self.secrets.create(&params, &secret).await,
        }
        .map_err(api("write the Secret with the certificates"))?;
        Ok(())
    }

    /// Writes the trusted certificates where they are read, if they differ there.
    async fn publish(&self, material: &Material) -> Result<(), StoreError> {
        let trusted = material.trusted();
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        let there =
            self.config_maps.get_opt(CA_CONFIG_MAP).await.map_err(api("read the ConfigMap of the authority"))?;
        let same = there.and_then(|map| map.data).and_then(|data| data.get(CA_KEY).cloned());
        if same.as_deref() != Some(&trusted) {
            let map = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CA_CONFIG_MAP},
                "data": BTreeMap::from([(CA_KEY, &trusted)]),
            });
            let written = self.config_maps.patch(CA_CONFIG_MAP, &apply, &Patch::Apply(&map)).await;
            written.map_err(api("write the ConfigMap of the authority"))?;
        }
        if let Some(name) = &self.webhook {
            self.publish_to_webhook(name, &trusted).await?;
        }
        Ok(())
    }

    /// Puts the trusted certificates into every webhook of the configuration that doesn't have them.
    async fn publish_to_webhook(&self, name: &str, trusted: &str) -> Result<(), StoreError> {
        let there = self.webhooks.get_opt(name).await.map_err(api("read the webhook's configuration"))?;
        // Without the configuration there are no webhooks: the chart can leave it out.
        let Some(configuration) = there else { return Ok(()) };
        let wanted = ByteString(trusted.as_bytes().to_vec());
        let stale: Vec<_> = configuration
            .webhooks
            .iter()
            .flatten()
            .filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&wanted))
            .collect();
        if stale.is_empty() {
            return Ok(());
        }
        let webhooks: Vec<_> = configuration
            .webhooks
            .iter()
            .flatten()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": wanted}}))
            .collect();
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": webhooks,
        });
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.webhooks.patch(name, &apply, &Patch::Apply(&patch)).await;
        written.map_err(api("write the webhook's configuration"))?;
        Ok(())
    }
}

fn read(secret: &Secret) -> Option<Material> {
    serde_json::from_slice(&secret.data.as_ref()?.get(TLS_KEY)?.0).ok()
}
