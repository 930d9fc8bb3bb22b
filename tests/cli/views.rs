//! A command in a mount namespace of its own: under the names that it passes its user sees other files than the process
//! that works on the store does.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use std::time::Duration;

#[test]
fn what_the_owner_sees_under_a_name_is_not_taken_for_what_the_user_sees() {
    let can = Command::new("unshare").args(["--mount", "true"]).status();
    if !available("unshare --mount", can.is_ok_and(|status| status.success())) {
        return;
    }
    let lab = Lab::new();
    let (near, names) = (lab.folder("near"), lab.folder("names"));
    let hidden = lab.folder("hidden");
    fs::write(near.join("file"), "near").unwrap();
    fs::write(names.join("file"), "the owner's").unwrap();
    fs::write(hidden.join("file"), "the user's").unwrap();
    let (mut owner, key) = lab.share("store", &near);
    assert_eq!(lab.run("store", &["create", "d"]).code, 0);
    let elsewhere = |args: &[&str]| {
        let hdrive = lab.command("store", args);
        let script = format!("mount --bind {} {} && exec \"$@\"", text(&hidden), text(&names));
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command.arg(hdrive.get_program()).args(hdrive.get_args());
        command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(command)
    };
    let (file, out, at) = (names.join("file"), names.join("out"), lab.folder("at"));
    let pid = owner.pid().to_string();
    for args in [
        &["put", "d/file", text(&file)][..],
        &["put", "d", text(&names)],
        &["share", text(&names)],
        &["get", &key, text(&out)],
        &["mount", &key, text(&at)],
    ] {
        let done = elsewhere(args);
        assert_eq!(done.code, 1, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("sees other files"), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(&pid) && done.stderr.contains("--store"), "{}", done.stderr);
    }
    assert!(!lab.run("store", &["ls", "d"]).text().contains("file"));
    assert!(!out.exists() && !hidden.join("out").exists());
    // What names no file is the same everywhere.
    assert_eq!(elsewhere(&["cat", &format!("{key}/file")]).text(), "near");
    // The owner of the store may be anywhere.
    owner.signal(Signal::SIGINT);
    owner.wait(PATIENCE);
    let done = elsewhere(&["put", "d/file", text(&file)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(lab.run("store", &["cat", "d/file"]).text(), "the user's");
}

#[test]
fn whoever_sees_the_same_files_elsewhere_may_name_them() {
    let can = Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).status();
    if !available("unshare --mount --pid", can.is_ok_and(|status| status.success())) {
        return;
    }
    let lab = Lab::new();
    let (near, at) = (lab.folder("near"), lab.folder("at"));
    fs::write(near.join("file"), "near").unwrap();
    let (_owner, key) = lab.share("store", &near);
    assert_eq!(lab.run("store", &["create", "d"]).code, 0);
    for (n, how) in [&["--mount"][..], &["--pid", "--fork", "--mount-proc"]].into_iter().enumerate()
    {
        let elsewhere = |args: &[&str]| {
            let hdrive = lab.command("store", args);
            let mut command = Command::new("unshare");
            command.args(how).arg(hdrive.get_program()).args(hdrive.get_args());
            command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
            run(command)
        };
        // Another test may mount something at the same moment.
        let all_of = |args: &[&str]| {
            eventually(&args.join(" "), PATIENCE, || (elsewhere(args).code == 0).then_some(()));
        };
        let name = format!("file-{n}");
        all_of(&["put", &format!("d/{name}"), text(&near.join("file"))]);
        let out = lab.path("home").join(&name);
        fs::create_dir_all(out.parent().unwrap()).unwrap();
        all_of(&["get", &format!("{key}/file"), text(&out)]);
        assert_eq!(fs::read_to_string(out).unwrap(), "near");
        assert_eq!(lab.run("store", &["cat", &format!("d/{name}")]).text(), "near");
        // Nobody there would see it.
        let done = elsewhere(&["mount", &key, text(&at)]);
        assert!(done.code == 1 && done.stderr.contains("sees other files"), "{}", done.stderr);
    }
}

#[test]
fn what_runs_waits_for_the_end_of_an_owner_that_sees_other_files() {
    let can = Command::new("unshare").args(["--mount", "true"]).status();
    if !available("unshare --mount", can.is_ok_and(|status| status.success())) || !fuse_available()
    {
        return;
    }
    let lab = Lab::new();
    let (near, other, hidden) = (lab.folder("near"), lab.folder("other"), lab.folder("hidden"));
    fs::write(near.join("file"), "near").unwrap();
    fs::write(other.join("file"), "other").unwrap();
    let (mut owner, key) = lab.share("store", &near);
    let (mut share, _) = lab.share("store", &other);
    let mut mount = lab.mount("store", &key, &[]);
    let hdrive = lab.command("store", &["seed", &key]);
    let script = format!("mount --bind {} {} && exec \"$@\"", text(&hidden), text(&near));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(hdrive.get_program()).args(hdrive.get_args());
    command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut seed = Hdrive::spawn(command);
    seed.line("complete: ");
    // It is the seed that takes over.
    [&share, &mount.process].into_iter().for_each(|process| process.signal(Signal::SIGSTOP));
    owner.signal(Signal::SIGTERM);
    owner.wait(PATIENCE);
    seed.told("taken over");
    [&share, &mount.process].into_iter().for_each(|process| process.signal(Signal::SIGCONT));
    let pid = format!("process {}", seed.pid());
    for process in [&mut share, &mut mount.process] {
        let told = process.told("sees other files");
        assert!(told.contains(&pid), "{told}");
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(!share.has_ended() && !mount.process.has_ended());
    seed.signal(Signal::SIGTERM);
    seed.wait(PATIENCE);
    mount.process.told("taken over");
    share.told("taken over");
    let file = mount.path("file");
    eventually("the file", PATIENCE, || (fs::read_to_string(&file).ok()? == "near").then_some(()));
    // Together, so that nothing is taken over once more.
    [&share, &mount.process].into_iter().for_each(|process| process.signal(Signal::SIGTERM));
    for process in [&mut share, &mut mount.process] {
        assert_eq!(process.wait(PATIENCE).code(), Some(0));
        assert_eq!(process.errors().matches("sees other files").count(), 1, "told once");
    }
}
