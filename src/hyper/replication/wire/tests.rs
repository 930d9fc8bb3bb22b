use super::*;
use crate::codec::MAX_INT;
use crate::key::{hex, unhex};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/hypercore.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(v: &Value) -> Vec<u8> {
    unhex(v.as_str().unwrap()).unwrap()
}

fn num(v: &Value) -> u64 {
    v.as_u64().unwrap()
}

fn some(v: &Value) -> Option<&Value> {
    (!v.is_null()).then_some(v)
}

fn fixed(v: &Value) -> Hash {
    bytes(v).try_into().unwrap()
}

fn node_list(v: &Value) -> Vec<Node> {
    let node = |n: &Value| Node {
        index: num(&n["index"]),
        size: num(&n["size"]),
        hash: fixed(&n["hash"]),
    };
    v.as_array().unwrap().iter().map(node).collect()
}

fn part(v: &Value) -> Option<NodeRequest> {
    some(v).map(|v| NodeRequest { index: num(&v["index"]), nodes: num(&v["nodes"]) })
}

/// A message of the vectors, built from its JSON form.
fn message(kind: &str, m: &Value) -> Message {
    let flag = |name: &str| m[name].as_bool().unwrap();
    match kind {
        "sync" => Message::Sync(Sync {
            fork: num(&m["fork"]),
            length: num(&m["length"]),
            remote_length: num(&m["remoteLength"]),
            can_upgrade: flag("canUpgrade"),
            uploading: flag("uploading"),
            downloading: flag("downloading"),
            has_manifest: flag("hasManifest"),
            allow_push: flag("allowPush"),
        }),
        "request" => Message::Request(RequestMessage {
            id: num(&m["id"]),
            fork: num(&m["fork"]),
            request: Request {
                block: part(&m["block"]),
                hash: part(&m["hash"]),
                seek: some(&m["seek"])
                    .map(|v| SeekRequest { bytes: num(&v["bytes"]), padding: num(&v["padding"]) }),
                upgrade: some(&m["upgrade"])
                    .map(|v| UpgradeRequest { start: num(&v["start"]), length: num(&v["length"]) }),
                manifest: flag("manifest"),
                priority: num(&m["priority"]),
            },
        }),
        "cancel" => Message::Cancel { request: num(&m["request"]) },
        "data" => Message::Data { request: num(&m["request"]), proof: proof(m) },
        "noData" => Message::NoData {
            request: num(&m["request"]),
            reason: [Reason::Unknown, Reason::NotAvailable, Reason::InvalidRequest]
                [num(&m["reason"]) as usize],
        },
        "want" => Message::Want(want_of(m)),
        "unwant" => Message::Unwant(want_of(m)),
        "bitfield" => Message::Bitfield {
            start: num(&m["start"]),
            words: m["bitfield"].as_array().unwrap().iter().map(|w| num(w) as u32).collect(),
        },
        "range" => Message::Range {
            drop: flag("drop"),
            start: num(&m["start"]),
            length: num(&m["length"]),
        },
        "extension" => Message::Extension {
            name: m["name"].as_str().unwrap().into(),
            payload: bytes(&m["message"]).into(),
        },
        _ => panic!("{kind}"),
    }
}

fn want_of(m: &Value) -> Want {
    Want { start: num(&m["start"]), length: num(&m["length"]), any: m["any"].as_bool().unwrap() }
}

fn proof(m: &Value) -> Proof {
    Proof {
        fork: num(&m["fork"]),
        block: some(&m["block"]).map(|v| BlockProof {
            index: num(&v["index"]),
            value: bytes(&v["value"]).into(),
            nodes: node_list(&v["nodes"]),
        }),
        hash: some(&m["hash"])
            .map(|v| HashProof { index: num(&v["index"]), nodes: node_list(&v["nodes"]) }),
        seek: some(&m["seek"])
            .map(|v| SeekProof { bytes: num(&v["bytes"]), nodes: node_list(&v["nodes"]) }),
        upgrade: some(&m["upgrade"]).map(|v| UpgradeProof {
            start: num(&v["start"]),
            length: num(&v["length"]),
            nodes: node_list(&v["nodes"]),
            additional: node_list(&v["additionalNodes"]),
            signature: some(&v["signature"]).map(bytes).unwrap_or_default(),
        }),
        manifest: some(&m["manifest"]).map(|v| {
            let mut manifest = Manifest::single(fixed(&v["signers"][0]["publicKey"]));
            manifest.version = num(&v["version"]) as _;
            manifest
        }),
    }
}

