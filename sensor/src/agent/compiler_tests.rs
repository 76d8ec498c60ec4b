//! The compiler's thread with a compiler and an effect that do what the test says.

use std::sync::mpsc;

use ::bundle::Bundle;

use super::*;
use crate::agent::testing::{LONG, active};

fn bundle(text: &str) -> Verified {
    Verified { hash: Bundle::hash(text.as_bytes()), bytes: text.into() }
}

/// The thread; every bundle that is compiled is told with the label `zone` of the node.
struct Case {
    folder: tempfile::TempDir,
    compiler: Arc<Compiler>,
    acks: watch::Receiver<Acks>,
    compiled: mpsc::Receiver<(String, Option<String>)>,
    booted: mpsc::Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Case {
    fn start(folder: tempfile::TempDir) -> Self {
        let (tell, compiled) = mpsc::channel();
        let (boot, booted) = mpsc::channel();
        let acks = watch::Sender::new(Acks::default());
        let told = acks.subscribe();
        let compile: Compile = Box::new(move |bundle, facts| {
            let text = String::from_utf8_lossy(&bundle.bytes).into_owned();
            let _ = tell.send((text.clone(), facts.labels.get("zone").cloned()));
            if text == "does not compile" {
                return Err("as it says".to_owned());
            }
            let active = Arc::into_inner(active()).ok_or("nobody else has it")?;
            Ok(Built { active, units: vec![proto::UnitResult { uid: text, ..proto::UnitResult::default() }] })
        });
        let effect: Effect = Box::new(|active| match active.bundle() == Bundle::hash(b"has no effect") {
            true => Err("as it says".to_owned()),
            false => Ok(()),
        });
        let cache = Cache::open(folder.path()).expect("a cache");
        let parts = Parts { compile, effect, cache, acks, booted: Box::new(move || boot.send(()).unwrap_or_default()) };
        let compiler = Arc::new(Compiler::default());
        let thread = start(Arc::clone(&compiler), parts).expect("a thread");
        Self { folder, compiler, acks: told, compiled, booted, thread: Some(thread) }
    }

    fn compiled(&self) -> (String, Option<String>) {
        self.compiled.recv_timeout(LONG).expect("something is compiled")
    }

    /// Waits until what is said about bundles is as wanted.
    fn wait(&mut self, wanted: impl Fn(&Acks) -> bool) -> Acks {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let wait =
            async { tokio::time::timeout(LONG, self.acks.wait_for(wanted)).await.map(|acks| acks.map(|a| a.clone())) };
        runtime.block_on(wait).expect("in time").expect("the thread lives")
    }

    fn stop(mut self) -> tempfile::TempDir {
        self.compiler.close();
        self.thread.take().expect("a thread").join().expect("no panic");
        self.folder
    }
}

fn runs(acks: &Acks, text: &str) -> bool {
    acks.running.as_ref().is_some_and(|ack| ack.hash == Bundle::hash(text.as_bytes()))
}

#[test]
fn a_bad_bundle_leaves_the_good_one() {
    let mut case = Case::start(tempfile::tempdir().expect("a folder"));
    case.booted.recv_timeout(LONG).expect("there is nothing to wait for");
    case.compiler.bundle(bundle("good"));
    let acks = case.wait(|acks| runs(acks, "good"));
    let running = acks.running.expect("an acknowledgement");
    assert!(running.loaded && running.units[0].uid == "good");
    for bad in ["does not compile", "has no effect"] {
        case.compiler.bundle(bundle(bad));
        let acks = case.wait(|acks| acks.failed.as_ref().is_some_and(|ack| ack.hash == bundle(bad).hash));
        assert!(runs(&acks, "good"), "{acks:?}");
        let failed = acks.failed.expect("a failure");
        assert_eq!((failed.loaded, &*failed.failure), (false, "as it says"));
    }
    case.compiler.bundle(bundle("better"));
    assert_eq!(case.wait(|acks| runs(acks, "better")).failed, None);
}

#[test]
fn the_next_boot_has_bundle_and_labels() {
    let labels = [("zone".to_owned(), "a".to_owned())];
    let mut case = Case::start(tempfile::tempdir().expect("a folder"));
    case.compiler.bundle(bundle("good"));
    assert_eq!(case.compiled(), ("good".to_owned(), None));
    case.wait(|acks| runs(acks, "good"));
    case.compiler.facts(proto::NodeFacts { labels: labels.into(), uid: String::new() });
    assert_eq!(case.compiled(), ("good".to_owned(), Some("a".to_owned())), "selectors may mean something else now");
    let case = Case::start(case.stop());
    case.booted.recv_timeout(LONG).expect("the cached bundle runs");
    assert_eq!(case.compiled(), ("good".to_owned(), Some("a".to_owned())));
    assert!(runs(&case.acks.borrow(), "good"), "before anything else happens");
    case.stop();
}

#[test]
fn what_runs_already_is_said_again_and_not_compiled_again() {
    let mut case = Case::start(tempfile::tempdir().expect("a folder"));
    case.compiler.bundle(bundle("good"));
    case.wait(|acks| runs(acks, "good"));
    case.compiled();
    case.compiler.bundle(bundle("good"));
    case.wait(|acks| acks.repeat == 1);
    assert!(case.compiled.try_recv().is_err());
}
