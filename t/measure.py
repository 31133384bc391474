"""What the benches share: processes and their cost, load.c's clients, rounds,
tables."""
import argparse, collections, contextlib, json, os, re, resource, select, shlex, shutil, signal, socket, statistics
import subprocess, sys, tempfile, time

LEVEL = 0.05  # a ratio that differs less from 1 counts as equal
MORE_IS_BETTER = re.compile("MB/s|per s|of the line")

options = argparse.Namespace(hosts=None)  # of the bench that runs

# A goal for relay. of: the subject whose value divides relay's ("best": the
# best peer), or None. limit: the greatest value, or the least one if more is
# better.
Mark = collections.namedtuple("Mark", "of limit")
Footprint = collections.namedtuple("Footprint", "pss written descriptors")

class Failed(Exception):
    pass

# --- processes: each is in `running` until it was waited for ---

running = set()

def spawn(argv, **how):
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen([str(word) for word in argv], **quiet | how)
    running.add(process)
    return process

def tree(pid):
    """Return the pids of a process and of all its descendants."""
    children = collections.defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
            children[int(stat.read().rpartition(")")[2].split()[1])].append(int(name))
    found = [pid]
    for parent in found:
        found += children[parent]
    return found

def await_end(process, seconds):
    """Wait at most `seconds` until the process exits. Return the CPU seconds of
    it and its children, or None if it still runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        except ChildProcessError:  # an interrupted Popen call has reaped it
            running.discard(process)
            return 0.0
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            running.discard(process)
            return usage.ru_utime + usage.ru_stime
        time.sleep(0.002)

def await_childless(pid, seconds):
    deadline = time.monotonic() + seconds
    while len(tree(pid)) > 1 and time.monotonic() < deadline:
        time.sleep(0.005)

def end(process, forks):
    """Stop a process. If it forks for connections, its children exit first,
    because their CPU time counts only after it has waited for them."""
    if forks:
        await_childless(process.pid, 1)
    process.terminate()
    return await_end(process, 3) or kill(process)

def kill(process):
    for pid in tree(process.pid) if process.returncode is None else []:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return await_end(process, 10)

def numbers(load, timeout=20):
    """Return the numbers that a run of load prints."""
    try:
        out, err = load.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(load)
        raise Failed(f"load took more than {timeout} s")
    running.discard(load)
    if load.returncode != 0:
        raise Failed(f"load {load.args[1]}: {(err or b'').decode().strip()}, status {load.returncode}")
    return [float(word) for word in (out or err).split()]

def client(*words, timeout=20, **how):
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return numbers(spawn([options.load, *words], **pipes | how), timeout)

def serve(where):
    """Start a server of load, and wait until it listens."""
    spawn([options.load, "serve", where], stdout=subprocess.PIPE).stdout.readline()

class Crowd:
    """with Crowd(end) as crowd: a client whose connections stay open, and idle
    except in wake()."""
    def __init__(self, where):
        self.where, self.count = where, 0

    def __enter__(self):
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        self.load = spawn([options.load, "idle", self.where], **pipes)
        self.heard("start", 20)
        return self

    def __exit__(self, *_):
        kill(self.load)
        for pipe in (self.load.stdin, self.load.stdout):
            pipe.close()

    def heard(self, words, seconds):
        answer = select.select([self.load.stdout], [], [], seconds)[0] and self.load.stdout.readline()
        if not answer:
            raise Failed(f"beside {self.count}: {words}: {f'not done in {seconds} s' if answer == [] else 'it ended'}")
        return answer

    def say(self, words, seconds):
        self.load.stdin.write(f"{words}\n".encode())
        self.load.stdin.flush()
        return [float(word) for word in self.heard(words, seconds).split()]

    def grow(self, count, seconds=60):
        """Open connections until there are `count`. Return the seconds that
        this took."""
        took, = self.say(f"hold {count}", seconds)
        self.count = count
        return took

    def wake(self, count, ms):
        """`count` idle connections, one after another, each send a byte. Return
        p50, p99 and the longest time until an answer, in us."""
        return self.say(f"wake {count} {ms}", 60)

@contextlib.contextmanager
def beside(*words):
    """Run load in the background."""
    load = spawn([options.load, *words])
    time.sleep(0.1)
    try:
        yield
        if load.poll() is not None:
            raise Failed(f"load {words[0]} ended too early")
    finally:
        kill(load)

def tasks(pid):
    try:
        return [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []

def cpu_seconds(pid):
    """Return the CPU time of a process tree in seconds, without processes that
    have ended."""
    total = 0
    for one in tree(pid):
        for task in tasks(one):
            with contextlib.suppress(OSError), open(f"/proc/{one}/task/{task}/schedstat") as stat:
                total += int(stat.read().split()[0])
    return total / 1e9

def cpu_of_tree(pid):
    """The same, with the children that were waited for."""
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/stat") as stat:
            ticks += sum(int(field) for field in stat.read().rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")

def footprint(pid):
    """Return the PSS and the Private_Dirty memory of a process tree in KiB, and
    the number of its descriptors."""
    found = [0, 0, 0]
    for one in tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{one}/smaps_rollup") as file:
            rollup = file.read()
            for i, name in enumerate(("Pss", "Private_Dirty")):
                found[i] += int(re.search(rf"^{name}: +(\d+)", rollup, re.M)[1])
            found[2] += len(os.listdir(f"/proc/{one}/fd"))
    return Footprint(*found)

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def await_answer(port, seconds=5):
    """Retry until one connection with one request gets an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"answer 0".ljust(32))
            if len(s.recv(32, socket.MSG_WAITALL)) == 32:
                return
        time.sleep(0.002)
    raise Failed("it does not answer")

