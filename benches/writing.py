"""What is written to a mount, beside the same on the disk below it."""
import os, random, sqlite3, subprocess, time

from lab import MIB, unmount
from line import Line, at_least, both, rate

GIANT = 1024 * MIB
LARGE = 256 * MIB
PAGE = 4096
COMMITS = 1000
JS_FILES = 2000  # its rate does not grow with the number
SETTLED = 3  # seconds in which what was written before is published


class Written:
    """A new drive, mounted to be written."""

    def __init__(self, lab):
        self.lab, self.store, self.dir = lab, lab.fresh("store"), lab.fresh("mnt")
        lab.hdrive(self.store, "create", "notes").wait()
        self.process = lab.hdrive(self.store, "mount", "notes", self.dir, "-o", "rw")
        self.process.line(r"^mounted: ")

    def __enter__(self):
        return self.dir

    def __exit__(self, *_):
        self.process.stop()
        unmount(self.dir)
        self.lab.drop(self.store)


class Disk:
    """A folder of the disk."""

    def __init__(self, lab):
        self.lab, self.dir = lab, lab.fresh("disk")

    def __enter__(self):
        return self.dir

    def __exit__(self, *_):
        self.lab.drop(self.dir)


def synced(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def seconds(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def sequential(path, block, size=GIANT):
    """Writes a file in such blocks, and syncs it."""
    content = os.urandom(block)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(size // block):
        os.write(fd, content)
    os.fsync(fd)
    os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    while os.read(fd, MIB):
        pass
    os.close(fd)


def scattered(path):
    """Writes as many pages as the file has, each anywhere, and syncs it."""
    content, places = os.urandom(PAGE), random.Random(1)
    fd = os.open(path, os.O_RDWR)
    for _ in range(LARGE // PAGE):
        os.pwrite(fd, content, places.randrange(LARGE // PAGE) * PAGE)
    os.fsync(fd)
    os.close(fd)


def transactions(path, synchronous):
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute(f"pragma synchronous={synchronous}")
    base.execute("create table t(a, b)")
    took = seconds(lambda: [base.execute("insert into t values(?, ?)", (n, "x" * 100)) for n in range(COMMITS)])
    base.close()
    return took


def tarball(lab):
    path = os.path.join(lab.data, "many.tar")
    if not os.path.exists(path):
        subprocess.check_call(["tar", "cf", path, "-C", lab.many(), "."])
    return path


def repository(lab):
    """5,000 files in one commit."""
    path = os.path.join(lab.data, "repository")
    if not os.path.exists(path):
        git = ["git", "-C", path, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"]
        os.makedirs(path)
        many = lab.many()
        folders = [os.path.join(many, name) for name in sorted(os.listdir(many))[:50]]
        subprocess.check_call(["cp", "-r", *folders, path])
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["gc", "-q"]):
            subprocess.check_call([*git, *command])
    return path


def unpack(lab, folder):
    to = os.path.join(folder, "many")
    os.mkdir(to)
    subprocess.check_call(["tar", "xf", tarball(lab), "-C", to])
    synced(to)


def row_write(lab):
    """what is written to a mount, against the disk"""
    def line(work, unit, goal, digits=0, rival="disk"):
        made = Line("write", work, unit, **at_least(goal), digits=digits)
        made.rival = rival
        return made

    def measured(made, work, prepare=lambda at: None):
        def side(place):
            def run():
                with place(lab) as at:
                    prepared = prepare(at)
                    if prepared:
                        time.sleep(SETTLED)
                    return work(at)
            return run
        both(lab, made, side(Written), side(Disk))
        return made

    def giant(block):
        return lambda at: rate(GIANT, seconds(lambda: sequential(os.path.join(at, "f"), block)))

    def filled(size):
        def prepare(at):
            sequential(os.path.join(at, "f"), MIB, size)
            return True
        return prepare

    def again(at):
        return rate(GIANT, seconds(lambda: read(os.path.join(at, "f"))))

    def cold(at):
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
        return again(at)

    yield measured(line("1 GiB in blocks of 1 MiB, synced", "MB/s", 0.8), giant(MIB))
    yield measured(line("1 GiB in blocks of 4 KiB, synced", "MB/s", 0.45), giant(PAGE))
    yield measured(line("reading it again, from the page cache", "MB/s", 0.9), again, filled(GIANT))
    if os.access("/proc/sys/vm/drop_caches", os.W_OK):
        yield measured(line("reading it again, from the disk", "MB/s", 0.9), cold, filled(GIANT))
    yield measured(line("65,536 pages anywhere in 256 MiB, synced", "s", 0.5, 2),
                   lambda at: seconds(lambda: scattered(os.path.join(at, "f"))), filled(LARGE))
    tarball(lab), repository(lab)
    unpacked = line("tar x of 10,000 files of 1 KiB, synced", "s", 0.25, 2)
    yield measured(unpacked, lambda at: seconds(lambda: unpack(lab, at)))
    beside = line("the same, files a second", "/s", 20, rival="js drive.put")
    beside.ours = [10_000 / took for took in unpacked.ours]
    both(lab, beside, None, lambda: js_puts(lab))
    yield beside

    def prepare(at):
        unpack(lab, at)
        return True

    def many(at):
        return os.path.join(at, "many")

    yield measured(line("rm -r of them", "s", 0.25, 2),
                   lambda at: seconds(lambda: subprocess.check_call(["rm", "-r", many(at)])), prepare)
    moved = Line("write", "mv of their folder, until it returns", "ms", "<= 50 ms", lambda ours, _: ours <= 50, digits=2)
    yield measured(moved, lambda at: 1000 * seconds(lambda: os.rename(many(at), many(at) + "-2")), prepare)

    def clone(at):
        command = ["git", "clone", "-q", "--no-hardlinks", repository(lab), os.path.join(at, "clone")]
        return seconds(lambda: subprocess.check_call(command))

    def status(at):
        command = ["git", "-C", os.path.join(at, "clone"), "status", "--porcelain"]
        return seconds(lambda: subprocess.check_output(command))

    yield measured(line("git clone of 5,000 files", "s", 1 / 3, 2), clone)
    yield measured(line("git status of them", "s", 0.5, 3), status, lambda at: clone(at))
    for synchronous, goal in (("normal", 0.5), ("full", 0.3)):
        yield measured(line(f"SQLite, WAL, {COMMITS:,} transactions, {synchronous}", "s", goal, 3),
                       lambda at, how=synchronous: transactions(os.path.join(at, "db"), how))


def js_puts(lab):
    """`drive.put` of files one after the other; a second."""
    peer = lab.js()
    peer.call("create")
    answer = peer.call("putFolder", **{"from": lab.many(), "limit": JS_FILES})
    peer.stop()
    return JS_FILES * 1000 / answer["ms"]
