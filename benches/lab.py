"""What the table's rows stand on: data on disk, processes of both kinds, a private network, memory watched.

Everything runs on a loopback of its own when this is root (a network namespace without any other
interface), and ends with the program.
"""
import atexit, ctypes, json, os, re, select, shutil, signal, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MIB = 1 << 20
PATIENCE = 600.0  # seconds; longest wait for one answer of anything
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """A row could not be measured; the text says why."""


def own_network():
    """Root gets a loopback that leads nowhere else: what is measured cannot leave, nor be disturbed."""
    if os.geteuid() == 0 and LIBC.unshare(CLONE_NEWNET) == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def status_of(child, limit):
    """Exit status of a program, known the moment it ends; None if it does not within the limit.

    `wait(timeout)` looks every 50 ms only, which is a tenth of what some rows measure."""
    fd = os.pidfd_open(child.pid)
    try:
        ended = select.select([fd], [], [], limit)[0]
    finally:
        os.close(fd)
    return child.wait() if ended else None


class Process:
    """A program whose lines on stdout are waited for. Its stderr goes to a file that a failure quotes."""

    def __init__(self, lab, argv, env=None, cwd=None):
        self.name = os.path.basename(argv[0]) + " " + " ".join(argv[1:2])
        self.errors = tempfile.TemporaryFile("w+", dir=lab.dir, errors="replace")
        self.child = subprocess.Popen(
            argv, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, errors="replace", preexec_fn=die_with_parent)
        self.lines, self.more, self.over = [], threading.Condition(), False
        threading.Thread(target=self._read, daemon=True).start()
        lab.processes.append(self)

    def _read(self):
        for line in self.child.stdout:
            with self.more:
                self.lines.append(line.rstrip("\n"))
                self.more.notify_all()
        with self.more:
            self.over = True
            self.more.notify_all()

    def line(self, pattern, limit=PATIENCE):
        """The first group of the next line that matches."""
        give_up = time.monotonic() + limit
        with self.more:
            while True:
                while self.lines:
                    match = re.search(pattern, self.lines.pop(0))
                    if match:
                        return match[1] if match.groups() else match[0]
                left = give_up - time.monotonic()
                if self.over or left <= 0:
                    raise Failure(f"{self.name}: no line '{pattern}' {'before its end' if self.over else 'in time'}; {self.tail()}")
                self.more.wait(left)

    def wait(self, limit=PATIENCE):
        status = status_of(self.child, limit)
        if status is None:
            raise Failure(f"{self.name}: did not end within {limit:.0f} s; {self.tail()}")
        if status:
            raise Failure(f"{self.name}: exit status {status}; {self.tail()}")

    def tail(self):
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return "it said: " + " / ".join(lines[-3:]) if lines else "it said nothing"

    def stop(self):
        """Asks it to end, and makes it."""
        for sig, grace in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            if self.child.poll() is None:
                self.child.send_signal(sig)
                try:
                    self.child.wait(grace)
                except subprocess.TimeoutExpired:
                    pass


class Js(Process):
    """A JavaScript peer (js/peer.js)."""

    def __init__(self, lab):
        modules = os.path.join(lab.natlab, "js/node_modules")
        if not os.path.isdir(modules):
            raise Failure(f"{modules} is missing: run scripts/setup")
        super().__init__(lab, ["node", os.path.join(HERE, "js/peer.js")], {"NODE_PATH": modules})

    def call(self, op, limit=PATIENCE, **args):
        self.child.stdin.write(json.dumps({"op": op, **args}) + "\n")
        self.child.stdin.flush()
        answer = json.loads(self.line(r"^ANSWER (.*)", limit))
        if "error" in answer:
            raise Failure(f"JavaScript {op}: {answer['error'].splitlines()[0]}")
        return answer


class Mount:
    """A drive mounted from a store that knew nothing before."""

    def __init__(self, lab, key):
        self.lab, self.store, self.dir = lab, lab.fresh("store"), lab.fresh("mnt")
        began = time.monotonic()
        self.process = lab.hdrive(self.store, "mount", key, self.dir)
        self.process.line(r"^mounted: ")
        self.ready = time.monotonic() - began

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()
        unmount(self.dir)
        self.lab.drop(self.store)


def unmount(path):
    if os.path.ismount(path):
        subprocess.run(["umount", "--lazy", path], stderr=subprocess.DEVNULL, check=False)


class Memory(threading.Thread):
    """Largest resident memory of any one process of each kind, below this one, since `begin`.

    Reads each process's own high-water mark every 50 ms, so a peak between two looks is seen too."""

    def __init__(self, kinds):
        super().__init__(daemon=True)
        self.kinds, self.peak = kinds, {}
        self.start()

    def begin(self):
        for pid in self._below(os.getpid()):
            try:
                with open(f"/proc/{pid}/clear_refs", "w") as f:
                    f.write("5")  # forgets the mark
            except OSError:
                pass
        self.peak = {}

    def run(self):
        while True:
            for pid in self._below(os.getpid()):
                try:
                    kind = self.kinds.get(os.path.basename(os.readlink(f"/proc/{pid}/exe")))
                    with open(f"/proc/{pid}/status") as f:
                        mark = re.search(r"VmHWM:\s*(\d+) kB", f.read())
                except OSError:
                    continue
                if kind and mark:
                    self.peak[kind] = max(self.peak.get(kind, 0), int(mark[1]) * 1024)
            time.sleep(0.05)

    def _below(self, pid):
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            return
        for task in tasks:
            try:
                with open(f"/proc/{pid}/task/{task}/children") as f:
                    children = f.read().split()
            except OSError:
                continue
            for child in children:
                yield int(child)
                yield from self._below(int(child))


