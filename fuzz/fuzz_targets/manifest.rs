//! Manifests from a peer: what decodes encodes to the same again, and its key does not depend on who asks.
#![no_main]

use hdrive::codec::Reader;
use hdrive::hyper::core::manifest::Manifest;
use hdrive::hyper::core::tree::Head;
use hdrive::hyper::core::verifier::Verifier;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::decode(&mut Reader::new(bytes)) else { return };
    let again = manifest.encode();
    let decoded = Manifest::decode(&mut Reader::new(&again));
    assert_eq!(decoded.as_ref(), Ok(&manifest));
    let key = manifest.key();
    let _ = manifest.content(&key);
    if let Some(verifier) = Verifier::new(&key, &manifest) {
        assert!(manifest.prologue.is_some() || !verifier.verify(&Head::default()));
    }
});
