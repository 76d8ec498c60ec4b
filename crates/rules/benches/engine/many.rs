//! Many rules that are alike in form and differ in every name, path and value, as a large organisation has them: each
//! team protects its own files, tools, services and networks.

use std::fmt::Write;

const FRONT: &str = r#"
- macro: open_read
  condition: (evt.type in (open,openat,openat2) and evt.is_open_read=true and fd.typechar='f' and fd.num>=0)
- macro: open_write
  condition: (evt.type in (open,openat,openat2) and evt.is_open_write=true and fd.typechar='f' and fd.num>=0)
- macro: spawned_process
  condition: (evt.type in (execve, execveat))
- macro: container
  condition: (container.id != host)
- macro: outbound
  condition: (evt.type = connect and fd.typechar in (4, 6))
- macro: rename
  condition: (evt.type in (rename, renameat, renameat2))
- macro: remove
  condition: (evt.type in (rmdir, unlink, unlinkat))
"#;

/// A rules file with so many rules.
pub fn rules(count: usize) -> String {
    let mut text = FRONT.to_owned();
    for n in 0..count {
        let condition = condition(n);
        let _ = write!(
            text,
            "- rule: Team {n} policy\n  desc: What team {n} does not want to see.\n  condition: >\n    {condition}\n  \
             output: policy of team {n} broken (file=%fd.name user=%user.name command=%proc.cmdline parent=%proc.pname)\n  \
             priority: WARNING\n  tags: [team-{n}]\n"
        );
    }
    text
}

fn condition(n: usize) -> String {
    let (a, b) = (n / 250 % 250, n % 250);
    match n % 16 {
        0 => format!(
            "open_read and fd.name startswith /srv/team{n}/secrets/ and not proc.name in (app{n}, backup{n}, vault)"
        ),
        1 => {
            format!("open_write and fd.name in (/etc/team{n}.conf, /etc/team{n}/main.conf, /opt/team{n}/settings.ini)")
        }
        2 => format!("open_write and fd.directory = /var/lib/team{n} and not proc.pname startswith deploy{n}"),
        3 => format!("open_read and fd.name endswith .team{n}.key and user.name != team{n}"),
        4 => format!("open_read and container and fd.name contains /wallets/team{n}/ and proc.name != walletd{n}"),
        5 => format!("open_write and fd.name glob \"/home/*/team{n}/*.sh\" and not proc.name in (git, rsync)"),
        6 => format!("open_write and fd.name pmatch (/data/team{n}, /mnt/team{n}/share) and not proc.aname = sync{n}"),
        7 => format!("spawned_process and proc.name in (tool{n}, admin{n}) and not user.name in (root, team{n})"),
        8 => format!("spawned_process and proc.cmdline contains \"--token-team{n}\" and not proc.pname = ci{n}"),
        9 => format!("spawned_process and proc.exepath startswith /opt/team{n}/bin/ and proc.pname != supervisor{n}"),
        10 => format!(
            "spawned_process and container and container.image.repository = registry.example.com/team{n}/app and not proc.name in (server{n}, sh)"
        ),
        11 => format!("spawned_process and proc.aname = agent{n} and proc.args icontains Debug{n}"),
        12 => format!("outbound and fd.sip in (\"172.16.{a}.{b}\", \"172.17.{a}.{b}\") and not proc.name = client{n}"),
        13 => format!("outbound and fd.snet in (\"10.{}.{b}.0/24\") and fd.sport = {}", 100 + a % 100, 1024 + n),
        14 => format!("rename and fs.path.target startswith /releases/team{n}/ and not proc.name = release{n}"),
        _ => format!(
            "remove and (fs.path.name startswith /audit/team{n}/ or fs.path.name = /var/log/team{n}.log) and proc.name != logrotate"
        ),
    }
}
