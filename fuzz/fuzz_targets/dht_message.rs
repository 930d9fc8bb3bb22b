//! Datagrams of dht-rpc.
#![no_main]

use hdrive::swarm::dht_rpc::message::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else { return };
    let again = match &message {
        Message::Request(request) => request.encode(),
        Message::Response(response) => response.encode(),
    };
    assert_eq!(Message::decode(&again), Ok(message));
});
