//! Where OpenSSL comes from: the system, if a compiler finds its headers, else its source.
//!
//! `MILLRACE_OPENSSL=source` builds it from source all the same, for a binary that must run where
//! no OpenSSL is.

use std::env;
use std::fs;
use std::path::PathBuf;

/// Where most distributions keep the certificates of authorities, `SSL_CERT_FILE` aside.
const CERTIFICATES: &str = "/etc/ssl";

/// The oldest OpenSSL whose TLS 1.3 librdkafka has been tried with is 1.1.1.
const PROBE: &str = "
#include <openssl/ssl.h>
#if OPENSSL_VERSION_NUMBER < 0x1010100fL
#error too old
#endif
";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MILLRACE_OPENSSL");
    let from_source = env::var("MILLRACE_OPENSSL").is_ok_and(|from| from == "source");
    if !from_source && has_headers() {
        println!("cargo:rustc-link-lib=dylib=ssl");
        println!("cargo:rustc-link-lib=dylib=crypto");
        return;
    }
    let built = openssl_src::Build::new().openssl_dir(CERTIFICATES).build();
    built.print_cargo_metadata();
    // librdkafka's build reads it from here.
    let root = built.lib_dir().parent().expect("a library lies in a directory");
    println!("cargo:root={}", root.display());
}

/// Whether the compiler finds headers that are new enough. It is asked itself, because pkg-config,
/// which the registry's crate asks, is not there wherever a compiler is.
fn has_headers() -> bool {
    let probe = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("probe.c");
    fs::write(&probe, PROBE).expect("OUT_DIR can be written");
    cc::Build::new().cargo_metadata(false).warnings(false).file(probe).try_expand().is_ok()
}
