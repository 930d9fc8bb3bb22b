//! Keys with hints, which anybody may make: what is understood says the same when written again.
#![no_main]

use hdrive::key::Address;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(address) = Address::decode(bytes) {
        assert_eq!(Address::decode(&address.encode()).as_ref(), Ok(&address));
        assert_eq!(address.to_string().parse().as_ref(), Ok(&address));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(address) = text.parse::<Address>()
    {
        assert_eq!(address.to_string().parse().as_ref(), Ok(&address));
    }
});
