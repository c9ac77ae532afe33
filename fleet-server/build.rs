//! Makes sure that there is something to embed: the built console, or a page that says how to build it.

use std::path::PathBuf;
use std::{env, fs};

const PLACEHOLDER: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Flotilla</title>\
<body><h1>This build has no console</h1>\
<p>The REST API under <code>/api/v1</code> works. To build the console into the server, run in the source tree:</p>\
<pre>cd fleet-server/console\nnpm ci\nnpm run build\ncargo build -p flotilla-server</pre></body></html>\n";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let dist = root.join("console/dist");
    if !dist.join("index.html").is_file() {
        fs::create_dir_all(&dist).expect("console/dist can be made");
        let page = dist.join("placeholder.html");
        if fs::read_to_string(&page).ok().as_deref() != Some(PLACEHOLDER) {
            fs::write(page, PLACEHOLDER).expect("console/dist can be written");
        }
    }
    println!("cargo::rerun-if-changed={}", dist.display());
}