class Lab:
    """One working folder, on the disk that is to be measured, and what runs in it."""

    def __init__(self, args):
        self.binary, self.natlab, self.sendme = args.hdrive, args.natlab, args.sendme
        self.runs = args.runs
        os.makedirs(args.dir, exist_ok=True)
        self.data = os.path.join(args.dir, "data")
        self.dir = tempfile.mkdtemp(prefix="run-", dir=args.dir)
        self.processes, self.kept, self.count = [], {}, 0
        self.memory = Memory({"hdrive": "hdrive", "node": "js", "sendme": "sendme"})
        atexit.register(self.close)
        for sig in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, lambda *_: sys.exit(1))

    def close(self):
        for process in reversed(self.processes):
            process.stop()
        for name in os.listdir(self.dir):
            unmount(os.path.join(self.dir, name))
        shutil.rmtree(self.dir, ignore_errors=True)

    def fresh(self, name):
        """A new empty folder."""
        self.count += 1
        path = os.path.join(self.dir, f"{name}-{self.count}")
        os.mkdir(path)
        return path

    def drop(self, path):
        """Removes a folder, and lets the disk come to rest before the next clock starts."""
        shutil.rmtree(path, ignore_errors=True)
        os.sync()

    def keep(self, name, make):
        """Something made once and used by several rows."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    # ------------------------------------------------------------ data
    def file(self, name, size):
        """A folder that holds one file of random bytes, `/bulk.bin`."""
        folder = os.path.join(self.data, name)
        path = os.path.join(folder, "bulk.bin")
        if not os.path.exists(path) or os.path.getsize(path) != size:
            os.makedirs(folder, exist_ok=True)
            with open(path, "wb") as f:
                for _ in range(size // MIB):
                    f.write(os.urandom(MIB))
            os.sync()
        return folder

    def many(self, count=10_000, size=1024):
        """A folder of `count` files in folders of 100."""
        folder = os.path.join(self.data, "many")
        done = os.path.join(self.data, "many.done")
        if not os.path.exists(done):
            for i in range(count):
                at = os.path.join(folder, f"{i // 100:04}")
                os.makedirs(at, exist_ok=True)
                with open(os.path.join(at, f"file-{i:06}"), "wb") as f:
                    f.write(os.urandom(size))
            os.sync()
            open(done, "w").close()
        return folder

    # ------------------------------------------------------------ network and peers
    def bootstrap(self):
        """ADDR:PORT,… of a private DHT: hdrive's own nodes, or JavaScript's while there is no hdrive. There are
        three, since JavaScript peers look at themselves through so many before they know their own address."""
        def make():
            if not self.here():
                return ",".join(Js(self).call("testnet")["bootstrap"])
            nodes = []
            for _ in range(3):
                known = ["--bootstrap", ",".join(nodes)] if nodes else []
                argv = [self.binary, "dht", "--bind", "127.0.0.1:0", "--store", self.fresh("dht"), *known]
                nodes.append(Process(self, argv).line(r"^listening: (\S+)", 30))
            return ",".join(nodes)
        return self.keep("dht", make)

    def here(self):
        return os.path.exists(self.binary)

    def need(self):
        if not self.here():
            raise Failure(f"{self.binary} is not built")

    def hdrive(self, store, *args):
        """An hdrive command on a store, on the private network."""
        self.need()
        env = {"HDRIVE_STORE": store, "HDRIVE_BOOTSTRAP": self.bootstrap(), "HDRIVE_LOCAL": "127.0.0.1:0"}
        return Process(self, [self.binary, *args], env)

    def share(self, folder, store=None):
        """Shares a folder; returns the process, the key, and the seconds until it could be found."""
        store = store or self.fresh("seed")
        began = time.monotonic()
        process = self.hdrive(store, "share", folder)
        key = process.line(r"^key: (\S+)")
        process.line(r"^shared: ")
        return process, key, time.monotonic() - began

    def js(self):
        """A JavaScript peer with an empty store."""
        peer = Js(self)
        peer.call("start", bootstrap=self.bootstrap().split(","), dir=self.fresh("js"))
        return peer

    def js_reader(self, key):
        """A JavaScript peer that knows the newest version of a drive. Some never find their seeder."""
        for last in (False, False, True):
            peer = self.js()
            try:
                peer.call("open", limit=20, key=key)
                return peer
            except Failure:
                peer.stop()
                if last:
                    raise

    def laboratory(self, scenario, options=(), **env):
        """Runs a scenario in the NAT laboratory; its RESULT."""
        if os.geteuid() != 0:
            raise Failure("natlab needs root")
        if not os.path.exists(scenario):
            scenario = os.path.join(self.natlab, "scenarios", scenario)
        argv = [os.path.join(self.natlab, "natlab"), "run", *options, scenario]
        process = Process(self, argv, {"HDRIVE": self.binary, "HDRIVE_LOCAL": "0.0.0.0:0", **env})
        result = json.loads(process.line(r"^\[[^]]*\] RESULT (.*)"))
        process.wait()
        if not result.get("ok"):
            raise Failure(f"{os.path.basename(scenario)}: {result.get('error', result)}")
        return result
