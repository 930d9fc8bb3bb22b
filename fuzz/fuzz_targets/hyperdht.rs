//! Values inside DHT requests and replies, sealed or not.
#![no_main]

use hdrive::swarm::hyperdht::handshake::Answering;
use hdrive::swarm::hyperdht::messages::{
    AddressLink, Announce, HolepunchPayload, LookupReply, MutablePut, MutableValue, NoisePayload,
    PeerHandshake, PeerHolepunch, PeerRecord,
};
use hdrive::swarm::hyperdht::secure_payload::SecurePayload;
use hdrive_fuzz::key_pair;
use libfuzzer_sys::fuzz_target;

macro_rules! same_again {
    ($bytes:expr; $($kind:ty),*) => {$(
        if let Ok(message) = <$kind>::decode($bytes) {
            let again = message.encode();
            assert_eq!(<$kind>::decode(&again).map(|m| m.encode()), Ok(again), stringify!($kind));
        }
    )*};
}

fuzz_target!(|bytes: &[u8]| {
    same_again!(bytes; PeerHandshake, PeerHolepunch, NoisePayload, HolepunchPayload, PeerRecord, Announce,
        MutablePut, MutableValue, AddressLink);
    let _ = LookupReply::decode(bytes);
    assert!(SecurePayload::new([1; 32], [2; 32]).open(bytes).is_none());
    assert!(Answering::read(&key_pair(1), bytes, [3; 32]).is_none());
});
