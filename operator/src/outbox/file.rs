//! The file of the outbox: opening it, and what to do when it is no good.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use redb::{Builder, Database, DatabaseError, StorageError};
use tracing::{error, warn};

use super::{
    Options,
    store::{self, Totals},
};

const NAME: &str = "outbox.redb";
/// Where a file goes that cannot be used. One is kept, for whoever wants to look into it.
const ASIDE: &str = "outbox.redb.unusable";
/// Pages that are kept in memory.
const CACHE_BYTES: usize = 32 << 20;

/// Why there is no outbox.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot create the folder {}; see the volume of --state-dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file cannot be opened, through no fault of its contents.
    #[error("cannot open {}; see the volume of --state-dir, its room and its rights, and that no other operator uses it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        source: Box<redb::Error>,
    },
    /// A file that cannot be used cannot be put aside.
    #[error("cannot rename {}, which cannot be used", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system has no thread for us.
    #[error("cannot start the thread of the outbox")]
    Thread {
        /// The system's reason.
        source: io::Error,
    },
}

/// The open file. Closed only while it is opened anew.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    db: RwLock<Option<Database>>,
}

/// What is wrong with a file.
enum Fault {
    /// Its contents.
    Contents(redb::Error),
    /// Its tables are of another version.
    Foreign,
    /// The way to it.
    Way(redb::Error),
}

impl File {
    pub fn open(options: &Options) -> Result<(Self, Totals), OpenError> {
        let folder = &options.folder;
        fs::create_dir_all(folder).map_err(|source| OpenError::Folder { path: folder.clone(), source })?;
        let path = folder.join(NAME);
        let (db, totals) = open(&path)?;
        Ok((Self { path, db: RwLock::new(Some(db)) }, totals))
    }

    #[cfg(test)]
    pub fn on(db: Database) -> Result<(Self, Totals), redb::Error> {
        store::initialize(&db)?;
        let totals = store::load(&db)?;
        Ok((Self { path: PathBuf::new(), db: RwLock::new(Some(db)) }, totals))
    }

    /// Uses the file.
    pub fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        work(db.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Closes the file after a failure, which the library does not forget, and opens it anew.
    pub fn reopen(&self) -> Result<Totals, OpenError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        *db = None;
        let (opened, totals) = open(&self.path)?;
        *db = Some(opened);
        Ok(totals)
    }
}

fn open(path: &Path) -> Result<(Database, Totals), OpenError> {
    let failed = |source| OpenError::Open { path: path.into(), source: Box::new(source) };
    let fault = match checked(path) {
        Ok(opened) => return Ok(opened),
        Err(Fault::Way(error)) => return Err(failed(error)),
        Err(Fault::Contents(error)) => error.to_string(),
        Err(Fault::Foreign) => "its tables are of another version".to_owned(),
    };
    let aside = path.with_file_name(ASIDE);
    error!(
        file = %path.display(), error = %fault, aside = %aside.display(),
        "the outbox cannot be used and was put aside: alerts that were not delivered are lost unless sensors still have them"
    );
    fs::rename(path, &aside).map_err(|source| OpenError::Aside { path: path.into(), source })?;
    checked(path).map_err(|fault| match fault {
        Fault::Way(error) | Fault::Contents(error) => failed(error),
        Fault::Foreign => failed(redb::Error::Corrupted("a new file is of another version".into())),
    })
}

/// Opens a file and reads all of it once, so that what is wrong with it shows now and not in the middle of the work.
fn checked(path: &Path) -> Result<(Database, Totals), Fault> {
    // The library's checks of a file that it did not write itself may end in a panic.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let mut db = Builder::new().set_cache_size(CACHE_BYTES).create(path).map_err(fault)?;
        if !db.check_integrity().map_err(fault)? {
            warn!(file = %path.display(), "the outbox was repaired");
        }
        match store::initialize(&db).map_err(contents)? {
            true => Ok(()),
            false => Err(Fault::Foreign),
        }?;
        let totals = store::load(&db).map_err(contents)?;
        Ok((db, totals))
    }));
    read.unwrap_or_else(|_| Err(Fault::Contents(redb::Error::Corrupted("reading it failed".into()))))
}

fn fault(error: DatabaseError) -> Fault {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_))
        | DatabaseError::UpgradeRequired(_)
        | DatabaseError::RepairAborted => Fault::Contents(error.into()),
        DatabaseError::Storage(StorageError::Io(ref source))
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Fault::Contents(error.into())
        }
        _ => Fault::Way(error.into()),
    }
}

fn contents(error: redb::Error) -> Fault {
    match error {
        redb::Error::Io(_) | redb::Error::PreviousIo => Fault::Way(error),
        _ => Fault::Contents(error),
    }
}
