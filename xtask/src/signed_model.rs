//! OpenSSF model signatures made by the reference tool, `model-signing`, and checked by `flotilla release build`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::demo::example;
use crate::run::{check, program, target_folder};
use crate::{builds, tools};

const PACKAGES: [&str; 2] = ["model-signing==1.1.1", "pyopenssl==26.4.0"];
/// The tool reads keys, it doesn't make them.
const MAKE_KEY: &str = "\
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
open(sys.argv[1], 'wb').write(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
open(sys.argv[2], 'wb').write(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
";

/// Signs a copy of the example's models and builds a release of it; then once more with a file that nobody signed.
///
/// # Errors
/// When a tool is missing, a good signature is refused or a bad folder is taken.
pub(crate) fn main() -> Result<()> {
    let binaries = builds::binaries()?;
    let bin = tools::python_env("model-signing", &PACKAGES)?;
    let folder = target_folder()?.join("signed-model");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let upstream = folder.join("upstream");
    fs::create_dir_all(&upstream)?;
    for entry in fs::read_dir(example("1.0.0"))? {
        let entry = entry?;
        let is_model = entry.path().extension().is_some_and(|extension| extension == "onnx");
        let to = if is_model { &upstream } else { &folder };
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    let file = |name: &str| folder.join(name);
    check(
        program(&text(&bin.join("python"))).args(["-c", MAKE_KEY]).arg(file("key.pem")).arg(file("key.pub")),
    )?;
    let mut sign = program(&text(&bin.join("model_signing")));
    sign.args(["sign", "key"]).arg(&upstream).arg("--private_key").arg(file("key.pem"));
    check(sign.arg("--signature").arg(upstream.join("model.sig")))?;
    let spec = file("release.toml");
    let told = "\n[signed_model]\nfolder = \"upstream\"\nsignature = \"upstream/model.sig\"\npublic_key = \"key.pub\"\n";
    let written = fs::read_to_string(&spec)?.replace("file = \"", "file = \"upstream/") + told;
    fs::write(&spec, written)?;
    let build = || {
        let mut build = program(&text(&binaries.cli));
        build.args(["release", "build"]).arg(&spec).arg("--out").arg(file("out")).output()
    };
    let built = build().context("cannot start flotilla")?;
    ensure!(built.status.success(), "refused: {}", String::from_utf8_lossy(&built.stderr));
    let manifest: Value = serde_json::from_slice(&fs::read(file("out/manifest.json"))?)?;
    let unchanged = &manifest["lineage"]["oms_unchanged_variants"];
    ensure!(unchanged == "int8,f16,f32", "the lineage says {unchanged}");
    fs::write(upstream.join("extra.bin"), "x")?;
    let refused = build().context("cannot start flotilla")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("extra.bin is not listed"), "not refused: {said}");
    println!(
        "a model signed by model-signing is taken with its lineage; with an unlisted file it is refused"
    );
    Ok(())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
