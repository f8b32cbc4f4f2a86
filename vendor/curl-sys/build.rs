//! Links the system's libcurl if a compiler finds its headers. If it does not, there is nothing to
//! link: librdkafka's own build looks for them in the same way, and leaves OIDC out.

use std::env;
use std::fs;
use std::path::PathBuf;

const PROBE: &str = "#include <curl/curl.h>\n";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let probe = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("probe.c");
    fs::write(&probe, PROBE).expect("OUT_DIR can be written");
    let found = cc::Build::new().cargo_metadata(false).warnings(false).file(probe).try_expand();
    if found.is_ok() {
        println!("cargo:rustc-link-lib=dylib=curl");
    }
}
