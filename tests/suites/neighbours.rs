//! What went wrong in file systems like this one, as their users told it.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{TRACED, folder, run, tail};
use super::share;
use std::process::Command;
use std::time::Duration;

/// What was told, and a shell that shows it in an empty folder.
const REPORTS: &[(&str, &str)] = &[
    (
        "a descriptor that several programs write to in turn",
        "
        (echo 1; sleep 1; echo 2) >f
        printf '1\n2\n' | cmp - f
        (echo 1; sleep 1; echo 2 >&2; sleep 1; echo 3) >g 2>&1
        printf '1\n2\n3\n' | cmp - g
        (echo 4; sleep 1; echo 5) >>f
        printf '1\n2\n4\n5\n' | cmp - f",
    ),
    (
        "two descriptors of one file in two processes",
        r#"
        python3 -c '
import os, sys
one = os.open("f", os.O_RDWR | os.O_CREAT)
os.write(one, b"a" * 5000)
if os.fork() == 0:
    two = os.open("f", os.O_RDWR)
    assert os.pread(two, 9000, 0) == b"a" * 5000
    os.pwrite(two, b"b" * 10, 4995)
    os.pwrite(two, b"c" * 10, 100000)
    os.close(two)
    os._exit(0)
assert os.wait()[1] == 0
assert os.pread(one, 10, 4995) == b"b" * 10
assert os.fstat(one).st_size == 100010
os.pwrite(one, b"d" * 10, 5000)
os.close(one)
found = open("f", "rb").read()
assert found == b"a" * 4995 + b"b" * 5 + b"d" * 10 + bytes(100000 - 5010) + b"c" * 10, found[4990:5020]
'"#,
    ),
    (
        "made, closed and removed at once",
        "
        for i in $(seq 1 200); do echo $i >f; rm f; done
        test -z \"$(ls -A)\"
        for i in $(seq 1 50); do : >f$i; done
        for i in $(seq 1 50); do rm f$i & done
        wait
        test -z \"$(ls -A)\"
        mkdir d; echo x >d/f; rm -r d
        sleep 2
        test -z \"$(ls -A)\"",
    ),
    (
        "removed while it is open",
        r#"
        exec 3<>f
        echo one >&3
        rm f
        test ! -e f
        echo two >&3
        printf 'one\ntwo\n' | cmp - /proc/self/fd/3
        test "$(stat -L -c '%h %s' /proc/self/fd/3)" = '0 8'
        sleep 3
        echo three >&3
        echo other >f
        printf 'one\ntwo\nthree\n' | cmp - /proc/self/fd/3
        test "$(cat f)" = other"#,
    ),
    (
        "another file takes its name while it is open",
        "
        echo old >f
        exec 3<f
        echo new >g
        mv g f
        test \"$(cat f)\" = new
        read -r line <&3
        test \"$line\" = old",
    ),
    (
        "a folder is moved, then listed",
        "
        mkdir -p a/b/c
        echo 1 >a/b/c/f
        ls -lR a >/dev/null
        exec 3>>a/b/c/f
        mv a z
        test \"$(find z | sort | tr '\\n' ' ')\" = 'z z/b z/b/c z/b/c/f '
        test ! -e a
        echo 2 >&3
        test \"$(cat z/b/c/f)\" = \"$(printf '1\\n2')\"
        mkdir a
        test -z \"$(ls -A a)\"
        mv z a/
        cat a/z/b/c/f
        cd a/z/b/c
        mv ../../../z ../../../y
        test \"$(cat f)\" = \"$(printf '1\\n2')\"
        test \"$(ls ..)\" = c",
    ),
    (
        "the last file of a folder is removed",
        "
        mkdir d
        echo x >d/f
        sleep 2
        rm d/f
        test -d d
        test -z \"$(ls -A d)\"
        sleep 2
        test -d d
        echo y >d/g
        test \"$(cat d/g)\" = y
        rm d/g
        rmdir d
        test ! -e d",
    ),
    (
        "a hole by seek, then a mapping",
        r#"
        python3 -c '
import mmap, os
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.lseek(f, 1000000, os.SEEK_SET)
os.write(f, b"end")
with mmap.mmap(f, 1000003) as m:
    assert m[:10] == bytes(10) and m[999990:] == bytes(10) + b"end"
    m[500000:500006] = b"middle"
    m.flush()
    os.pwrite(f, b"start", 0)
    assert m[:5] == b"start"
os.close(f)
found = open("f", "rb").read()
assert found == b"start" + bytes(499995) + b"middle" + bytes(499994) + b"end"
'
        sleep 2
        test "$(wc -c <f)" = 1000003
        test "$(tr -d '\0' <f)" = startmiddleend"#,
    ),
    (
        "a mapping outlives its descriptor and its name",
        r#"
        python3 -c '
import mmap, os, time
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 20000)
m = mmap.mmap(f, 20000)
os.close(f)
m[10000:10004] = b"late"
os.rename("f", "g")
m[0:5] = b"early"
time.sleep(2.5)
m[19000:19004] = b"last"
m.close()
'
        sleep 1
        test "$(tr -d '\0' <g)" = earlylatelast
        test "$(wc -c <g)" = 20000"#,
    ),
    (
        "a lock file, taken once",
        "
        for i in $(seq 1 8); do
            (set -C; for j in $(seq 1 20); do { : >lock; } 2>/dev/null && echo won >>wins; done) &
        done
        wait
        test \"$(wc -l <wins)\" = 1
        test \"$(mkdir a; for i in 1 2 3; do mkdir a 2>/dev/null && echo made; done)\" = ''",
    ),
    (
        "many append to one log",
        "
        for i in $(seq 1 6); do
            (for j in $(seq 1 100); do echo \"writer $i line $j\" >>log; done) &
        done
        wait
        test \"$(wc -l <log)\" = 600
        test \"$(sort -u log | wc -l)\" = 600
        test \"$(grep -cv '^writer [0-9]* line [0-9]*$' log || true)\" = 0",
    ),
    (
        "saved by a second file a hundred times, and always whole",
        "
        seq 1 20000 >f
        (for i in $(seq 1 60); do seq 1 20000 >f.tmp; mv f.tmp f; done; : >done) &
        while test ! -e done; do test \"$(wc -l <f)\" = 20000; done
        wait
        test \"$(ls -A)\" = \"$(printf 'done\\nf')\"",
    ),
    (
        "names that are long, odd, or almost the same",
        r#"
        long=$(printf 'n%.0s' $(seq 1 255))
        echo 1 >"$long"
        test "$(cat "$long")" = 1
        ! echo 2 >"${long}n"
        rm "$long"
        printf 'a\nb' >"$(printf 'new\nline')"
        echo 1 >' '; echo 2 >'*'; echo 3 >-; echo 4 >'%41'; echo 5 >é; echo 6 >"$(printf 'e\xcc\x81')"; echo 7 >.x; echo 8 >E; echo 9 >e
        test "$(ls -A | wc -l)" -ge 10
        test "$(cat -- ' ' '*' ./- '%41' é E e | tr -d '\n')" = 1234589
        rm -- ' ' '*' ./- '%41' é E e .x"#,
    ),
    (
        "a listing while names come and go",
        r#"
        mkdir d
        for i in $(seq 1 400); do : >d/keep$i; done
        (for i in $(seq 1 200); do : >d/come$i; rm d/come$i; done) &
        for round in 1 2 3 4 5; do
            test "$(ls d | grep -c keep)" = 400
            test "$(ls -l d | grep -c keep)" = 400
        done
        wait
        rm -r d
        test -z "$(ls -A)""#,
    ),
    (
        "a file that shrinks under its reader",
        r#"
        python3 -c '
import os
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.write(f, b"x" * 300000)
os.fsync(f)
reader = os.open("f", os.O_RDONLY)
assert len(os.pread(reader, 300000, 0)) == 300000
os.ftruncate(f, 100)
assert os.pread(reader, 300000, 0) == b"x" * 100
os.ftruncate(f, 5000)
assert os.pread(reader, 300000, 0) == b"x" * 100 + bytes(4900)
os.truncate("f", 70000)
assert os.fstat(reader).st_size == 70000
assert os.pread(reader, 300000, 0) == b"x" * 100 + bytes(69900)
'"#,
    ),
    (
        "names that come and go while they are published",
        r#"
        python3 -c '
import os, random, time
random.seed(1)
names = ["x", "y", "z"]
end = time.time() + 8
while time.time() < end:
    there = set()
    for step in range(random.randrange(1, 9)):
        name, chance = random.choice(names), random.random()
        if chance < 0.5:
            with open("tmp", "w") as file:
                file.write("abc")
            os.rename("tmp", name)
            there.add(name)
        elif chance < 0.7 and "d" not in there:
            os.mkdir("tmp.d")
            open("tmp.d/a", "w").close()
            os.rename("tmp.d", "d")
            there.add("d")
        elif name in there:
            os.unlink(name)
            there.discard(name)
        found = {name for name in names + ["d"] if os.path.lexists(name)}
        assert found == there, (found, there)
    assert set(os.listdir()) == there, (os.listdir(), there)
    for name in there - {"d"}:
        os.unlink(name)
    if "d" in there:
        os.unlink("d/a")
        os.rmdir("d")
    assert os.listdir() == []
'"#,
    ),
    (
        "a file that was just written, mapped to be read",
        r#"
        python3 -c '
import mmap
open("f", "wb").write(b"content")
with open("f", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    assert m[:] == b"content"
'"#,
    ),
    (
        "a folder in one of a group",
        r#"
        mkdir d
        chmod 2755 d
        mkdir d/e d/e/f
        test "$(stat -c %a d/e/f)" = 2755"#,
    ),
];

#[test]
fn what_was_told_of_others() {
    alone(Duration::from_secs(share(180, 240)), || {
        let Some(ground) = Ground::new() else { return };
        ground.compare(&[], |at| {
            let mut failed = Failed::new();
            for (number, (name, script)) in REPORTS.iter().enumerate() {
                let dir = folder(at, &format!("report-{number}"));
                let mut command = Command::new("bash");
                command.args(["-eux", "-c", &format!("{TRACED}{script}")]).current_dir(dir);
                let ran = run(&mut command, Duration::from_secs(40));
                if !ran.ok {
                    failed.insert((*name).into(), tail(&ran.said, 20));
                }
            }
            failed
        });
    });
}