# --- sshd and ssh -L ---

def start_hosts():
    """Start an sshd `login`: options.hosts, and its pid options.sshd. If that
    is not possible, return the cause."""
    os.environ["RELAY"] = options.relay
    import hosts
    if not hosts.missing():
        options.hosts = hosts.Hosts(["login"], forwarding="yes")
        options.sshd = options.hosts.daemons["login"].pid
    return hosts.missing()

def forwarding(ssh, port, server):
    """Return an ssh -L command. It runs cat instead of -N: without a session,
    ssh and sshd leave Nagle's algorithm on."""
    return [*ssh, "-L", f"127.0.0.1:{port}:{server}", "login", "cat"]

# --- rounds ---

def warn_of_others(name):
    """Warn if the CPUs are busy. All processes of the bench are idle now."""
    def times():
        with open("/proc/stat") as stat:
            each = [int(word) for word in stat.readline().split()[1:9]]
        return sum(each), each[3] + each[4]
    all_before, idle_before = times()
    time.sleep(0.2)
    total, idle = times()
    busy = 1 - (idle - idle_before) / max(total - all_before, 1)
    if busy > 0.1:
        print(f"{options.bench}: {name}: the CPUs are {busy:.0%} busy with other things", file=sys.stderr)

def take(name, measure, subjects, turn):
    """Return row -> subject -> value. Each round begins with another subject. A
    measure returns its rows, or yields some at a time; those before a failure
    count."""
    first = turn % len(subjects)
    rows = collections.defaultdict(dict)
    warn_of_others(name)
    for subject in subjects[first:] + subjects[:first]:
        try:
            found = measure(subject)
            for part in [found] if isinstance(found, dict) else found:
                for row, value in part.items():
                    rows[row][subject.name] = value
        except Failed as why:
            print(f"{options.bench}: {name}, {subject.name}: {why}", file=sys.stderr)
    return rows

def take_rounds(jobs):
    """A job is (name, measure, subjects, n): it runs in each n-th round. Return
    name -> list of its rounds. With --keep, the rounds in that file come first.
    """
    rounds = collections.defaultdict(list)
    if options.keep and os.path.exists(options.keep):
        with open(options.keep) as file:
            rounds.update(json.load(file))
    for i in range(options.rounds):
        for name, measure, subjects, every in jobs:
            if options.measures.search(name) and subjects and i % every == 0:
                rounds[name].append(take(name, measure, subjects, len(rounds[name])))
        print(f"{options.bench}: round {i + 1} of {options.rounds} done", file=sys.stderr)
        if options.keep:
            with open(options.keep, "w") as file:
                json.dump(rounds, file, indent=1)
    return rounds

