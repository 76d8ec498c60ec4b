//! Answers the event loop's questions from /proc, on a thread that may wait.

use std::{
    sync::mpsc::{Receiver, Sender, SyncSender, sync_channel},
    thread,
};

use crate::{driver::Waker, pipeline::Input, procfs::Reader};

/// What is known about this process, and about its cgroup?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Whether the process itself is asked about.
    pub process: bool,
    /// Id of the cgroup, if that is asked: it is answered in any case.
    pub cgroup: Option<u64>,
    /// The cgroup of a container whose users are asked for.
    pub users: Option<u64>,
}

/// Most questions under way.
const QUEUE: usize = 1024;

/// Starts the thread; it ends when the questions do.
pub fn start(reader: Reader, inputs: Sender<Input>, waker: Waker) -> std::io::Result<SyncSender<Question>> {
    let (questions, asked) = sync_channel(QUEUE);
    thread::Builder::new().name("lookup".to_owned()).spawn(move || answer(&reader, &asked, &inputs, &waker))?;
    Ok(questions)
}

fn answer(reader: &Reader, asked: &Receiver<Question>, inputs: &Sender<Input>, waker: &Waker) {
    for question in asked {
        let users = question.users.and_then(|cgroup| {
            let users = crate::users::of_container(question.pid)?;
            Some(Input::ContainerUsers(cgroup, Box::new(users)))
        });
        let seed = i32::try_from(question.pid).ok().filter(|_| question.process).and_then(|pid| reader.one(pid));
        let cgroup = question.cgroup.map(|cgroup| Input::Cgroup(cgroup, reader.cgroup(cgroup)));
        // A process that is gone stays unknown; the record that asked has been judged with what it said itself.
        let process = seed.map(|seed| Input::Process(Box::new(seed)));
        for answer in process.into_iter().chain(cgroup).chain(users) {
            if inputs.send(answer).is_err() {
                return;
            }
            waker.wake();
        }
    }
}
