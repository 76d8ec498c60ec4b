//! The other sensor, at the other end of the socket.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{
    SOCKET,
    words::{LINE, VERSION, Word},
};

/// How long the other side may take to read a line: they are short, and the kernel keeps them.
const WRITE: Duration = Duration::from_secs(1);

/// Most bytes that follow a line: what a sensor knows of the cluster has a bound of half of it.
const BYTES: u32 = 32 << 20;

/// Why the other sensor has not said what was expected.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It runs as another user.
    #[error("it runs as user {user}, not as this one does")]
    User {
        /// Its user id.
        user: u32,
    },
    /// It said nothing, or did not read.
    #[error("it is silent")]
    Silent,
    /// It has ended, or closed the socket.
    #[error("it has ended")]
    Ended,
    /// It said something that cannot be, or not now.
    #[error("it said `{line}`")]
    Nonsense {
        /// The line.
        line: String,
    },
    /// The socket is of no use.
    #[error("the socket is of no use")]
    Socket(#[source] io::Error),
}

/// The other sensor.
#[derive(Debug)]
pub struct Peer {
    stream: BufReader<UnixStream>,
    process: Option<u32>,
}

impl Peer {
    /// Finds the sensor that has the state folder, and greets it under this name. None: nobody listens.
    pub async fn find(state_dir: &Path, name: &str) -> Result<Option<Self>, PeerError> {
        match UnixStream::connect(state_dir.join(SOCKET)).await {
            Ok(stream) => {
                let mut peer = Self::new(stream)?;
                peer.say(Word::Hello(VERSION, name.to_owned())).await?;
                Ok(Some(peer))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(PeerError::Socket(error)),
        }
    }

    /// Whoever is at the other end, if it is the same user.
    pub fn new(stream: UnixStream) -> Result<Self, PeerError> {
        let credentials = stream.peer_cred().map_err(PeerError::Socket)?;
        if credentials.uid() != nix::unistd::geteuid().as_raw() {
            return Err(PeerError::User { user: credentials.uid() });
        }
        let process = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        Ok(Self { stream: BufReader::new(stream), process })
    }

    /// Its process, while it is connected; none where the kernel cannot name it here.
    pub fn process(&self) -> Option<u32> {
        self.process
    }

    /// Says something.
    pub async fn say(&mut self, word: Word) -> Result<(), PeerError> {
        self.write(format!("{word}\n").as_bytes()).await
    }

    /// Says something that bytes follow.
    pub async fn say_with(&mut self, word: Word, bytes: &[u8]) -> Result<(), PeerError> {
        self.say(word).await?;
        self.write(bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        match timeout(WRITE, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(PeerError::Ended),
            Err(_) => Err(PeerError::Silent),
        }
    }

    /// The bytes that follow what it said.
    pub async fn bytes(&mut self, count: u32, patience: Duration) -> Result<Vec<u8>, PeerError> {
        if count > BYTES {
            return Err(unexpected(&Word::Facts(count)));
        }
        let mut bytes = Vec::new();
        let mut stream = (&mut self.stream).take(count.into());
        match timeout(patience, stream.read_to_end(&mut bytes)).await {
            Ok(Ok(_)) if bytes.len() as u64 == u64::from(count) => Ok(bytes),
            Ok(_) => Err(PeerError::Ended),
            Err(_) => Err(PeerError::Silent),
        }
    }

    /// What it says next. After an error nothing more is to be expected of it.
    pub async fn hear(&mut self, patience: Duration) -> Result<Word, PeerError> {
        let mut line = String::new();
        let read = timeout(patience, (&mut self.stream).take(LINE).read_line(&mut line)).await;
        match read {
            Err(_) => return Err(PeerError::Silent),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(PeerError::Nonsense { line }),
            Ok(Err(_)) => return Err(PeerError::Ended),
            Ok(Ok(_)) => {}
        }
        match line.strip_suffix('\n') {
            Some(text) => Word::read(text).ok_or(PeerError::Nonsense { line: text.to_owned() }),
            None if (line.len() as u64) < LINE => Err(PeerError::Ended),
            None => Err(PeerError::Nonsense { line }),
        }
    }

    /// Waits until it has ended; whatever else it says is not heard.
    pub async fn ended(&mut self) {
        let mut rest = [0; 256];
        while matches!(self.stream.read(&mut rest).await, Ok(bytes) if bytes > 0) {}
    }
}

/// A word that has its place in the protocol, but not here.
pub fn unexpected(word: &Word) -> PeerError {
    PeerError::Nonsense { line: word.to_string() }
}