def rows_of(rounds, names):
    """Return row -> list of its rounds (subject -> value), for the measures
    with these names, in this order."""
    rows = collections.defaultdict(list)
    for one in (r for name in names for r in rounds.get(name, [])):
        for row, values in one.items():
            rows[row].append(values)
    return rows

def medians(rounds, names):
    return {n: statistics.median(v) for n in names if (v := [r[n] for r in rounds if n in r])}

# --- tables ---

def digits(value):
    if value is None:
        return "-".rjust(8)
    return f"{value:8.{0 if value >= 1000 else 1 if value >= 20 else 2 if value >= 1 else 3}f}"

def ratios(rounds, a, b):
    return sorted(r[a] / r[b] for r in rounds if a in r and r.get(b))

def verdict(mark, row, rounds, best=None):
    """Return whether the median meets a mark: '<= 1.5 bare: yes'."""
    of = best if mark.of == "best" else mark.of
    values = ratios(rounds, "relay", of) if of else [r["relay"] for r in rounds if "relay" in r]
    if not values:
        return ""
    more, value = MORE_IS_BETTER.search(row), statistics.median(values)
    met = value >= mark.limit if more else value <= mark.limit
    return f"{'>=' if more else '<='} {mark.limit:g}{' ' + mark.of if mark.of else ''}: {'yes' if met else 'NO'}"

def first_line(*command):
    with contextlib.suppress(OSError):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = [line for line in done.stdout.splitlines() if re.search(r"\d\.\d|systemd \d", line)]
        return lines[0].strip() if lines else None

def head(*versions):
    """Print the date, the machine, the command line, and the versions of
    programs."""
    print(time.strftime("%Y-%m-%d, ") + machine())
    print(shlex.join([os.path.relpath(sys.argv[0])] + sys.argv[1:]))
    print("; ".join(filter(None, (first_line(*command) for command in versions))))

def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        model = re.search(r"^model name\s*: (.*)", cpuinfo.read(), re.M)
    return f"{os.cpu_count()} CPUs{', ' + model[1] if model else ''}, {os.uname().sysname} {os.uname().release}"

# --- a bench's frame ---

def options_of(description, measures, rounds=5):
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("relay", nargs="?", default="./relay")
    add("--quick", action="store_true", help="one round, a fourth of the load")
    add("--rounds", type=int, help=f"default: ROUNDS of the environment, or {rounds}, or 1 with --quick")
    add("--measures", type=re.compile, default="", metavar="REGEX", help="some of: " + " ".join(measures))
    add("--subjects", type=re.compile, default="", metavar="REGEX", help="some of them, as '^(relay|socat)$'")
    add("--load", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "load"))
    add("--keep", metavar="FILE", help="add the rounds to those in FILE, and show them all; --rounds 0 adds none")
    parser.parse_args(namespace=options)
    options.bench = os.path.basename(sys.argv[0])
    if options.rounds is None:
        options.rounds = int(os.environ.get("ROUNDS", 1 if options.quick else rounds))
    options.bytes, options.seconds = (2**28, 0.3) if options.quick else (2**30, 0.6)
    options.load, options.relay = (os.path.abspath(path) for path in (options.load, options.relay))
    for binary in (options.load, options.relay):
        if not os.access(binary, os.X_OK):
            parser.error(f"{binary} is not there: run make first")

def run(body):
    """Run body(directory) with the highest limit of descriptors. At the end no
    process and no file is left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = tempfile.mkdtemp(prefix="relay-bench.")
    try:
        body(directory)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for process in list(running):
            kill(process)
        if options.hosts:
            options.hosts.close()
        shutil.rmtree(directory)
