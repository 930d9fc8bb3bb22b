use super::*;
use crate::swarm::dht_rpc::testing::{bytes, bytes32, host_port, vectors};
use proptest::prelude::*;
use serde_json::Value;

fn address(v: &Value) -> Option<SocketAddrV4> {
    v.is_object().then(|| host_port(v))
}

fn list(v: &Value) -> Option<Vec<SocketAddrV4>> {
    v.as_array().map(|a| a.iter().map(host_port).collect())
}

fn n(v: &Value) -> u64 {
    v.as_u64().unwrap()
}

fn mode(v: &Value) -> Mode {
    [Mode::FromClient, Mode::FromServer, Mode::FromRelay, Mode::FromSecondRelay, Mode::Reply]
        [n(v) as usize]
}

fn firewall(v: &Value) -> Firewall {
    [Firewall::Unknown, Firewall::Open, Firewall::Consistent, Firewall::Random][n(v) as usize]
}

fn record(v: &Value) -> PeerRecord {
    PeerRecord {
        public_key: PublicKey(bytes32(&v["publicKey"]).unwrap()),
        relay_addresses: list(&v["relayAddresses"]).unwrap(),
    }
}

fn noise_payload(v: &Value) -> NoisePayload {
    NoisePayload {
        version: 1,
        error: n(&v["error"]),
        firewall: firewall(&v["firewall"]),
        holepunch: v["holepunch"].as_object().map(|h| HolepunchInfo {
            id: n(&h["id"]),
            relays: h["relays"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| RelayInfo {
                    relay: host_port(&r["relayAddress"]),
                    peer: host_port(&r["peerAddress"]),
                })
                .collect(),
        }),
        addresses4: list(&v["addresses4"]).unwrap(),
        addresses6: Vec::new(),
        udx: v["udx"].as_object().map(|u| UdxInfo {
            reusable_socket: u["reusableSocket"].as_bool().unwrap(),
            big_datagrams: false,
            id: n(&u["id"]) as u32,
            seq: n(&u["seq"]),
        }),
        secret_stream: v["secretStream"].is_object(),
        relay_through: v["relayThrough"].as_object().map(|r| RelayThrough {
            public_key: PublicKey(bytes32(&r["publicKey"]).unwrap()),
            token: bytes32(&r["token"]).unwrap(),
        }),
        relay_addresses: list(&v["relayAddresses"]),
        relay: None,
    }
}

fn check<T: PartialEq + std::fmt::Debug>(
    name: &str,
    encoded: &[u8],
    value: T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T>,
) {
    assert_eq!(encode(&value), encoded, "{name}");
    assert_eq!(decode(encoded), Ok(value), "{name}");
}

#[test]
fn message_vectors_encode_and_decode() {
    let mut checked = 0;
    for entry in vectors()["hyperdht_messages"].as_array().unwrap() {
        let (name, v) = (entry["name"].as_str().unwrap(), &entry["value"]);
        let e = &bytes(&entry["encoded"])[..];
        checked += 1;
        match name.split(' ').next().unwrap() {
            "handshake" => {
                let value = PeerHandshake {
                    mode: mode(&v["mode"]),
                    noise: bytes(&v["noise"]),
                    peer: address(&v["peerAddress"]),
                    relay: address(&v["relayAddress"]),
                };
                check(name, e, value, PeerHandshake::encode, PeerHandshake::decode);
            }
            "noisePayload" => {
                check(name, e, noise_payload(v), NoisePayload::encode, NoisePayload::decode);
            }
            "holepunch" => {
                let value = PeerHolepunch {
                    mode: mode(&v["mode"]),
                    id: n(&v["id"]),
                    payload: bytes(&v["payload"]),
                    peer: address(&v["peerAddress"]),
                };
                check(name, e, value, PeerHolepunch::encode, PeerHolepunch::decode);
            }
            "holepunchPayload" => {
                let value = HolepunchPayload {
                    error: n(&v["error"]),
                    firewall: firewall(&v["firewall"]),
                    round: n(&v["round"]),
                    connected: v["connected"].as_bool().unwrap(),
                    punching: v["punching"].as_bool().unwrap(),
                    addresses: list(&v["addresses"]),
                    remote_address: address(&v["remoteAddress"]),
                    token: bytes32(&v["token"]),
                    remote_token: bytes32(&v["remoteToken"]),
                };
                check(name, e, value, HolepunchPayload::encode, HolepunchPayload::decode);
            }
            "peer" => check(name, e, record(v), PeerRecord::encode, PeerRecord::decode),
            "announce" => {
                let value = Announce {
                    peer: v["peer"].is_object().then(|| record(&v["peer"])),
                    refresh: bytes32(&v["refresh"]),
                    signature: v["signature"]
                        .as_str()
                        .map(|_| bytes(&v["signature"]).try_into().unwrap()),
                    bump: n(&v["bump"]),
                };
                check(name, e, value, Announce::encode, Announce::decode);
            }
            "lookupRawReply" => {
                let raw: Vec<Vec<u8>> = v["peers"].as_array().unwrap().iter().map(bytes).collect();
                let raw: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
                assert_eq!(LookupReply::encode_raw(&raw, n(&v["bump"])), e);
                let back = LookupReply::decode(e).unwrap();
                let again: Vec<Vec<u8>> = back.peers.iter().map(PeerRecord::encode).collect();
                assert_eq!(again, raw);
            }
            "mutableGetResponse" => {
                let value = MutableValue {
                    seq: n(&v["seq"]),
                    value: bytes(&v["value"]),
                    signature: bytes(&v["signature"]).try_into().unwrap(),
                };
                check(name, e, value, MutableValue::encode, MutableValue::decode);
            }
            // Signed bytes are tested with the signatures; plugins and the blind relay are not ours.
            "mutableSignable" | "pluginRequest" | "blind-relay" => checked -= 1,
            other => panic!("vector {other} is not covered"),
        }
    }
    assert!(checked >= 14, "{checked}");
}

