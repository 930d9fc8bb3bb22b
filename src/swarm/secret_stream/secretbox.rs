//! libsodium's secretbox: XSalsa20, and Poly1305 over what comes out of it.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use subtle::ConstantTimeEq;

pub const NONCE: usize = 24;
pub const MAC: usize = 16;

/// The MAC, and the encrypted text behind it.
pub fn seal(key: &[u8; 32], nonce: &[u8; NONCE], text: &[u8]) -> Vec<u8> {
    let (mut cipher, mac_key) = cipher(key, nonce);
    let mut text = text.to_vec();
    cipher.apply_keystream(&mut text);
    let mac = Poly1305::new(&mac_key.into()).compute_unpadded(&text);
    [mac.as_slice(), &text].concat()
}

/// The text, if it was sealed with the same key and nonce.
pub fn open(key: &[u8; 32], nonce: &[u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
    let (mac, text) = sealed.split_first_chunk::<MAC>()?;
    let (mut cipher, mac_key) = cipher(key, nonce);
    let want = Poly1305::new(&mac_key.into()).compute_unpadded(text);
    if !bool::from(want.as_slice().ct_eq(mac)) {
        return None;
    }
    let mut text = text.to_vec();
    cipher.apply_keystream(&mut text);
    Some(text)
}

/// The keystream behind its first 32 bytes, which are the MAC's key.
fn cipher(key: &[u8; 32], nonce: &[u8; NONCE]) -> (XSalsa20, [u8; 32]) {
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    let mut mac_key = [0; 32];
    cipher.apply_keystream(&mut mac_key);
    (cipher, mac_key)
}
