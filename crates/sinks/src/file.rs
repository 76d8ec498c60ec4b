//! Alerts in a file, one a line.
//!
//! The file belongs to the administrator, too: it may be renamed or removed at any time (logrotate), the disk may be
//! full for a while, and someone may be reading. Before each alert the name is compared with the open file, which costs
//! one `stat`; a line that was cut off by a full disk is taken back.

use std::{
    fs,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use api::sink::{FileSink, Format};
use rules::alert::Alert;

use crate::{
    SendError, Sink,
    write::{WriteError, line, write_line},
};

pub(crate) const DOC: &str = "Each alert is one line at the end of a file, as Falco's JSON or text. The file and its \
    folder are created when missing, with rights for their owner only. When the file was renamed or removed, a new one \
    is begun before the next alert, so logrotate needs no signal; after a copy and truncate writing goes on at the \
    new end. A line cut off by a full disk is taken back, and writing resumes once there is room. Lines reach the disk \
    when the kernel writes them back: a power failure can lose the last seconds. In a \
    cluster a file is refused: there is no one host whose file it would be.";

/// How alerts are written to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// Text or JSON.
    pub format: Format,
    /// Largest size in bytes, and how many old files to keep; none where someone else rotates.
    pub rotation: Option<Rotation>,
}

/// When a file is full, and how many full ones to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Largest size in bytes.
    pub max_bytes: u64,
    /// Old files to keep.
    pub keep: u8,
}

impl FileConfig {
    /// The configuration that a spec describes, with its defaults.
    pub fn new(spec: &FileSink) -> Self {
        let keep = spec.keep.unwrap_or(5).max(1);
        Self {
            path: spec.path.clone().into(),
            format: spec.format.unwrap_or(Format::Json),
            rotation: spec.max_size.map(|size| Rotation { max_bytes: size.bytes(), keep }),
        }
    }
}

/// A file.
#[derive(Debug)]
pub(crate) struct File {
    config: FileConfig,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: fs::File,
    /// Device and inode: what the path must still lead to.
    identity: (u64, u64),
    /// A device or a pipe has no length to go back to.
    regular: bool,
    torn: bool,
}

impl File {
    pub fn new(config: FileConfig) -> Self {
        Self { config, open: None }
    }

