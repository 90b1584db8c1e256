//! `cfg(jit)`: compiled code exists for this host. The one place that knows for which; Cargo.toml
//! names the same for what only the emitter depends on.

#[expect(
    clippy::disallowed_methods,
    reason = "how cargo tells the host that is compiled for"
)]
fn target(what: &str) -> String {
    std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default()
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(jit)");
    if target("ARCH") == "x86_64" && target("OS") == "linux" {
        println!("cargo::rustc-cfg=jit");
    }
}
