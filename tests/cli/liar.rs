//! A peer whose disk lies, and noise on the port: nobody gets a wrong byte.

use crate::common::*;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SIZE: usize = 2_000_000;

/// Flips bytes all over the contents that the store holds.
fn corrupt(store: &Path) {
    let mut blocks: Vec<PathBuf> = Vec::new();
    for dir in fs::read_dir(store.join("cores")).unwrap() {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "blocks") {
                blocks.push(path);
            }
        }
    }
    let contents = blocks.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let length = fs::metadata(contents).unwrap().len();
    assert!(length >= SIZE as u64, "the contents are in {contents:?}");
    let file = fs::File::options().read(true).write(true).open(contents).unwrap();
    for at in (0..length).step_by(10_000) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }
}

fn shared(lab: &Lab) -> (Hdrive, String) {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(5, SIZE)).unwrap();
    lab.share("alice", &folder)
}

#[test]
fn a_false_block_is_never_given_to_a_program() {
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    corrupt(&lab.path("alice"));
    let out = lab.path("out");
    let got = lab.run("bob", &["get", &format!("{key}/file"), text(&out)]);
    assert_eq!(got.code, 4, "{}", got.stderr);
    assert!(got.stderr.contains("a peer broke the rules"), "{}", got.stderr);
    assert!(!out.exists(), "no file rather than a wrong one");
    let got = lab.run("bob", &["cat", &format!("{key}/file")]);
    assert_ne!(got.code, 0);
    assert!(pattern(5, SIZE).starts_with(&got.stdout), "no wrong byte on the way");
}

#[test]
fn a_false_block_is_an_error_in_a_mount() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    corrupt(&lab.path("alice"));
    let mount = lab.mount("bob", &key, &["--read-timeout", "3s"]);
    eventually("the names", PATIENCE, || fs::metadata(mount.path("file")).ok());
    let error = fs::read(mount.path("file")).unwrap_err();
    let errno = error.raw_os_error().map(nix::errno::Errno::from_raw);
    let named = [Some(nix::errno::Errno::ETIMEDOUT), Some(nix::errno::Errno::EIO)];
    assert!(named.contains(&errno), "{error}");
    assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), SIZE as u64, "the mount goes on");
}

#[test]
fn an_honest_peer_makes_up_for_a_liar() {
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let mut seed = lab.spawn("carol", &["seed", &key]);
    seed.line("complete: ");
    corrupt(&lab.path("alice"));
    let out = lab.path("out");
    let got = lab.run("bob", &["get", &format!("{key}/file"), text(&out)]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert_eq!(fs::read(out).unwrap(), pattern(5, SIZE));
}

#[test]
fn noise_on_the_port_changes_nothing() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(5, SIZE)).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let local = format!("127.0.0.1:{port}");
    let mut share = lab.spawn("alice", &["share", text(&folder), "--local", &local]);
    let key = share.line("key: ");
    share.line("shared: ");
    let noise = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bytes = pattern(77, 400_000);
    for round in 0..2000usize {
        // Now and then with the first bytes of what is expected there: UDX, a DHT request, a DHT answer.
        let mut datagram = bytes[round * 150..round * 150 + round % 1400].to_vec();
        let heads: [&[u8]; 4] = [&[], &[0xff, 1], &[0x03], &[0x13]];
        datagram.splice(0..0, heads[round % 4].iter().copied());
        let _ = noise.send_to(&datagram, &local);
        let _ = noise.send_to(&datagram, &lab.bootstrap);
    }
    let out = lab.path("out");
    let got = lab.run("bob", &["get", &format!("{key}/file"), text(&out)]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert_eq!(fs::read(out).unwrap(), pattern(5, SIZE));
    share.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    let said = share.errors();
    assert!(!said.contains("panicked"), "{said}");
}
