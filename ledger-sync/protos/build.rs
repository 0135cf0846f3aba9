//! Compiles `proto/` with no protoc installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "gateway.proto",
        "peer.proto",
        "endorser.proto",
        "chaincode_shim.proto",
        "queryresult.proto",
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
        // A constructor `connect` would collide with the method `Connect` of the chaincode service.
        .build_transport(false)
        .include_file("fabric.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
