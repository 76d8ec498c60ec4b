//! What a node remembers for the next boot: the last bundle that was put into effect, and facts about the node, which
//! decide what of it runs here. So rules run before the operator is reached, or when it never is.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use link::{BUNDLE_BYTES, proto};
use tracing::warn;

use super::{link::Verified, spool::replace};

const BUNDLES: &str = "bundle";
const ENDING: &str = ".json";
const FACTS: &str = "node-facts.json";

/// Largest file with facts that is read.
const FACTS_BYTES: u64 = 4 << 20;

/// The files, below the state folder.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Makes the folders.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(state_dir.join(BUNDLES))?;
        Ok(Self { folder: state_dir.to_owned() })
    }

    /// The bundle, if there is a good one.
    pub fn bundle(&self) -> Option<Verified> {
        let mut names = self.names();
        // The newest first: an older one is left over only after a crash between two steps.
        names
            .sort_by_key(|name| std::cmp::Reverse(fs::metadata(self.path(name)).and_then(|meta| meta.modified()).ok()));
        names.into_iter().find_map(|name| {
            let path = self.path(&name);
            let fits = fs::metadata(&path).is_ok_and(|meta| meta.len() <= BUNDLE_BYTES);
            let bytes = if fits { fs::read(&path).ok() } else { None };
            let bundle = name.strip_suffix(ENDING).zip(bytes).and_then(|(hash, bytes)| Verified::check(hash, bytes));
            if bundle.is_none() {
                warn!(file = %path.display(), "the cached bundle is damaged: it is not used");
            }
            bundle
        })
    }

    /// Keeps a bundle in place of others.
    pub fn keep(&self, bundle: &Verified) -> io::Result<()> {
        let name = format!("{}{ENDING}", bundle.hash);
        if !self.path(&name).exists() || self.bundle().as_ref() != Some(bundle) {
            replace(&self.folder.join(BUNDLES), &name, &bundle.bytes)?;
        }
        for other in self.names().into_iter().filter(|other| *other != name) {
            fs::remove_file(self.path(&other))?;
        }
        Ok(())
    }

    /// The facts; none known when there are none or they are damaged.
    pub fn facts(&self) -> proto::NodeFacts {
        let path = self.folder.join(FACTS);
        let fits = fs::metadata(&path).is_ok_and(|meta| meta.len() <= FACTS_BYTES);
        let value: serde_json::Value = match fits.then(|| fs::read(&path)) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Some(Err(_)) | None => return proto::NodeFacts::default(),
        };
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let labels = value.get("labels").and_then(serde_json::Value::as_object);
        let label = |(name, value): (&String, _)| Some((name.clone(), text(value)?));
        proto::NodeFacts {
            labels: labels.into_iter().flatten().filter_map(label).collect(),
            uid: value.get("uid").and_then(text).unwrap_or_default(),
        }
    }

    /// Keeps facts.
    pub fn keep_facts(&self, facts: &proto::NodeFacts) -> io::Result<()> {
        let labels: BTreeMap<_, _> = facts.labels.iter().collect();
        let text = serde_json::json!({ "uid": facts.uid, "labels": labels }).to_string();
        replace(&self.folder, FACTS, text.as_bytes())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(BUNDLES).join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(BUNDLES)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.ends_with(ENDING)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ::bundle::Bundle;

    use super::*;

    fn bundle(text: &str) -> Verified {
        Verified { hash: Bundle::hash(text.as_bytes()), bytes: text.into() }
    }

    #[test]
    fn the_last_bundle_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        assert_eq!(cache.bundle(), None);
        for text in ["one", "two", "two", "one"] {
            cache.keep(&bundle(text)).expect("room on the disk");
            assert_eq!(cache.bundle(), Some(bundle(text)));
            assert_eq!(cache.names().len(), 1);
        }
    }

    #[test]
    fn a_damaged_bundle_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        let good = bundle("one");
        cache.keep(&good).expect("room on the disk");
        fs::write(cache.path(&format!("{}{ENDING}", good.hash)), "on").expect("a writable file");
        assert_eq!(cache.bundle(), None);
        cache.keep(&good).expect("room on the disk");
        assert_eq!(cache.bundle(), Some(good));
    }

    #[test]
    fn facts_are_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::open(folder.path()).expect("a cache");
        assert_eq!(cache.facts(), proto::NodeFacts::default());
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        let facts = proto::NodeFacts { labels, uid: "uid".to_owned() };
        cache.keep_facts(&facts).expect("room on the disk");
        assert_eq!(cache.facts(), facts);
    }
}