    /// The open file that the path leads to.
    fn current(&mut self) -> Result<&mut Open, WriteError> {
        let path = &self.config.path;
        let moved = |open: &Open| match fs::metadata(path) {
            Ok(found) => identity(&found) != open.identity,
            // Other errors are about the way to the file; the file we have is still good.
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if self.open.as_ref().is_some_and(moved) {
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => Ok(none.insert(open(path)?)),
        }
    }

    /// Makes place when the line would make the file too large.
    fn rotate(&mut self, line: usize) -> Result<(), WriteError> {
        let Some(Rotation { max_bytes, keep }) = self.config.rotation else { return Ok(()) };
        let open = self.current()?;
        let len = open.file.metadata().map_or(0, |metadata| metadata.len());
        if !open.regular || len == 0 || len.saturating_add(line as u64) <= max_bytes {
            return Ok(());
        }
        let path = &self.config.path;
        for number in (0..keep).rev() {
            let from = if number == 0 { path.clone() } else { numbered(path, number) };
            match fs::rename(&from, numbered(path, number + 1)) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(WriteError::Rotate { path: from, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.open = None;
        Ok(())
    }
}

impl Sink for File {
    fn prepare(&mut self) -> Result<(), SendError> {
        self.current()?;
        Ok(())
    }

    fn send(&mut self, alert: &Alert) -> Result<(), SendError> {
        let line = line(alert, self.config.format);
        self.rotate(line.len())?;
        let target = self.config.path.display().to_string();
        let open = self.current()?;
        let failed = |source| WriteError::Write { target: target.clone(), source };
        let end = open.file.metadata().map_err(failed)?.len();
        let torn_before = open.torn;
        write_line(&mut open.file, &line, &mut open.torn).map_err(|(source, partly)| {
            if partly && open.regular && open.file.set_len(end).is_ok() {
                open.torn = torn_before;
            }
            failed(source).into()
        })
    }

    fn reopen(&mut self) {
        self.open = None;
    }
}

fn open(path: &Path) -> Result<Open, WriteError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(source) if source.kind() != ErrorKind::AlreadyExists => {
                return Err(WriteError::Folder { path: folder.into(), source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    let failed = |source| WriteError::Open { path: path.into(), source };
    // Reading is for the last byte only, and not everything that can be written to can be read.
    let options = |read| fs::OpenOptions::new().read(read).append(true).create(true).mode(0o600).open(path);
    let mut file = options(true).or_else(|_| options(false)).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let regular = metadata.is_file();
    let torn = regular && metadata.len() > 0 && ends_within_line(&mut file).unwrap_or(false);
    Ok(Open { file, identity: identity(&metadata), regular, torn })
}

fn ends_within_line(file: &mut fs::File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn numbered(path: &Path, number: u8) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use rules::alert::Priority;

    use super::*;
    use crate::{Loss, sink::Again, testing};

    fn sink(path: &Path) -> File {
        File::new(FileConfig { path: path.into(), format: Format::Text, rotation: None })
    }

    fn alert(rule: &str) -> Alert {
        testing::alert(rule, Priority::Notice, &[])
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| line.split_once("Notice ").map_or(line, |(_, message)| message).to_owned()).collect()
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn the_folder_and_the_file_are_for_their_owner() {
        let folder = folder();
        let path = folder.path().join("new/alerts");
        sink(&path).send(&alert("a")).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&folder.path().join("new")), 0o700);
    }

    #[test]
    fn a_renamed_file_is_left_alone_and_a_new_one_begun() {
        let folder = folder();
        let (path, old) = (folder.path().join("alerts"), folder.path().join("alerts.1"));
        let mut sink = sink(&path);
        sink.send(&alert("a")).expect("written");
        fs::rename(&path, &old).expect("renamed");
        sink.send(&alert("b")).expect("written");
        assert_eq!((lines(&old), lines(&path)), (vec!["a happened".into()], vec!["b happened".into()]));
        fs::remove_file(&path).expect("removed");
        sink.send(&alert("c")).expect("written");
        assert_eq!(lines(&path), ["c happened"]);
    }

    #[test]
    fn a_truncated_file_is_continued_at_its_new_end() {
        let folder = folder();
        let path = folder.path().join("alerts");
        let mut sink = sink(&path);
        sink.send(&alert("a")).expect("written");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("truncated");
        sink.send(&alert("b")).expect("written");
        assert_eq!(lines(&path), ["b happened"]);
    }

    #[test]
    fn a_line_that_someone_left_unfinished_is_ended() {
        let folder = folder();
        let path = folder.path().join("alerts");
        fs::write(&path, "half").expect("written");
        sink(&path).send(&alert("a")).expect("written");
        assert_eq!(lines(&path), ["half", "a happened"]);
    }

    #[test]
    fn full_files_are_numbered_and_the_oldest_goes() {
        let folder = folder();
        let path = folder.path().join("alerts");
        let mut sink = sink(&path);
        let len = line(&alert("0"), Format::Text).len() as u64;
        sink.config.rotation = Some(Rotation { max_bytes: 2 * len, keep: 2 });
        for number in 0..9 {
            sink.send(&alert(&number.to_string())).expect("written");
        }
        let all = |name: &str| lines(&folder.path().join(name)).concat();
        assert_eq!(all("alerts"), "8 happened");
        assert_eq!(all("alerts.1"), "6 happened7 happened");
        assert_eq!(all("alerts.2"), "4 happened5 happened");
        assert!(!folder.path().join("alerts.3").exists());
    }

    #[test]
    fn a_full_disk_is_worth_another_attempt_and_its_remedy_is_named() {
        let error = sink(Path::new("/dev/full")).send(&alert("a")).expect_err("no space");
        assert_eq!((error.again(), error.exhausted()), (Again::Later, Loss::WriteFailed));
        assert!(error.remedy().contains("make room"), "{}", error.remedy());
        assert!(error.to_string().contains("/dev/full"), "{error}");
    }

    #[test]
    fn a_missing_folder_two_levels_up_is_named() {
        let folder = folder();
        let error = sink(&folder.path().join("a/b/alerts")).send(&alert("a")).expect_err("no folder");
        assert!(error.to_string().ends_with("a/b"), "{error}");
        assert!(error.remedy().contains("create the folder"), "{}", error.remedy());
    }
}
