//! Compiles `proto/` with no protoc installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "gateway.proto",
        "peer.proto",
        "orderer.proto",
        "config.proto",
        "common.proto",
        "msp.proto",
        "rwset.proto",
        "kvrwset.proto",
        "google/rpc/status.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Maps are written in key order, so that one configuration is one sequence of bytes.
        .btree_map(".")
        .include_file("fabric.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
