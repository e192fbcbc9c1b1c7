//! The network of a run, made of memory: latency, cuts, stalls, resets, and a process that dies around a request.
//! It plays what the simulator's plan says a network does, under the genuine client's limits.

use super::world::{Life, World};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sparkspool::net::{Carried, Carrier, NetError};
use sparkspool::simulator::{Reply, Request};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer takes, in milliseconds.
const LATENCY: std::ops::Range<u64> = 20..400;

/// Carries the requests of one process.
pub(crate) fn carrier(life: &Arc<Life>) -> Carrier {
    let life = Arc::clone(life);
    Arc::new(move |url, key| {
        let life = Arc::clone(&life);
        Box::pin(async move {
            if life.ends("death_before_a_request", 0.4) {
                return std::future::pending().await;
            }
            let carried = carry(&life.world, &url, key.as_deref()).await;
            if life.ends("death_before_an_answer", 0.4) {
                return std::future::pending().await;
            }
            carried
        })
    })
}

async fn carry(world: &World, url: &url::Url, key: Option<&str>) -> Result<Carried, NetError> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    world.note_request(&target);
    let (latency, zips) = {
        let mut diary = world.diary.lock().unwrap();
        (diary.rng.u64(LATENCY), diary.rng.f64() < world.compressed)
    };
    tokio::time::sleep(Duration::from_millis(latency)).await;
    let host = url.host_str().unwrap();
    let request = Request { method: "GET", target: &target, host, authorization: key };
    let Reply { response, wire } = world.simulation.answer(&request, world.clock.now());
    for (name, wait) in [("slow", wire.slow), ("stalled", wire.stalled)] {
        if let Some(wait) = wait {
            world.simulation.count_fault(name);
            tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        }
    }
    if wire.reset {
        world.simulation.count_fault("reset");
        return Err(NetError::Broken("connection reset by peer".into()));
    }
    if wire.truncated {
        world.simulation.count_fault("truncated");
        return Err(NetError::Broken("end of file before message length reached".into()));
    }
    let (mut headers, mut body) = (response.headers, response.body);
    if zips || wire.truncated_gzip {
        let mut whole = gzip(&body);
        if wire.truncated_gzip {
            world.simulation.count_fault("truncated_gzip");
            whole.truncate(whole.len() / 2);
        }
        headers.push(("content-encoding", "gzip".to_owned()));
        body = vec![Bytes::from(whole)];
    }
    world.note_answer(body.iter().map(|piece| piece.len() as u64).sum());
    Ok(Carried { status: response.status, headers, body })
}

fn gzip(pieces: &[Bytes]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    pieces.iter().for_each(|piece| encoder.write_all(piece).unwrap());
    encoder.finish().unwrap()
}
