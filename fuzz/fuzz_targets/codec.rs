//! The reader under every decoder: whatever is asked in whatever order, it answers or refuses, and does not
//! read behind the end.
#![no_main]

use hdrive::codec::{Put, Reader, net};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (asks, bytes) = input;
    let mut r = Reader::new(&bytes);
    for ask in asks {
        let before = r.remaining();
        let ok = match ask % 14 {
            0 => r.u8().is_ok(),
            1 => r.u16().is_ok(),
            2 => r.u32().is_ok(),
            3 => r.u64().is_ok(),
            4 => r.uint().is_ok_and(|n| {
                let mut out = Vec::new();
                out.put_uint(n);
                assert_eq!(Reader::new(&out).uint(), Ok(n));
                true
            }),
            5 => r.len().is_ok(),
            6 => r.buffer().is_ok_and(|b| b.len() <= before),
            7 => r.string().is_ok_and(|s| s.len() <= before),
            8 => r.bool().is_ok(),
            9 => r.count(2).is_ok_and(|n| n <= before),
            10 => r.fixed::<32>().is_ok(),
            11 => r.take(usize::from(ask)).is_ok(),
            12 => net::ipv4_list(&mut r).is_ok_and(|list| {
                let mut out = Vec::new();
                net::put_ipv4_list(&mut out, &list);
                assert_eq!(net::ipv4_list(&mut Reader::new(&out)), Ok(list));
                true
            }),
            _ => net::ipv6_list(&mut r).is_ok(),
        };
        assert!(r.remaining() <= before);
        if !ok {
            return;
        }
    }
});