#[test]
fn address_links_match_the_vectors() {
    for v in vectors()["hyperdht_address"].as_array().unwrap() {
        let link = AddressLink {
            public_key: PublicKey(bytes32(&v["key"]).unwrap()),
            nodes: list(&v["nodes"]),
        };
        let encoded = bytes(&v["encoded"]);
        check("address link", &encoded, link, AddressLink::encode, AddressLink::decode);
    }
}

#[test]
fn commands_match_the_vectors() {
    let all = vectors();
    let c = &all["commands"];
    assert_eq!(n(&c["PEER_HANDSHAKE"]), command::PEER_HANDSHAKE);
    assert_eq!(n(&c["LOOKUP"]), command::LOOKUP);
    assert_eq!(n(&c["IMMUTABLE_GET"]), command::IMMUTABLE_GET);
    assert_eq!(n(&c["PLUGIN"]), command::PLUGIN);
}

#[test]
fn our_feature_bit_survives_and_is_none_of_theirs() {
    let mut payload = NoisePayload::empty(1);
    let udx = UdxInfo { reusable_socket: false, big_datagrams: true, id: 9, seq: 0 };
    payload.udx = Some(udx);
    assert_eq!(NoisePayload::decode(&payload.encode()).unwrap().udx, Some(udx));
}

#[test]
fn behind_an_unknown_version_nothing_is_read() {
    assert_eq!(NoisePayload::decode(&[2]), Ok(NoisePayload::empty(2)));
}

fn socket_addr() -> impl Strategy<Value = SocketAddrV4> {
    (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
}

proptest! {
    #[test]
    fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = PeerHandshake::decode(&bytes);
        let _ = PeerHolepunch::decode(&bytes);
        let _ = NoisePayload::decode(&bytes);
        let _ = HolepunchPayload::decode(&bytes);
        let _ = PeerRecord::decode(&bytes);
        let _ = Announce::decode(&bytes);
        let _ = LookupReply::decode(&bytes);
        let _ = MutablePut::decode(&bytes);
        let _ = MutableValue::decode(&bytes);
        let _ = AddressLink::decode(&bytes);
    }

    #[test]
    fn handshakes_round_trip(noise in proptest::collection::vec(any::<u8>(), 0..200), peer in proptest::option::of(socket_addr()), relay in proptest::option::of(socket_addr())) {
        let value = PeerHandshake { mode: Mode::FromSecondRelay, noise, peer, relay };
        prop_assert_eq!(PeerHandshake::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn noise_payloads_round_trip(
        addresses4 in proptest::collection::vec(socket_addr(), 0..8),
        relays in proptest::option::of(proptest::collection::vec(socket_addr(), 0..4)),
        (id, reusable_socket, big_datagrams) in (any::<u32>(), any::<bool>(), any::<bool>()),
        holepunch in proptest::option::of(proptest::collection::vec((socket_addr(), socket_addr()), 0..4)),
    ) {
        let mut value = NoisePayload::empty(1);
        value.addresses4 = addresses4;
        value.relay_addresses = relays;
        value.udx = Some(UdxInfo { reusable_socket, big_datagrams, id, seq: 0 });
        value.holepunch = holepunch.map(|relays| HolepunchInfo {
            id: 3,
            relays: relays.into_iter().map(|(relay, peer)| RelayInfo { relay, peer }).collect(),
        });
        prop_assert_eq!(NoisePayload::decode(&value.encode()), Ok(value));
    }
}
