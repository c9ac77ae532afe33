//! The executable, begun with a root, against a repository behind a real socket.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use testkit::tuf::{Served, Sim};

/// The executable asks the system's clock: nothing expires in its time.
pub(crate) const FAR: &str = "2999-01-01T00:00:00Z";

/// The simulated repository lives in its own time; the executable asks the system's clock.
pub(crate) fn served(change: impl FnOnce(&mut Sim)) -> Served {
    let mut sim = Sim::new();
    sim.root["expires"] = json!(FAR);
    sim.put_root(&[]);
    sim.role("targets")["expires"] = json!(FAR);
    sim.snapshot["expires"] = json!(FAR);
    sim.timestamp["expires"] = json!(FAR);
    change(&mut sim);
    sim.publish();
    Served::begin(sim).unwrap()
}

/// A folder of trusted metadata and one for targets.
pub(crate) struct Client {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: String,
}

impl Client {
    /// Begun with root version 1.
    pub(crate) fn begin(served: &Served) -> Self {
        let client = Self::given(&served.sim().files["1.root.json"], &served.address);
        assert!(served.asked().is_empty(), "init needs no network");
        client
    }

    /// Begun with this root.
    pub(crate) fn given(root: &[u8], address: &str) -> Self {
        let client = Self { folder: tempfile::tempdir().unwrap(), address: address.to_owned() };
        let path = client.path("trusted.json");
        fs::write(&path, root).unwrap();
        let made = client.run(&["init", path.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        client
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuf-client"));
        command.arg("--metadata-dir").arg(self.path("metadata")).args(args).output().unwrap()
    }

    pub(crate) fn refresh(&self) -> Output {
        self.run(&["--metadata-url", &format!("{}/metadata", self.address), "refresh"])
    }

    pub(crate) fn download(&self, names: &[&str]) -> Output {
        let (metadata, targets) =
            (format!("{}/metadata/", self.address), format!("{}/targets", self.address));
        let folder = self.path("targets");
        let mut args = vec!["--metadata-url", &metadata];
        for name in names {
            args.extend(["--target-name", name]);
        }
        args.extend(["--target-base-url", &targets, "--target-dir", folder.to_str().unwrap(), "download"]);
        self.run(&args)
    }

    pub(crate) fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.path("metadata"))
    }

    pub(crate) fn targets(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.path("targets"))
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

pub(crate) fn is_refused(output: &Output, step: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(step), "{said}");
    assert!(output.stdout.is_empty(), "errors go to stderr");
}

pub(crate) fn is_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
