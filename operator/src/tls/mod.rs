//! The operator's own certificates: for the sensors' link and for the API server's webhook calls.
//!
//! The operator is its own authority, so that nothing else has to be installed. [`rotation`] decides (pure), [`store`]
//! keeps the result in a Secret and the public part in a ConfigMap, [`serve`] hands the certificate of the moment to
//! listeners.

pub mod rotation;
pub mod serve;
pub mod store;

pub use self::{rotation::Material, serve::Certificates};
