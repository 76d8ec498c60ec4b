//! Sensors of other releases: what they say beyond our words is passed over, what they do not say yet is not missed.

use anyhow::{Context, Result, ensure};
use axum::http::uri::PathAndQuery;
use link::proto;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, client::Grpc};
use tonic_prost::ProstCodec;

use crate::{
    BAD, LONG, World, acknowledged,
    common::sensor::{alert, hello},
};

/// A later `FromSensor`: with a field beside the choice, and a choice more.
#[derive(Clone, PartialEq, Message)]
struct LaterFromSensor {
    #[prost(bytes = "vec", optional, tag = "1")]
    hello: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    alerts: Option<Vec<u8>>,
    #[prost(string, optional, tag = "98")]
    beside: Option<String>,
    #[prost(bytes = "vec", optional, tag = "99")]
    choice: Option<Vec<u8>>,
}

/// Bytes of a message with a field that we do not know behind it.
fn with_more(message: &impl Message) -> Vec<u8> {
    // Field 77, of two bytes.
    [message.encode_to_vec(), vec![0xea, 0x04, 0x02, b'h', b'i']].concat()
}

pub async fn sensors_of_the_release_before_and_after_are_understood(world: &World) -> Result<()> {
    let (place, token) = world.places.get(BAD).zip(world.tokens.get(BAD)).context("a node")?;

    // One release later: another protocol, fields and messages that we do not know.
    let mut grpc = Grpc::new(world.dial.channel().await?);
    grpc.ready().await?;
    let (sender, queue) = mpsc::channel(8);
    let mut request = Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let later = proto::Hello { protocol: link::PROTOCOL + 1, ..hello(&place.node, "spool-later") };
    sender.send(LaterFromSensor { hello: Some(with_more(&later)), ..Default::default() }).await?;
    let codec = ProstCodec::<LaterFromSensor, proto::ToSensor>::default();
    let path = PathAndQuery::from_static("/gyrfalcon.link.v1.Link/Session");
    let mut incoming = grpc.streaming(request, path, codec).await?.into_inner();
    sender.send(LaterFromSensor { choice: Some(b"hi".to_vec()), ..Default::default() }).await?;
    let alerts = proto::Alerts { first: 1, alerts: vec![proto::Alert { seq: 1, ..alert("none", "r", None) }], lost: 0 };
    let beside = Some("beside".to_owned());
    sender.send(LaterFromSensor { alerts: Some(with_more(&alerts)), beside, ..Default::default() }).await?;
    let acked = async {
        while let Some(message) = incoming.message().await? {
            if matches!(message.message, Some(proto::to_sensor::Message::AlertsAck(ack)) if ack.up_to == 1) {
                return anyhow::Ok(true);
            }
        }
        Ok(false)
    };
    ensure!(tokio::time::timeout(LONG, acked).await.context("no acknowledgement")??, "the session ended");
    drop((sender, incoming));

    // The oldest that is understood says no more than what it is.
    let oldest = proto::Hello {
        protocol: link::OLDEST_PROTOCOL,
        node: place.node.clone(),
        spool: "spool-oldest".to_owned(),
        ..proto::Hello::default()
    };
    let mut session = world.dial.open(Some(token), oldest.clone()).await?;
    let sent = proto::Alert { seq: 1, ..proto::Alert::default() };
    session.say(proto::from_sensor::Message::Alerts(proto::Alerts { first: 1, alerts: vec![sent], lost: 0 })).await?;
    acknowledged(&mut session, 1).await?;
    drop(session);

    // One that is older is told what to do.
    let ancient = proto::Hello { protocol: link::OLDEST_PROTOCOL - 1, ..oldest };
    let Err(error) = world.dial.open(Some(token), ancient).await else { anyhow::bail!("let in with an old protocol") };
    let status = error.downcast_ref::<tonic::Status>().with_context(|| format!("{error:#}"))?;
    ensure!(status.code() == Code::FailedPrecondition && status.message().contains("update the sensor"), "{status}");
    // Nothing of it has ended the session of anybody else.
    ensure!(world.sensors.iter().all(|sensor| sensor.state().connected), "others are not connected");
    Ok(())
}
