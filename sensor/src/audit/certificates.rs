//! `gyrfalcon audit certificates`: an authority, a certificate for the receiver, and one for the API servers.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tracing::error;

use link::chain;

use crate::{cli, exit::Exit, out};

/// How long they are good for. Who makes them by hand does not want to do so often; the authority's key is not kept.
const DAYS: i64 = 3650;

/// Makes the files and says what to do with them.
pub fn make(args: &cli::AuditCertificates) -> Exit {
    let made = files(&args.names).map_err(|error| chain(&error).to_string());
    let written = made.and_then(|files| {
        let folder = &args.folder;
        fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        for (name, text) in files {
            write(&folder.join(name), &text)
                .map_err(|error| format!("cannot write {}: {error}", folder.join(name).display()))?;
        }
        Ok(())
    });
    if let Err(why) = written {
        error!(why, "no certificates were made");
        return Exit::System;
    }
    let folder = args.folder.display();
    out::print(&format!(
        "ca.crt, tls.crt, tls.key (receiver) and client.crt, client.key (API server) are in {folder}.\n\n\
         For the chart (audit.tls.secretName: gyrfalcon-audit-tls):\n  \
         kubectl create secret generic gyrfalcon-audit-tls -n gyrfalcon --from-file={folder}/ca.crt \
         --from-file={folder}/tls.crt --from-file={folder}/tls.key\n\n\
         For the API server:\n  \
         gyrfalcon audit policy --kubeconfig https://{}:9765/k8s-audit --certificates {folder} > webhook.yaml\n",
        args.names.first().map_or("ADDRESS", String::as_str)
    ))
}

/// New files only, and keys for their owner only.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(if path.extension().is_some_and(|end| end == "key") {
        0o600
    } else {
        0o644
    });
    io::Write::write_all(&mut options.open(path)?, text.as_bytes())
}

/// Names and texts of the files.
pub(super) fn files(names: &[String]) -> Result<Vec<(&'static str, String)>, rcgen::Error> {
    let params = |names: Vec<String>, common: &str| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::days(DAYS);
        Ok(params)
    };
    let mut authority = params(Vec::new(), "gyrfalcon audit")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = authority.self_signed(&key)?;
    let issuer = Issuer::from_params(&authority, &key);
    let leaf = |names: Vec<String>, common: &str, usage| -> Result<(String, String), rcgen::Error> {
        let mut leaf = params(names, common)?;
        leaf.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        Ok((leaf.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let server = leaf(names.to_vec(), "gyrfalcon audit receiver", ExtendedKeyUsagePurpose::ServerAuth)?;
    let client = leaf(Vec::new(), "kube-apiserver audit webhook", ExtendedKeyUsagePurpose::ClientAuth)?;
    Ok(vec![
        ("ca.crt", certificate.pem()),
        ("tls.crt", server.0),
        ("tls.key", server.1),
        ("client.crt", client.0),
        ("client.key", client.1),
    ])
}