fn encoded(m: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    m.encode(&mut out);
    out
}

#[test]
fn every_message_of_the_reference_encodes_and_decodes() {
    for v in vectors()["wire_messages"].as_array().unwrap() {
        let name = v["type"].as_str().unwrap();
        let want = message(name, &v["message"]);
        assert_eq!(want.kind(), num(&v["id"]), "{name}");
        assert_eq!(hex(&encoded(&want)), v["hex"].as_str().unwrap(), "{name}");
        let body = Bytes::from(bytes(&v["hex"]));
        assert_eq!(Message::decode(want.kind(), &body), Ok(Some(want.clone())), "{name}");
        assert!(want.size_hint() >= body.len(), "{name}");
    }
}

#[test]
fn handshakes_and_capabilities_of_the_reference() {
    let v = vectors();
    for h in v["wire_handshake"].as_array().unwrap() {
        let want =
            Handshake { seeks: h["seeks"].as_bool().unwrap(), capability: fixed(&h["capability"]) };
        assert_eq!(hex(&want.encode()), h["hex"].as_str().unwrap());
        assert_eq!(Handshake::decode(&want.encode()), Ok(want));
    }
    let c = &v["capabilities"];
    let hash: [u8; 64] = bytes(&c["handshakeHash"]).try_into().unwrap();
    let key = CoreKey(fixed(&c["key"]));
    assert_eq!(capability(&hash, &key, true), fixed(&c["initiator"]));
    assert_eq!(capability(&hash, &key, false), fixed(&c["responder"]));
}

#[test]
fn a_reason_may_be_left_out_and_future_fields_are_ignored() {
    let short = Message::decode(NO_DATA, &Bytes::from_static(&[7]));
    assert_eq!(short, Ok(Some(Message::NoData { request: 7, reason: Reason::Unknown })));
    let long = Message::decode(CANCEL, &Bytes::from_static(&[7, 1, 2, 3]));
    assert_eq!(long, Ok(Some(Message::Cancel { request: 7 })));
    assert_eq!(Message::decode(10, &Bytes::new()), Ok(None));
}

#[test]
fn lists_that_no_tree_needs_are_refused_before_they_are_read() {
    let mut body = vec![1, 1, 0, 0, 0, 107];
    body.resize(body.len() + 107 * 34, 0);
    let refused = Message::decode(DATA, &body.into());
    assert_eq!(refused, Err(DecodeError::Invalid("count of nodes")));
    let mut body = vec![0];
    body.put_uint(1 << 32);
    assert!(Message::decode(BITFIELD, &body.into()).is_err());
}

#[test]
fn the_size_hint_covers_the_longest_of_its_kind() {
    let most = MAX_INT;
    let node = NodeRequest { index: most, nodes: most };
    let request = Message::Request(RequestMessage {
        id: most,
        fork: most,
        request: Request {
            block: Some(node),
            hash: Some(node),
            seek: Some(SeekRequest { bytes: most, padding: most }),
            upgrade: Some(UpgradeRequest { start: most, length: most }),
            manifest: true,
            priority: most,
        },
    });
    let mut manifest = Manifest::single([7; 32]);
    manifest.signers = vec![manifest.signers[0]; 9];
    manifest.user_data = Some(vec![1; 500]);
    let data = Message::Data {
        request: most,
        proof: Proof { fork: most, manifest: Some(manifest), ..Proof::default() },
    };
    for m in [request, data] {
        let len = encoded(&m).len();
        assert!(len <= m.size_hint(), "{len} > {} for type {}", m.size_hint(), m.kind());
    }
}

#[test]
fn the_value_of_a_block_is_not_copied() {
    let m = Message::Data {
        request: 1,
        proof: Proof {
            block: Some(BlockProof { index: 0, value: vec![9; 1000].into(), nodes: vec![] }),
            ..Proof::default()
        },
    };
    let body = Bytes::from(encoded(&m));
    let Ok(Some(Message::Data { proof, .. })) = Message::decode(DATA, &body) else { panic!() };
    let value = proof.block.unwrap().value;
    assert!(body.as_ptr_range().contains(&value.as_ptr()));
}

proptest! {
    #[test]
    fn any_bytes_decode_without_panic(kind in 0u64..12, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some(m)) = Message::decode(kind, &Bytes::from(bytes)) {
            // What decodes can be encoded, and decodes to itself.
            let body = encoded(&m);
            prop_assert!(body.len() <= m.size_hint());
            let again = Message::decode(kind, &Bytes::from(body));
            prop_assert_eq!(again, Ok(Some(m)));
        }
    }
}
