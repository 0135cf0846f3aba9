//! Which channels a member is told of, by the gateway.

#![allow(missing_docs, dead_code, clippy::unwrap_used)]

mod client;

use client::{Client, ledger, serve};
use prost::Message;
use protos::peer::ChannelQueryResponse;

#[tokio::test(flavor = "multi_thread")]
async fn get_channels_names_those_that_the_caller_may_read() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    for (member, msp_id, expected) in [("vsp1", "Vsp1MSP", vec!["ch-1", "ch-2"]), ("vsp2", "Vsp2MSP", vec!["ch-2"])] {
        let mut client = Client::connect(place.path(), member, msp_id, &server).await;
        let payload = client.evaluate("ch-2", "cscc", &["GetChannels"]).await.unwrap();
        let channels = ChannelQueryResponse::decode(payload.as_slice()).unwrap().channels;
        let names: Vec<&str> = channels.iter().map(|channel| channel.channel_id.as_str()).collect();
        assert_eq!(names, expected);
        let refused = client.evaluate("ch-2", "cscc", &["JoinChain"]).await.unwrap_err();
        assert!(refused.message().contains("Requested function JoinChain not found"), "{refused}");
    }
    server.stop().await.unwrap();
}
